//! `landline doctor`: looks at everything that a master needs on its host, and names the fix of what is wrong. Changes nothing
//! and disturbs no master that runs. One file per group of checks.

mod certificates;
mod database;
mod host;
mod names;
mod sockets;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use proto::check::Check;

use super::{FAILED, output, output::Format, serve::Source};
use crate::config::{Config, ConfigError, ConfigErrors};

/// For all that waits. Every check has a deadline of its own below this.
const WITHIN: Duration = Duration::from_secs(18);

/// Look at configuration, ports, data folder, database, certificates, limits and names of this host's master
#[derive(Debug, Args)]
#[command(after_help = "\
Runs on the master's host, as the master's user or root, whether the master runs or not. Changes nothing. Under twenty
seconds. With `-o json` a list of `name`, `state` (ok, warn, fail), `seen` and `fix`. Exit code 1 if anything failed.

Examples:
  landline doctor
  landline doctor --config /etc/landline/master.toml -o json")]
pub(super) struct Doctor {
    #[command(flatten)]
    source: Source,
}

impl Doctor {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let checks = match self.source.read() {
            Ok(config) => examine(&config).await,
            Err(errors) => of_configuration(&errors),
        };
        let table = |checks: &Vec<Check>| {
            let lines: Vec<_> = checks.iter().map(|check| output::plain_lines(&check.to_string())).collect();
            lines.join("\n")
        };
        output::print(format, &checks, table)?;
        Ok(if checks.iter().any(Check::failed) { FAILED.into() } else { ExitCode::SUCCESS })
    }
}

fn of_configuration(errors: &ConfigErrors) -> Vec<Check> {
    let fix = "correct it; `landline check-config` says the same, deploy/landline.example.toml has every key";
    let said = |error: &ConfigError| match error.key.as_str() {
        "" => error.message.clone(),
        key => format!("{key}: {}", error.message),
    };
    errors.0.iter().map(|error| Check::fail("configuration", said(error), fix)).collect()
}

async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![Check::ok("configuration", format!("good; its data is in {}", config.data_dir.display()))];
    checks.extend(host::examine(config));
    checks.extend(certificates::examine(config));
    let waiting = async { tokio::join!(sockets::examine(config), database::examine(config), names::examine(config)) };
    match tokio::time::timeout(WITHIN, waiting).await {
        Ok((sockets, database, names)) => checks.extend(sockets.into_iter().chain(database).chain(names)),
        Err(_) => checks.push(Check::fail(
            "network",
            format!("not done within {WITHIN:?}"),
            "try again; if it stays so, look at the resolver and the database's host",
        )),
    }
    checks
}
