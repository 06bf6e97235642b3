//! The agent's settings: one TOML file, the environment, and a `.env` in the working directory, in rising order of
//! weight: file, `.env`, environment, command line. Every mistake is reported at once. Nothing here is put into the
//! process's environment, and secrets leave this module only in types that cannot be printed.

pub mod address;
pub mod carrier;
pub mod mode;
pub mod proxy;
mod source;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use certs::join::{Pasted, Pin};
use proto::{id::AgentId, net::quic::Congestion};
use secrecy::{ExposeSecret, SecretString};

pub use self::source::Inputs;
use self::{
    address::MasterAddress,
    carrier::Wanted,
    mode::{Mode, OnDemand},
    proxy::Proxy,
    source::Settings,
};

pub const CONFIG_FILE: &str = "/etc/landline-agent/config.toml";
const POLICY_FILE: &str = "/etc/landline-agent/policy.toml";
const ACTIONS_DIR: &str = "/etc/landline-agent/actions.d";
pub(crate) const STATE_DIR: &str = "/var/lib/landline-agent";
/// Where an installer leaves what to enrol with, below the state folder; removed once that is done.
pub const JOIN_FILE: &str = "join-token";
/// A keep-alive outside this range either floods a metered link or lets NAT mappings expire.
const KEEP_ALIVE_S: std::ops::RangeInclusive<u64> = 1..=20;
/// Of an on-demand agent. Requests wait 30 s: much rarer visits come too late for most.
const CHECK_INTERVAL_S: std::ops::RangeInclusive<u64> = 1..=3600;
const LINGER_S: std::ops::RangeInclusive<u64> = 0..=3600;
const WORKER_THREADS: std::ops::RangeInclusive<usize> = 1..=64;
/// Room of the agent's own log, MiB. Without room there is no log, and that is not on offer.
const OWN_LOG_MB: std::ops::RangeInclusive<u64> = 1..=4096;
const OWN_LOG_MB_DEFAULT: u64 = 8;

/// The effective settings.
#[derive(Debug, Clone)]
pub struct Config {
    pub join: Join,
    pub state_dir: PathBuf,
    pub actions_dir: PathBuf,
    pub policy_file: PolicyFile,
    /// `None`: a line that is always open.
    pub on_demand: Option<OnDemand>,
    pub carrier: Wanted,
    /// For WebSockets alone.
    pub proxy: Option<Proxy>,
    pub keep_alive: Duration,
    pub congestion: Congestion,
    pub gso: bool,
    pub worker_threads: usize,
    /// Of the agent's own log, bytes.
    pub own_log_max: u64,
    pub log_level: String,
    pub log_json: bool,
}

/// Which master, and as whom. What is absent may stand in the state folder from an earlier enrolment.
#[derive(Debug, Clone, Default)]
pub struct Join {
    pub master: Option<MasterAddress>,
    pub pin: Option<Pin>,
    pub agent_id: Option<AgentId>,
    pub proof: Option<Proof>,
    /// The file that `proof` came from, where an installer left it: of no more use once there is a certificate.
    pub left_by_installer: Option<PathBuf>,
}

/// What a first contact is proved with.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Of this agent alone.
    Secret(SecretString),
    /// An enrolment key: the master makes the agent.
    Key(SecretString),
}

/// Where the policy stands. A file that was named must exist; the default one may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyFile {
    Default(PathBuf),
    Named(PathBuf),
}

