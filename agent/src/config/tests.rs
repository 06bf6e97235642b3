//! The configuration as owners write it, right and wrong.

use certs::join::JoinToken;
use secrecy::ExposeSecret;

use super::*;

const PIN: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

struct Lab {
    folder: tempfile::TempDir,
    inputs: Inputs,
}

impl Lab {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let inputs = Inputs { file: path, file_named: true, ..Inputs::default() };
        Self { folder, inputs }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.inputs.environment.push((name.into(), value.into()));
        self
    }

    fn dotenv(mut self, text: &str) -> Self {
        let path = self.folder.path().join(".env");
        std::fs::write(&path, text).unwrap();
        self.inputs.dotenv = Some(path);
        self
    }

    fn load(&self) -> Result<Config, Mistakes> {
        Config::load(&self.inputs)
    }

    fn mistakes(&self) -> Vec<String> {
        self.load().unwrap_err().0
    }
}

fn token() -> (String, JoinToken) {
    let token = JoinToken {
        address: "m.example:7443".into(),
        pin: PIN.parse().unwrap(),
        agent_id: "home-1".parse().unwrap(),
        secret: certs::join::generate_secret(),
    };
    (token.expose(), token)
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let inputs = Inputs { file: "/nonexistent/config.toml".into(), ..Inputs::default() };
    let config = Config::load(&inputs).unwrap();
    assert!(config.join.master.is_none() && config.join.proof.is_none());
    assert_eq!(config.policy_file, PolicyFile::Default(POLICY_FILE.into()));
    assert_eq!((config.keep_alive, config.worker_threads, config.gso), (Duration::from_secs(5), 1, true));
}

#[test]
fn environment_outweighs_dotenv_outweighs_the_file() {
    let lab = Lab::new("agent_id = \"file\"\nmaster = \"file.example\"\nkeep_alive_s = 7\ngso = false")
        .dotenv("AGENT_ID=dotenv\nMASTER_URL=\"wss://dotenv.example/x\"\n# a comment\n")
        .env("AGENT_ID", "env")
        .env("LANDLINE_KEEP_ALIVE_S", "");
    let config = lab.load().unwrap();
    assert_eq!(config.join.agent_id.unwrap().as_str(), "env");
    assert_eq!(config.join.master.unwrap().to_string(), "dotenv.example:443/x");
    assert_eq!((config.keep_alive, config.gso), (Duration::from_secs(7), false), "an empty variable says nothing");
    assert!(std::env::var("MASTER_URL").is_err(), "nothing is put into the process's environment");
}

#[test]
fn every_documented_name_is_read() {
    let lab = Lab::new("")
        .env("CONNECTION_MODE", "tunnel")
        .env("MASTER_URL", "https://other.example")
        .env("MASTER_TUNNEL_URL", "wss://m.example:7443/agent")
        .env("AGENT_ID", "home-1")
        .env("AGENT_SECRET", "s3cret-s3cret")
        .env("MASTER_PIN", PIN)
        .env("LANDLINE_STATE_DIR", "/s")
        .env("LANDLINE_ACTIONS_DIR", "/a")
        .env("LANDLINE_POLICY_FILE", "/p")
        .env("LANDLINE_LOG", "debug")
        .env("LANDLINE_LOG_FORMAT", "json")
        .env("LANDLINE_CONGESTION", "bbr")
        .env("LANDLINE_WORKER_THREADS", "2")
        .env("LANDLINE_GSO", "false")
        .env("LANDLINE_CARRIER", "wss")
        .env("https_proxy", "http://joe:s3cret@proxy:3128")
        .env("NO_PROXY", "m.example");
    let config = lab.load().unwrap();
    let proxy = config.proxy.as_ref().unwrap();
    assert!(proxy.for_master(config.join.master.as_ref().unwrap()).is_none());
    assert!(proxy.for_master(&"other".parse().unwrap()).is_some());
    assert_eq!(config.carrier, Wanted::WebSocket);
    assert_eq!(
        config.join.master.as_ref().unwrap().to_string(),
        "m.example:7443/agent",
        "the tunnel's URL is the nearer one"
    );
    assert_eq!(config.join.pin.unwrap().to_string(), PIN);
    assert_eq!(secret_of(&config), "s3cret-s3cret");
    assert_eq!((config.state_dir.as_path(), config.actions_dir.as_path()), (Path::new("/s"), Path::new("/a")));
    assert_eq!(config.policy_file, PolicyFile::Named("/p".into()));
    assert_eq!((config.log_level.as_str(), config.log_json), ("debug", true));
    assert_eq!((config.congestion, config.worker_threads, config.gso), (Congestion::Bbr, 2, false));
    assert!(!format!("{config:?}").contains("s3cret"), "a secret was printed");
}

