//! Both doctors, against faults that are really there: each is found, and its fix is named.

use std::{
    fs::Permissions,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use landline_tests::{agent::Agent, binary, cli::output, link::Link, master::Master};
use serde_json::Value;

/// What both promise.
const WITHIN: Duration = Duration::from_secs(20);

/// Exit code, and the findings.
struct Found {
    code: Option<i32>,
    checks: Vec<Value>,
    text: String,
}

impl Found {
    async fn by(command: Command) -> Self {
        let begun = Instant::now();
        let said = output(command).await;
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let errors = String::from_utf8_lossy(&said.stderr);
        let checks: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
        println!("{} checks in {:?}", checks.len(), begun.elapsed());
        Self { code: said.status.code(), checks, text }
    }

    async fn by_agent(agent: &Agent) -> Self {
        Self::by(agent.command(&["doctor", "--json"])).await
    }

    async fn by_master(config: &Path) -> Self {
        let mut command = Command::new(binary("landline"));
        command.args(["doctor", "-o", "json", "--config"]).arg(config);
        Self::by(command).await
    }

    /// The one of this name is in this state, and its fix says this.
    fn says(&self, name: &str, state: &str, fix: &str) {
        let found = self.checks.iter().any(|check| {
            check["name"] == name && check["state"] == state && check["fix"].as_str().unwrap().contains(fix)
        });
        assert!(found, "no {name} {state} {fix:?} in {}", self.text);
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter().filter(|check| check["state"] == "fail");
        failed.map(|check| check["name"].as_str().unwrap()).collect()
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_doctor_finds_what_is_wrong_and_names_the_fix() {
    let master = Master::start().await;
    let mut agent = master.agent("desk").await;
    let udp = format!("udp/{}", master.public_port);
    let good = Found::by_agent(&agent).await;
    assert_eq!((good.code, good.failed()), (Some(0), Vec::new()), "{}", good.text);
    for name in ["state folder", "policy", "disk", "own log", "pin", "name", &udp, "mtu", "proxy", "clock"] {
        good.says(name, "ok", "");
    }
    good.says(&format!("tcp/{}", master.public_port), "ok", "");
    assert!(!good.text.contains("llj1_"), "a secret was printed");
    assert!(agent.process().exited().is_none(), "the agent that runs was not disturbed");

    let state = agent.folder.path().join("state");
    set_mode(&state, 0o750);
    Found::by_agent(&agent).await.says("state folder", "fail", &format!("chmod 0700 {}", state.display()));
    set_mode(&state, 0o700);
    set_mode(&state.join("agent.key"), 0o644);
    Found::by_agent(&agent).await.says("state folder", "fail", "chmod 0600");
    set_mode(&state.join("agent.key"), 0o600);

    let policy = agent.folder.path().join("policy.toml");
    std::fs::write(&policy, "allow_everything_please = true\n").unwrap();
    let bad = Found::by_agent(&agent).await;
    assert_eq!(bad.code, Some(1));
    bad.says("policy", "fail", "correct");
    std::fs::write(&policy, "allow_all = true\n").unwrap();
    set_mode(&policy, 0o666);
    Found::by_agent(&agent).await.says("policy", "fail", "chmod go-w");
    set_mode(&policy, 0o644);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://user:canary-word@{}", taken.local_addr().unwrap());
    drop(taken);
    agent.set("HTTPS_PROXY", &proxy);
    let bad = Found::by_agent(&agent).await;
    bad.says("proxy", "warn", "HTTPS_PROXY");
    assert!(!bad.text.contains("canary-word"), "a proxy's password was printed");
    agent.set("HTTPS_PROXY", "");

    agent.set("LANDLINE_KEEP_ALIVE_S", "900");
    let bad = Found::by_agent(&agent).await;
    assert_eq!(bad.code, Some(1));
    bad.says("configuration", "fail", "check-config");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_doctor_tells_a_wrong_pin_from_a_closed_port_and_from_a_name_that_is_none() {
    let (master, stranger) = (Master::start().await, Master::start().await);
    let (mut agent, link) = master.agent_behind("desk", 7).await;
    let udp = format!("udp/{}", link.address.port());
    Found::by_agent(&agent).await.says(&udp, "ok", "");
    link.cut();
    let bad = Found::by_agent(&agent).await;
    assert_eq!(bad.code, Some(1));
    bad.says(&udp, "fail", "a firewall on the way");
    link.restore();
    let other = Link::start(([127, 0, 0, 1], stranger.public_port).into(), 8).await;
    agent.through(&other);
    let bad = Found::by_agent(&agent).await;
    bad.says(&format!("udp/{}", other.address.port()), "fail", "compare master_pin");
    agent.set("MASTER_URL", "no-such-master.invalid:443");
    Found::by_agent(&agent).await.says("name", "fail", "resolver");
    // One that was never enrolled.
    let mut fresh = Agent::new(&master.add("fresh").await, None);
    fresh.set("LANDLINE_JOIN_TOKEN", "");
    let bad = Found::by_agent(&fresh).await;
    assert_eq!(bad.failed(), ["identity"], "{}", bad.text);
    bad.says("identity", "fail", "landline enrol create");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_masters_doctor_finds_what_is_wrong_and_names_the_fix() {
    let mut master = Master::start().await;
    let config = master.folder.path().join("landline.toml");
    let good = Found::by_master(&config).await;
    assert_eq!((good.code, good.failed()), (Some(0), Vec::new()), "{}", good.text);
    for name in
        ["configuration", "data folder", "CA", "master", "ports", "database", "public.address", "gateway.domain"]
    {
        good.says(name, "ok", "");
    }
    // Not killed: what a log beside the database still holds would put it right again.
    master.terminate(WITHIN).await;
    let (udp, tcp) = (format!("udp/{}", master.public_port), format!("tcp/{}", master.internal_port));
    let stopped = Found::by_master(&config).await;
    assert_eq!(stopped.failed(), [""; 0], "{}", stopped.text);
    stopped.says("master", "warn", "landline serve");
    for name in [udp.as_str(), &tcp, "tunnel ports"] {
        stopped.says(name, "ok", "");
    }
    let in_the_way = UdpSocket::bind(("127.0.0.1", master.public_port)).unwrap();
    Found::by_master(&config).await.says(&udp, "fail", "ss -lpun");
    drop(in_the_way);
    let in_the_way = TcpListener::bind(("127.0.0.1", master.internal_port)).unwrap();
    Found::by_master(&config).await.says("master", "fail", "ss -lptn");
    drop(in_the_way);

    let data = master.data();
    set_mode(&data.join("ca/ca.key"), 0o640);
    let bad = Found::by_master(&config).await;
    assert_eq!(bad.code, Some(1));
    bad.says("data folder", "fail", &format!("chmod 0600 {}", data.join("ca/ca.key").display()));
    set_mode(&data.join("ca/ca.key"), 0o600);
    let kept = std::fs::read(data.join("landline.db")).unwrap();
    std::fs::write(data.join("landline.db"), vec![0x5a; kept.len()]).unwrap();
    let bad = Found::by_master(&config).await;
    assert_eq!(bad.failed(), ["database"], "{}", bad.text);
    std::fs::write(data.join("landline.db"), kept).unwrap();

    let text = std::fs::read_to_string(&config).unwrap();
    let with = |more: &str| std::fs::write(&config, format!("{text}{more}")).unwrap();
    with("[gateway]\ndomain = \"gw.no-such-master.invalid\"\n");
    Found::by_master(&config).await.says("gateway.domain", "fail", "*.gw.no-such-master.invalid");
    std::fs::write(&config, text.replacen("[public]\n", "[public]\ncert_file = \"/nonexistent.pem\"\n", 1)).unwrap();
    Found::by_master(&config).await.says("certificate", "fail", "public.cert_file");
    with("[tunel]\nttl_s = 5\n");
    let bad = Found::by_master(&config).await;
    assert_eq!(bad.code, Some(1));
    bad.says("configuration", "fail", "landline check-config");
}