impl PolicyFile {
    pub fn path(&self) -> &Path {
        match self {
            Self::Default(path) | Self::Named(path) => path,
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {} mistake{}:{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, listed(.0))]
pub struct Mistakes(pub Vec<String>);

fn listed(mistakes: &[String]) -> String {
    mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect()
}

impl Config {
    /// Reads and checks everything; `Err` names every mistake.
    pub fn load(inputs: &Inputs) -> Result<Self, Mistakes> {
        let mut reading = Reading { settings: Settings::gather(inputs), mistakes: Vec::new() };
        let config = reading.config();
        reading.mistakes.splice(0..0, reading.settings.take_mistakes());
        if reading.mistakes.is_empty() { Ok(config) } else { Err(Mistakes(reading.mistakes)) }
    }
}

struct Reading {
    settings: Settings,
    mistakes: Vec<String>,
}

impl Reading {
    fn config(&mut self) -> Config {
        self.connection_mode();
        let path = |text: Option<String>, default: &str| PathBuf::from(text.unwrap_or_else(|| default.into()));
        let state_dir = path(self.text("state_dir"), STATE_DIR);
        Config {
            join: self.join(&state_dir),
            state_dir,
            actions_dir: path(self.text("actions_dir"), ACTIONS_DIR),
            policy_file: match self.text("policy_file") {
                Some(named) => PolicyFile::Named(named.into()),
                None => PolicyFile::Default(POLICY_FILE.into()),
            },
            on_demand: self.on_demand(),
            carrier: self.parsed("carrier").unwrap_or_default(),
            proxy: self.proxy(),
            keep_alive: Duration::from_secs(self.in_range("keep_alive_s", KEEP_ALIVE_S).unwrap_or(5)),
            congestion: self.congestion(),
            gso: self.parsed("gso").unwrap_or(true),
            worker_threads: self.in_range("worker_threads", WORKER_THREADS).unwrap_or(1),
            own_log_max: self.in_range("own_log_mb", OWN_LOG_MB).unwrap_or(OWN_LOG_MB_DEFAULT) << 20,
            log_level: self.text("log_level").unwrap_or_else(|| "info".into()),
            log_json: self.log_json(),
        }
    }

    fn join(&mut self, state_dir: &Path) -> Join {
        let (pasted, left_by_installer) = match self.join_token() {
            Some(pasted) => (Some(pasted), None),
            None => self.left_by_installer(state_dir),
        };
        let mut join = Join {
            master: self.parsed("master"),
            pin: self.pin(),
            agent_id: self.parsed("agent_id"),
            proof: self.text("agent_secret").map(|secret| Proof::Secret(secret.into())),
            left_by_installer,
        };
        if let Some(pasted) = pasted {
            self.fill(&mut join, pasted);
        }
        join
    }

    /// What was pasted brings what is needed; what is also set by itself must agree, except the address, which an owner
    /// may override (a port forward, a split-horizon name).
    fn fill(&mut self, join: &mut Join, pasted: Pasted) {
        let (address, pin, agent_id, proof) = match pasted {
            Pasted::Token(token) => (token.address, token.pin, Some(token.agent_id), Proof::Secret(token.secret)),
            Pasted::Key(key) => (key.address, key.pin, None, Proof::Key(key.secret)),
        };
        match address.parse() {
            Ok(address) => _ = join.master.get_or_insert(address),
            Err(error) => self.mistakes.push(format!("the join token's address: {error}")),
        }
        if join.pin.as_ref().is_some_and(|known| *known != pin) {
            self.mistakes.push("master_pin differs from the one in the join token; remove one of them".into());
        }
        if let Some(agent_id) = agent_id {
            if join.agent_id.as_ref().is_some_and(|known| *known != agent_id) {
                self.mistakes.push(format!("agent_id differs from the join token's ({agent_id}); remove one of them"));
            }
            join.agent_id = Some(agent_id);
        }
        join.pin = Some(pin);
        join.proof = Some(proof);
    }

    fn join_token(&mut self) -> Option<Pasted> {
        let text = match (self.text("join_token"), self.text("join_token_file")) {
            (Some(text), _) => SecretString::from(text),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => SecretString::from(text),
                Err(error) => {
                    self.mistakes.push(format!("join_token_file {file}: {error}"));
                    return None;
                }
            },
            (None, None) => return None,
        };
        self.read_pasted("join token", &text)
    }

    /// A folder that may not be entered holds nothing for this user.
    fn left_by_installer(&mut self, state_dir: &Path) -> (Option<Pasted>, Option<PathBuf>) {
        let file = state_dir.join(JOIN_FILE);
        let Ok(text) = std::fs::read_to_string(&file).map(SecretString::from) else { return (None, None) };
        (self.read_pasted(&file.display().to_string(), &text), Some(file))
    }

    fn read_pasted(&mut self, from: &str, text: &SecretString) -> Option<Pasted> {
        match text.expose_secret().trim().parse() {
            Ok(pasted) => Some(pasted),
            Err(error) => {
                self.mistakes.push(format!("{from}: {error}"));
                None
            }
        }
    }

    fn pin(&mut self) -> Option<Pin> {
        if let Some(pin) = self.parsed("master_pin") {
            return Some(pin);
        }
        let file = self.text("master_ca_file")?;
        match std::fs::read(&file).map_err(|error| error.to_string()).and_then(|pem| pin_of_ca_file(&pem)) {
            Ok(pin) => Some(pin),
            Err(error) => {
                self.mistakes.push(format!("master_ca_file {file}: {error}"));
                None
            }
        }
    }

    fn connection_mode(&mut self) {
        match self.text("connection_mode").as_deref() {
            None | Some("tunnel") => {}
            Some(other) => self.mistakes.push(format!(
                "connection_mode {other:?} is not known; this agent always dials out: use \"tunnel\" or leave it out"
            )),
        }
    }

    /// The intervals are checked in either mode.
    fn on_demand(&mut self) -> Option<OnDemand> {
        let every = Duration::from_secs(self.in_range("check_interval_s", CHECK_INTERVAL_S).unwrap_or(15));
        let linger = Duration::from_secs(self.in_range("linger_s", LINGER_S).unwrap_or(60));
        match self.parsed("mode").unwrap_or_default() {
            Mode::Persistent => None,
            Mode::OnDemand => Some(OnDemand { every, linger }),
        }
    }

    /// Not repeated in a mistake: it may hold a password.
    fn proxy(&mut self) -> Option<Proxy> {
        let except = self.text("no_proxy").unwrap_or_default();
        let setting = self.settings.take("https_proxy")?;
        match Proxy::new(setting.text.trim(), &except) {
            Ok(proxy) => Some(proxy),
            Err(error) => {
                self.mistakes.push(format!("https_proxy (from {}): {error}", setting.origin));
                None
            }
        }
    }

    fn congestion(&mut self) -> Congestion {
        match self.text("congestion").as_deref() {
            None | Some("auto" | "cubic") => Congestion::Cubic,
            Some("bbr") => Congestion::Bbr,
            Some(other) => {
                self.mistakes.push(format!("congestion {other:?} is not one of cubic, bbr, auto"));
                Congestion::Cubic
            }
        }
    }

    fn log_json(&mut self) -> bool {
        match self.text("log_format").as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                self.mistakes.push(format!("log_format {other:?} is not one of text, json"));
                false
            }
        }
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.settings.take(key).map(|setting| setting.text)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        let setting = self.settings.take(key)?;
        match setting.text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistakes.push(format!("{key} (from {}): {error}", setting.origin));
                None
            }
        }
    }

    fn in_range<T>(&mut self, key: &'static str, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: FromStr<Err: std::fmt::Display> + PartialOrd + std::fmt::Display,
    {
        let value = self.parsed::<T>(key)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.mistakes.push(format!("{key} is {value}; allowed is {} to {}", range.start(), range.end()));
        None
    }
}

fn pin_of_ca_file(pem: &[u8]) -> Result<Pin, String> {
    certs::ca_file::pin_of_file(pem).map_err(|error| error.to_string())
}
