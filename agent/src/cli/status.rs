//! `landline-agent status`: asks the running agent over its socket.

use std::{io::Read, os::unix::net::UnixStream, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use landline_agent::{config::Config, lockdown, state::status_socket};
use serde_json::Value;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// 0 if the line is up, or on-demand and well; 1 if not.
pub(super) fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let status = match ask(config) {
        Ok(status) => status,
        Err(error) => match lockdown::read(&config.state_dir) {
            Some(imposed) => bail!("locked down by the owner since {}; {error:#}", imposed.since),
            None => return Err(error),
        },
    };
    if arguments.json {
        println!("{status}");
    } else {
        print(&status);
    }
    Ok(if status["line"] == "online" || status["line"] == "away" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the running agent says of itself.
pub(super) fn ask(config: &Config) -> anyhow::Result<Value> {
    let path = status_socket(&config.state_dir);
    let mut socket = UnixStream::connect(&path)
        .with_context(|| format!("no agent answers at {}; is it running, and are you its user?", path.display()))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut text = String::new();
    socket.read_to_string(&mut text).context("the agent did not answer")?;
    serde_json::from_str(&text).context("the agent's answer cannot be read")
}

fn print(status: &Value) {
    for (label, key) in [
        ("agent", "agent_id"),
        ("master", "master"),
        ("line", "line"),
        ("carrier", "carrier"),
        ("since", "since"),
        ("reason", "reason"),
        ("next attempt", "next_attempt"),
        ("last visit", "last_visit"),
        ("next visit", "next_visit"),
        ("policy", "policy"),
        ("version", "version"),
        ("pid", "pid"),
    ] {
        match &status[key] {
            Value::Null => {}
            Value::String(text) => println!("{label:<13} {text}"),
            other => println!("{label:<13} {other}"),
        }
    }
    if status["line"] == "locked" {
        println!("LOCKED DOWN by the owner: `landline-agent lockdown --off` lifts it");
    }
    for mistake in status["policy_mistakes"].as_array().into_iter().flatten() {
        println!("EVERYTHING IS DENIED: {}", mistake.as_str().unwrap_or_default());
    }
}
