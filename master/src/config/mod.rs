//! The master's configuration: TOML, then `LANDLINE_<SECTION>_<KEY>` from the environment over it. Every mistake is
//! reported at once, each with its key. Reads no file but its own and opens nothing.

mod checks;
mod load;
mod reader;

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use proto::net::quic::Congestion;
use secrecy::SecretString;

pub use load::{ConfigError, ConfigErrors, Loaded};

/// Everything an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Keys, certificates, the SQLite database, `admin.token`. 0700.
    pub data_dir: PathBuf,
    pub database: Database,
    pub public: Public,
    pub internal: Internal,
    pub metrics: MetricsSocket,
    pub tunnel: Tunnel,
    pub gateway: Gateway,
    pub dashboard: Dashboard,
    pub line: Line,
    pub enrolment: Enrolment,
    pub access: Access,
    pub retention: Retention,
    pub recording: Recording,
    /// Time for open work after SIGTERM.
    pub drain: Duration,
    /// Threads that carry lines, tunnels and calls.
    pub worker_threads: usize,
    pub log: Log,
}

#[derive(Debug, Clone)]
pub enum Database {
    Sqlite(PathBuf),
    /// Holds a password.
    Postgres(SecretString),
}

#[derive(Debug, Clone)]
pub struct Public {
    /// QUIC on udp.
    pub listen: SocketAddr,
    /// HTTPS on tcp, where it is not the same port: behind a proxy that has 443/tcp.
    pub tcp_listen: Option<SocketAddr>,
    /// `name:port` as agents reach it; stands in join tokens.
    pub address: Option<String>,
    /// Host names besides that of `address` under which the tcp port answers (comma-separated in the file).
    pub hosts: Vec<String>,
    /// The operator's own certificate, PEM with its chain, for the names in it.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM; where there is none it stands in `cert_file`.
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Internal {
    pub listen: SocketAddr,
    pub unix_socket: Option<PathBuf>,
    /// Host names besides loopback's that requests may come under (comma-separated in the file).
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct MetricsSocket {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Tunnel {
    pub port_range: RangeInclusive<u16>,
    pub pending_timeout: Duration,
    pub ttl: Duration,
    /// The longest lifetime that may be asked for at creation, and the cap of all extensions together.
    pub ttl_max: Duration,
    pub heartbeat_timeout: Duration,
    /// How long listeners outlive their agent.
    pub agent_grace: Duration,
    /// How long one connection waits for a line.
    pub park: Duration,
    /// Closes a tunnel without connections; off unless set.
    pub idle: Option<Duration>,
    /// Most connections at once on one tunnel.
    pub connections_max: u32,
    /// How long a closed port is given to no other tunnel.
    pub quarantine: Duration,
}

/// Machines' own pages in operators' browsers.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// One name below it per tunnel.
    pub domain: String,
    /// Whether browsers reach it over TLS.
    pub https: bool,
    /// As browsers see it; unset, the scheme's own over TLS, else that of the internal socket.
    pub port: Option<u16>,
    /// Time for a target to begin its answer.
    pub first_byte: Duration,
}

#[derive(Debug, Clone)]
pub struct Dashboard {
    /// The name under which the public tcp port serves the dashboard, to sessions alone; unset, only the internal socket does.
    pub host: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub heartbeat: Duration,
    pub congestion: Congestion,
    pub gso: bool,
}

#[derive(Debug, Clone)]
pub struct Enrolment {
    pub secret_ttl: Duration,
    pub certificate: Duration,
    pub idempotent: Duration,
}

#[derive(Debug, Clone)]
pub struct Access {
    /// Longest life of a token, and what one gets that names none.
    pub token: Duration,
    /// Ends a person's session that is not used.
    pub session_idle: Duration,
    /// Ends a person's session, used or not.
    pub session: Duration,
    /// How long a login or another proof opens what takes a fresh one: shells and execs.
    pub step_up: Duration,
}

impl Default for Access {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        Self { token: hours(90 * 24), session_idle: hours(12), session: hours(7 * 24), step_up: hours(1) }
    }
}

#[derive(Debug, Clone)]
pub struct Retention {
    pub events: Duration,
    pub audit: Duration,
    pub tunnels: Duration,
}

/// Of shells.
#[derive(Debug, Clone)]
pub struct Recording {
    pub keep: Duration,
    /// Bytes of all recordings together; the oldest go first.
    pub max_total: u64,
    /// A shell that cannot be recorded ends.
    pub strict: bool,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `landline=debug,info`, …
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
