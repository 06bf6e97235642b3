//! From TOML text and environment to a [`Config`]: every key with its default and bounds.

use std::{fmt, fs, net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use proto::net::quic::Congestion;
use secrecy::SecretString;

use super::{
    Access, Config, Dashboard, Database, Enrolment, Gateway, Internal, Line, Log, LogFormat, MetricsSocket, Public,
    Recording, Retention, Tunnel, checks, reader::Reader,
};

const DAY_S: u64 = 86_400;
const WORKER_THREADS_MAX: u64 = 1024;
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
            tcp_listen: reader.address_opt("public.tcp_listen"),
            address: reader.text("public.address"),
            hosts: reader.text("public.hosts").map(|text| names(&text)).unwrap_or_default(),
            cert_file: reader.path("public.cert_file"),
            key_file: reader.path("public.key_file"),
        },
        internal: Internal {
            listen: reader.address("internal.listen", SocketAddr::from(([127, 0, 0, 1], 7800))),
            unix_socket: reader.path("internal.unix_socket"),
            hosts: reader.text("internal.hosts").map(|text| names(&text)).unwrap_or_default(),
        },
        metrics: MetricsSocket { listen: reader.address("metrics.listen", SocketAddr::from(([127, 0, 0, 1], 7801))) },
        tunnel: tunnel(reader),
        gateway: gateway(reader),
        dashboard: Dashboard { host: reader.text("dashboard.host").map(|host| host.to_ascii_lowercase()) },
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
        access: access(reader),
        retention: Retention {
            events: reader.days("retention.events_days", 30),
            audit: reader.days("retention.audit_days", 400),
            tunnels: reader.days("retention.tunnels_days", 90),
        },
        recording: Recording {
            keep: reader.days("recording.keep_days", 90),
            max_total: reader.integer("recording.max_total_mb", 1..=1 << 30).unwrap_or(10_240) << 20,
            strict: reader.flag("recording.strict", false),
        },
        drain: reader.seconds("drain_s", 10, 0..=3_600),
        worker_threads: worker_threads(reader),
        log: Log {
            format: reader.word("log.format", LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            filter: reader.text("log.filter").unwrap_or_else(|| "info".to_owned()),
        },
    }
}

/// One core is left to the kernel's part of the network: on two cores one thread carried more than two, since two wake each
/// other for every packet (ADR 13).
fn worker_threads(reader: &mut Reader) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let configured = reader.integer("worker_threads", 1..=WORKER_THREADS_MAX);
    configured.and_then(|threads| usize::try_from(threads).ok()).unwrap_or(cores - 1).max(1)
}

