//! From TOML text and environment to a [`Config`]: every key with its default and bounds.

use std::{fmt, fs, net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use proto::net::quic::Congestion;
use secrecy::SecretString;

use super::{
    Access, Config, Database, Enrolment, Internal, Line, Log, LogFormat, MetricsSocket, Public, Retention, Tunnel,
    checks, reader::Reader,
};

const DAY_S: u64 = 86_400;
const YEAR_S: u64 = 365 * DAY_S;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the key; empty for the file as a whole.
    pub key: String,
    pub message: String,
}

/// Every mistake, one per line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let (line, colon) = (if index == 0 { "" } else { "\n" }, if error.key.is_empty() { "" } else { ": " });
            write!(f, "{line}{}{colon}{}", error.key, error.message)?;
        }
        Ok(())
    }
}

/// A good configuration, and names in the environment that looked like ours but set nothing.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub unknown_environment: Vec<String>,
}

impl Config {
    /// Reads the file (`None`: defaults alone) and the process environment.
    pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigErrors> {
        let text = match path {
            None => String::new(),
            Some(path) => fs::read_to_string(path).map_err(|error| whole(format!("{}: {error}", path.display())))?,
        };
        Self::parse(
            &text,
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// From text and a given environment.
    pub fn parse(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, ConfigErrors> {
        let table = text.parse().map_err(|error: toml::de::Error| whole(error.to_string()))?;
        let mut reader = Reader::new(table, environment);
        let config = read(&mut reader);
        checks::check(&config, &mut reader);
        let (errors, unknown_environment) = reader.finish();
        if errors.is_empty() { Ok(Loaded { config, unknown_environment }) } else { Err(ConfigErrors(errors)) }
    }
}

fn whole(message: String) -> ConfigErrors {
    ConfigErrors(vec![ConfigError { key: String::new(), message }])
}

fn read(reader: &mut Reader) -> Config {
    let data_dir = reader.path("data_dir").unwrap_or_else(|| "/var/lib/landline".into());
    let database = database(reader, &data_dir);
    Config {
        database,
        data_dir,
        public: Public {
            listen: reader.address("public.listen", SocketAddr::from(([0, 0, 0, 0], 443))),
            address: reader.text("public.address"),
        },
        internal: Internal {
            listen: reader.address("internal.listen", SocketAddr::from(([127, 0, 0, 1], 7800))),
            unix_socket: reader.path("internal.unix_socket"),
            hosts: reader.text("internal.hosts").map(|text| names(&text)).unwrap_or_default(),
        },
        metrics: MetricsSocket { listen: reader.address("metrics.listen", SocketAddr::from(([127, 0, 0, 1], 7801))) },
        tunnel: tunnel(reader),
        line: Line {
            heartbeat: reader.seconds("line.heartbeat_s", 15, 1..=3_600),
            congestion: reader.word(
                "line.congestion",
                Congestion::Cubic,
                &[("cubic", Congestion::Cubic), ("bbr", Congestion::Bbr)],
            ),
            gso: reader.flag("line.gso", true),
        },
        enrolment: Enrolment {
            secret_ttl: reader.seconds("enrolment.secret_ttl_s", 7 * DAY_S, 60..=YEAR_S),
            certificate: certificate(reader),
            idempotent: reader.seconds("enrolment.idempotent_s", 600, 0..=3_600),
        },
        access: Access { token: reader.days("access.token_days", 90) },
        retention: Retention {
            events: reader.days("retention.events_days", 30),
            audit: reader.days("retention.audit_days", 400),
            tunnels: reader.days("retention.tunnels_days", 90),
        },
        drain: reader.seconds("drain_s", 10, 0..=3_600),
        log: Log {
            format: reader.word("log.format", LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            filter: reader.text("log.filter").unwrap_or_else(|| "info".to_owned()),
        },
    }
}

/// Names in one text, separated by commas.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// At most 30 days (SECURITY R2).
fn certificate(reader: &mut Reader) -> Duration {
    let days = reader.integer("enrolment.certificate_days", 1..=30).unwrap_or(30);
    Duration::from_secs(days * DAY_S)
}

fn database(reader: &mut Reader, data_dir: &Path) -> Database {
    let in_data_dir = || Database::Sqlite(data_dir.join("landline.db"));
    let Some(url) = reader.text("database") else { return in_data_dir() };
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Database::Postgres(SecretString::from(url));
    }
    match url.strip_prefix("sqlite://") {
        Some(path) if path.starts_with('/') => Database::Sqlite(path.into()),
        _ => {
            // Not repeated in the message: it may hold a password.
            reader.error("database", "is neither postgres://… nor sqlite:///absolute/path");
            in_data_dir()
        }
    }
}

fn tunnel(reader: &mut Reader) -> Tunnel {
    Tunnel {
        port_range: port_range(reader),
        pending_timeout: reader.seconds("tunnel.pending_timeout_s", 30, 1..=3_600),
        ttl: reader.seconds("tunnel.ttl_s", 1_800, 1..=YEAR_S),
        ttl_max: reader.seconds("tunnel.ttl_max_s", 8 * 3_600, 1..=YEAR_S),
        heartbeat_timeout: reader.seconds("tunnel.heartbeat_timeout_s", 150, 1..=DAY_S),
        agent_grace: reader.seconds("tunnel.agent_grace_s", 30, 0..=3_600),
        park: reader.seconds("tunnel.park_s", 10, 0..=600),
        idle: reader.integer("tunnel.idle_s", 1..=YEAR_S).map(Duration::from_secs),
        connections_max: reader.integer("tunnel.connections_max", 1..=100_000).map_or(1_024, narrow),
        quarantine: reader.seconds("tunnel.quarantine_s", 120, 0..=3_600),
    }
}

/// The bounds were checked by the reader.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn port_range(reader: &mut Reader) -> RangeInclusive<u16> {
    const DEFAULT: RangeInclusive<u16> = 8_000..=8_999;
    let Some(text) = reader.text("tunnel.port_range") else { return DEFAULT };
    let ends = text.split_once('-').and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    match ends {
        Some((low, high)) if 1 <= low && low <= high => low..=high,
        _ => {
            reader.error("tunnel.port_range", format!("{text:?} is not a range like 8000-8999"));
            DEFAULT
        }
    }
}
