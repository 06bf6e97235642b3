//! `landline-agent enrol`: one certificate for one join token, and the way to the master kept for `run`.

use std::{io::Read, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use landline_agent::{
    app,
    config::{Config, Mistakes},
    freshness::Freshness,
    link::{
        enrol::{Purpose, enrol},
        member::Member,
    },
    lockdown,
    state::StateDir,
};

use super::Overrides;

/// Longest input read as a token, bytes: several times the longest there is.
const TOKEN_MAX: u64 = 8 * 1024;

const EXAMPLES: &str = "\
Examples:
  landline-agent enrol --token-file token.txt
  landline-agent enrol - < token.txt
  landline-agent enrol llj1_…        (other users may see it in the process list)";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The join token, or `-` to read it from stdin. Without one the configured id, secret and pin are used.
    #[arg(value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the join token, or `-` for stdin.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Enrol even if there is a certificate already.
    #[arg(long)]
    again: bool,
}

/// The token as a setting.
pub(super) fn token(arguments: &Arguments) -> anyhow::Result<Overrides> {
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(dash), _) if dash == "-" => from_stdin()?,
        (Some(token), _) => token.clone(),
        (None, Some(file)) => from_file(file)?,
        (None, None) => return Ok(Vec::new()),
    };
    if token.trim().is_empty() {
        return Err(Mistakes(vec!["the join token is empty".into()]).into());
    }
    Ok(vec![("join_token", token)])
}

/// The text of a file, or of stdin for `-`.
pub(super) fn from_file(file: &std::path::Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        return from_stdin();
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn from_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(TOKEN_MAX).read_to_string(&mut text).context("cannot read the token from stdin")?;
    Ok(text)
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(imposed) = lockdown::read(&config.state_dir) {
        bail!("locked down by the owner since {}; `landline-agent lockdown --off` lifts it", imposed.since);
    }
    let state = StateDir::open(&config.state_dir)?;
    let member = Member::new(state, config.join.clone(), Arc::new(Freshness::new(Vec::new())));
    let member = Arc::new(member.map_err(|error| Mistakes(vec![error.to_string()]))?);
    let (agent, master) = (member.agent_id.clone(), member.master.clone());
    if member.enrolment().is_some() && !arguments.again {
        println!("already enrolled as {agent}; --again enrols anew");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(enrol(&member, &app::roads(config), Purpose::Enrol))
        .with_context(|| format!("{agent} was not enrolled with {master}"))?;
    println!("enrolled as {agent} with {master}; start it with `landline-agent run`");
    Ok(ExitCode::SUCCESS)
}