fn access(reader: &mut Reader) -> Access {
    let default = Access::default();
    Access {
        token: reader.days("access.token_days", 90),
        session_idle: reader.seconds("access.session_idle_s", default.session_idle.as_secs(), 60..=YEAR_S),
        session: reader.seconds("access.session_s", default.session.as_secs(), 60..=YEAR_S),
        step_up: reader.seconds("access.step_up_s", default.step_up.as_secs(), 1..=YEAR_S),
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

fn gateway(reader: &mut Reader) -> Gateway {
    let domain = reader.text("gateway.domain").unwrap_or_else(|| "gw.localhost".to_owned());
    Gateway {
        domain: domain.trim_matches('.').to_ascii_lowercase(),
        https: reader.word("gateway.scheme", false, &[("http", false), ("https", true)]),
        port: reader.integer("gateway.port", 1..=65_535).and_then(|port| u16::try_from(port).ok()),
        first_byte: reader.seconds("gateway.first_byte_s", 120, 1..=3_600),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        Config::parse(text, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn keys(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let errors = parse(text, environment).map(|_| ()).unwrap_err();
        errors.0.into_iter().map(|error| error.key).collect()
    }

    #[test]
    fn defaults_stand_alone() {
        let config = parse("", &[]).unwrap().config;
        assert!(matches!(&config.database, Database::Sqlite(path) if path.ends_with("landline/landline.db")));
        assert_eq!(config.public.listen.to_string(), "0.0.0.0:443");
        assert_eq!((config.internal.listen.port(), config.metrics.listen.port()), (7_800, 7_801));
        assert_eq!(config.tunnel.port_range, 8_000..=8_999);
        assert_eq!(config.tunnel.heartbeat_timeout, Duration::from_secs(150));
        assert_eq!(config.enrolment.certificate, Duration::from_secs(30 * DAY_S));
        assert_eq!(config.tunnel.idle, None);
    }

    /// Each key set in the file, then in the environment over another value of the file.
    #[test]
    fn every_key_is_read_from_file_and_environment() {
        type Show = fn(&Config) -> String;
        let keys: &[(&str, &str, Show)] = &[
            ("data_dir", "/tmp/x", |c| c.data_dir.display().to_string()),
            ("public.listen", "[::]:444", |c| c.public.listen.to_string()),
            ("public.address", "master.example:444", |c| c.public.address.clone().unwrap()),
            ("public.tcp_listen", "127.0.0.1:4", |c| c.public.tcp_listen.unwrap().to_string()),
            ("public.hosts", "b.example", |c| c.public.hosts.join(",")),
            ("public.cert_file", "/c.pem", |c| c.public.cert_file.clone().unwrap().display().to_string()),
            ("public.key_file", "/k.pem", |c| c.public.key_file.clone().unwrap().display().to_string()),
            ("internal.listen", "127.0.0.1:1", |c| c.internal.listen.to_string()),
            ("internal.unix_socket", "/run/x", |c| c.internal.unix_socket.clone().unwrap().display().to_string()),
            ("internal.hosts", "panel.internal", |c| c.internal.hosts.join(",")),
            ("metrics.listen", "[::1]:2", |c| c.metrics.listen.to_string()),
            ("tunnel.port_range", "9000-9001", |c| {
                format!("{}-{}", c.tunnel.port_range.start(), c.tunnel.port_range.end())
            }),
            ("tunnel.pending_timeout_s", "3", |c| c.tunnel.pending_timeout.as_secs().to_string()),
            ("tunnel.ttl_s", "4", |c| c.tunnel.ttl.as_secs().to_string()),
            ("tunnel.ttl_max_s", "9999", |c| c.tunnel.ttl_max.as_secs().to_string()),
            ("tunnel.heartbeat_timeout_s", "5", |c| c.tunnel.heartbeat_timeout.as_secs().to_string()),
            ("tunnel.agent_grace_s", "6", |c| c.tunnel.agent_grace.as_secs().to_string()),
            ("tunnel.park_s", "7", |c| c.tunnel.park.as_secs().to_string()),
            ("tunnel.idle_s", "8", |c| c.tunnel.idle.unwrap().as_secs().to_string()),
            ("tunnel.connections_max", "9", |c| c.tunnel.connections_max.to_string()),
            ("tunnel.quarantine_s", "10", |c| c.tunnel.quarantine.as_secs().to_string()),
            ("gateway.domain", "gw.example.net", |c| c.gateway.domain.clone()),
            ("gateway.scheme", "https", |c| if c.gateway.https { "https" } else { "http" }.to_owned()),
            ("gateway.port", "7443", |c| c.gateway.port.unwrap().to_string()),
            ("gateway.first_byte_s", "30", |c| c.gateway.first_byte.as_secs().to_string()),
            ("dashboard.host", "fleet.example.org", |c| c.dashboard.host.clone().unwrap()),
            ("line.heartbeat_s", "11", |c| c.line.heartbeat.as_secs().to_string()),
            ("line.congestion", "bbr", |c| format!("{:?}", c.line.congestion).to_lowercase()),
            ("line.gso", "false", |c| c.line.gso.to_string()),
            ("enrolment.secret_ttl_s", "60", |c| c.enrolment.secret_ttl.as_secs().to_string()),
            ("enrolment.certificate_days", "2", |c| (c.enrolment.certificate.as_secs() / DAY_S).to_string()),
            ("enrolment.idempotent_s", "13", |c| c.enrolment.idempotent.as_secs().to_string()),
            ("access.token_days", "14", |c| (c.access.token.as_secs() / DAY_S).to_string()),
            ("access.session_idle_s", "600", |c| c.access.session_idle.as_secs().to_string()),
            ("access.session_s", "7000", |c| c.access.session.as_secs().to_string()),
            ("access.step_up_s", "70", |c| c.access.step_up.as_secs().to_string()),
            ("retention.events_days", "15", |c| (c.retention.events.as_secs() / DAY_S).to_string()),
            ("retention.audit_days", "16", |c| (c.retention.audit.as_secs() / DAY_S).to_string()),
            ("retention.tunnels_days", "17", |c| (c.retention.tunnels.as_secs() / DAY_S).to_string()),
            ("recording.keep_days", "19", |c| (c.recording.keep.as_secs() / DAY_S).to_string()),
            ("recording.max_total_mb", "20", |c| (c.recording.max_total >> 20).to_string()),
            ("recording.strict", "true", |c| c.recording.strict.to_string()),
            ("worker_threads", "33", |c| c.worker_threads.to_string()),
            ("drain_s", "18", |c| c.drain.as_secs().to_string()),
            ("log.format", "json", |c| format!("{:?}", c.log.format).to_lowercase()),
            ("log.filter", "debug", |c| c.log.filter.clone()),
        ];
        for (key, value, show) in keys {
            assert_ne!(show_default(*show), Some((*value).to_owned()), "{key} is tested with its default");
            let plain = value.parse::<u64>().is_ok() || *value == "false";
            let in_file = if plain { format!("{key} = {value}") } else { format!("{key} = {value:?}") };
            // A key alone is a mistake.
            let beside = if *key == "public.key_file" { "public.cert_file = 'c'\n" } else { "" };
            let in_file = format!("{beside}{in_file}");
            assert_eq!(show(&parse(&in_file, &[]).unwrap().config), *value, "{key}");
            let name = format!("LANDLINE_{}", key.to_uppercase().replace('.', "_"));
            let loaded = parse(&in_file, &[(&name, value)]).unwrap();
            assert_eq!((show(&loaded.config), loaded.unknown_environment.len()), ((*value).to_owned(), 0), "{key}");
        }
    }

    /// The example names every key, and what it sets is the default.
    #[test]
    fn the_example_is_complete_and_true() {
        let example = include_str!("../../../deploy/landline.example.toml");
        let defaults = parse("", &[]).unwrap().config;
        assert_eq!(format!("{:?}", parse(example, &[]).unwrap().config), format!("{defaults:?}"));
        // With the optional ones set as well, nothing is unknown.
        let all: String = example.lines().map(|line| uncommented(line).to_owned() + "\n").collect();
        parse(&all, &[]).unwrap();
        let table: toml::Table = all.parse().unwrap();
        let named: usize = table.values().map(|value| value.as_table().map_or(1, toml::Table::len)).sum();
        assert_eq!(named, 44, "the keys of `every_key_is_read_from_file_and_environment`, and `database`");
    }

    /// `# key = value` without its `# `.
    fn uncommented(line: &str) -> &str {
        let setting = line.strip_prefix("# ").filter(|rest| {
            rest.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        });
        setting.unwrap_or(line)
    }

    /// `None` where the default is unset.
    fn show_default(show: fn(&Config) -> String) -> Option<String> {
        let config = parse("", &[]).unwrap().config;
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| show(&config))).ok()
    }

    #[test]
    fn every_mistake_is_reported_at_once_with_its_key() {
        let text = r#"
            databse = "x"
            drain_s = -1
            [tunnel]
            ttl_s = "soon"
            port_range = "9-8"
            colour = { deep = 1 }
            [internal]
            listen = "0.0.0.0:7800"
            [line]
            gso = 1
            congestion = "reno"
            [public]
            address = "no-port"
        "#;
        let mut found = keys(text, &[("LANDLINE_METRICS_LISTEN", "nowhere")]);
        found.sort();
        let expected = [
            "databse",
            "drain_s",
            "internal.listen",
            "line.congestion",
            "line.gso",
            "metrics.listen",
            "public.address",
            "tunnel.colour.deep",
            "tunnel.port_range",
            "tunnel.ttl_s",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn relations_between_keys_hold() {
        assert_eq!(keys("internal.listen = '127.0.0.1:8500'", &[]), ["tunnel.port_range"]);
        assert_eq!(keys("tunnel.port_range = '400-500'", &[]), ["tunnel.port_range"]);
        assert_eq!(keys("tunnel.ttl_s = 99999", &[]), ["tunnel.ttl_s"]);
        assert_eq!(keys("metrics.listen = '127.0.0.1:7800'", &[]), ["metrics.listen"]);
        assert_eq!(keys("gateway.domain = 'gw'\ngateway.scheme = 'ftp'", &[]).len(), 2);
        for (domain, host) in
            [("gw.example.net", "panel.example.net"), ("example.net", "example.net"), ("a.co.uk", "x.a.co.uk")]
        {
            let text = format!("gateway.domain = {domain:?}\ninternal.hosts = {host:?}");
            assert_eq!(keys(&text, &[]), ["gateway.domain"], "{domain} {host}");
        }
        assert!(parse("gateway.domain = 'a.co.uk'\ninternal.hosts = 'panel, b.co.uk'", &[]).is_ok());
        assert!(parse("metrics.listen = '127.0.0.1:0'\ninternal.listen = '127.0.0.1:0'", &[]).is_ok());
        for bad in ["x", "x:", ":1", "x:0", "x:70000", "a b:1", "2001:db8::1:443", "https://x:1"] {
            assert_eq!(keys(&format!("public.address = {bad:?}"), &[]), ["public.address"], "{bad}");
        }
        for good in ["x:1", "192.0.2.1:443", "[2001:db8::1]:443"] {
            assert!(parse(&format!("public.address = {good:?}"), &[]).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_password_in_the_database_url_is_never_shown() {
        let good = parse("database = 'postgres://u:canary@h/d'", &[]).unwrap();
        assert!(matches!(good.config.database, Database::Postgres(_)));
        assert!(!format!("{good:?}").contains("canary"));
        let bad = parse("database = 'mysql://u:canary@h/d'", &[]).unwrap_err();
        assert!(!format!("{bad} {bad:?}").contains("canary"));
        let path = parse("database = 'sqlite:///x/y.db'", &[]).unwrap();
        assert!(matches!(path.config.database, Database::Sqlite(path) if path == Path::new("/x/y.db")));
    }

    #[test]
    fn broken_files_and_foreign_names() {
        let broken = parse("a = = 1", &[]).unwrap_err();
        assert!(broken.to_string().contains("line 1"), "{broken}");
        let missing = Config::load(Some(Path::new("/nonexistent/landline.toml"))).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/landline.toml"));
        let foreign = parse("", &[("LANDLINE_TOKEN", "x"), ("HOME", "/")]).unwrap();
        assert_eq!(foreign.unknown_environment, ["LANDLINE_TOKEN"]);
    }
}