#[test]
fn an_agent_is_on_demand_where_its_owner_says_so() {
    let on_demand = |lab: Lab| lab.load().unwrap().on_demand;
    assert_eq!(on_demand(Lab::new("check_interval_s = 3")), None, "a standing line unless told otherwise");
    assert_eq!(on_demand(Lab::new("mode = \"on-demand\"").env("LANDLINE_MODE", "persistent")), None);
    let (every, linger) = (Duration::from_secs(15), Duration::from_secs(60));
    assert_eq!(on_demand(Lab::new("mode = \"on-demand\"")), Some(OnDemand { every, linger }));
    let lab = Lab::new("").env("LANDLINE_MODE", "on-demand").env("LANDLINE_CHECK_INTERVAL_S", "3600");
    let (every, linger) = (Duration::from_secs(3_600), Duration::ZERO);
    assert_eq!(on_demand(lab.env("LANDLINE_LINGER_S", "0")), Some(OnDemand { every, linger }));
    let mistakes = Lab::new("mode = \"sometimes\"\ncheck_interval_s = 0\nlinger_s = 3601").mistakes();
    for wanted in ["mode", "check_interval_s", "linger_s"] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(wanted)), "{wanted}: {mistakes:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_no_secret_with_them() {
    let lab = Lab::new(
        "mastr = \"x\"\nmaster = \"http://m\"\nagent_id = \"A B\"\nmaster_pin = \"md5:1\"\nkeep_alive_s = 900\n\
         worker_threads = \"many\"\ngso = [1]\ncongestion = \"reno\"\nlog_format = \"xml\"\ncarrier = \"pigeon\"\nhttps_proxy = \"socks5://sec-ret@x\"\nconnection_mode = \"direct\"\n\
         join_token = \"llj1_sec-ret\"\n",
    );
    let mistakes = lab.mistakes();
    let wanted = [
        "mastr",
        "master (",
        "agent_id",
        "master_pin",
        "keep_alive_s",
        "worker_threads",
        "gso",
        "congestion",
        "log_format",
        "carrier",
        "https_proxy",
        "connection_mode",
        "join token",
    ];
    for name in wanted {
        assert!(mistakes.iter().any(|mistake| mistake.contains(name)), "{name} is not in {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), wanted.len(), "{mistakes:#?}");
    assert!(!mistakes.concat().contains("sec-ret"));
    let broken = Lab::new("agent_secret = \"sec-ret\" oops").mistakes().concat();
    assert!(broken.contains("config.toml") && !broken.contains("sec-ret"), "{broken}");
}

#[test]
fn a_named_file_must_exist() {
    let inputs = Inputs { file: "/nonexistent/config.toml".into(), file_named: true, ..Inputs::default() };
    assert!(Config::load(&inputs).unwrap_err().0[0].contains("/nonexistent/config.toml"));
    let lab = Lab::new("join_token_file = \"/nonexistent/token\"\nmaster_ca_file = \"/nonexistent/ca.pem\"");
    assert_eq!(lab.mistakes().len(), 2);
}

#[test]
fn a_join_token_brings_everything_and_must_agree_with_the_rest() {
    let (text, token) = token();
    let config = Lab::new("").env("LANDLINE_JOIN_TOKEN", &text).load().unwrap();
    assert_eq!(config.join.master.unwrap().to_string(), token.address);
    assert_eq!((config.join.pin, config.join.agent_id), (Some(token.pin), Some(token.agent_id)));
    let file = Lab::new("");
    let path = file.folder.path().join("token");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    let from_file = file.env("LANDLINE_JOIN_TOKEN_FILE", path.to_str().unwrap()).load().unwrap();
    assert_eq!(secret_of(&from_file), token.secret.expose_secret());
    let overridden = Lab::new("master = \"10.0.0.1:1\"").env("JOIN_TOKEN", &text).load().unwrap();
    assert_eq!(overridden.join.master.unwrap().to_string(), "10.0.0.1:1", "an owner may know a nearer address");
    let other_pin = PIN.replace('a', "b");
    let conflict = Lab::new("agent_id = \"other\"").env("JOIN_TOKEN", &text).env("MASTER_PIN", &other_pin);
    assert_eq!(conflict.mistakes().len(), 2);
}

fn secret_of(config: &Config) -> &str {
    match config.join.proof.as_ref().unwrap() {
        Proof::Secret(secret) => secret.expose_secret(),
        Proof::Key(_) => panic!("a key"),
    }
}

#[test]
fn a_key_and_what_an_installer_left() {
    let folder = tempfile::tempdir().unwrap();
    let key = certs::join::EnrolmentKey {
        address: "master.example:1".into(),
        pin: certs::join::Pin::of_spki(b"key"),
        secret: certs::join::generate_secret(),
    };
    std::fs::write(folder.path().join(JOIN_FILE), key.expose() + "\n").unwrap();
    let inputs = Inputs {
        file: "/nonexistent".into(),
        overrides: vec![("state_dir", folder.path().display().to_string())],
        ..Inputs::default()
    };
    let config = Config::load(&inputs).unwrap();
    assert!(matches!(&config.join.proof, Some(Proof::Key(read)) if read.expose_secret() == key.secret.expose_secret()));
    assert_eq!(config.join.left_by_installer.as_deref(), Some(folder.path().join(JOIN_FILE).as_path()));
    assert!(config.join.agent_id.is_none() && config.join.pin == Some(key.pin));
}
