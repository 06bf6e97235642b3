//! `landline-agent lockdown`: the owner stops everything at once, and lifts that again. The file is written first, so that
//! it holds whatever becomes of the agent that runs.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;
use landline_agent::{
    config::{Config, Mistakes},
    lockdown::{self, LockdownError},
};

use super::status;

/// Time for a running agent to have ended everything.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Ends, within a second, whatever the master has running here: shells, execs, commands, transfers, forwards and the line
itself. It survives restarts and reboots. The master is told that its owner locked the machine down, not why, and nothing
it sends lifts that. Policy and identity stay as they are.

Examples:
  landline-agent lockdown --reason 'odd logins since Monday'
  landline-agent status
  landline-agent lockdown --off";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Lift it: the agent connects again.
    #[arg(long, conflicts_with = "reason")]
    off: bool,
    /// A note for yourself, shown by `status`. It never leaves this machine.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.off { lift(config) } else { impose(config, &arguments.reason) }
}

fn impose(config: &Config, reason: &str) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    match lockdown::impose(&config.state_dir, reason) {
        Ok(_) => {}
        Err(error @ LockdownError::LongReason) => return Err(Mistakes(vec![error.to_string()]).into()),
        Err(error) => return Err(error.into()),
    }
    if !wait(config, |line| line == "locked") {
        bail!(
            "it is written down and holds from the agent's next start on, but the agent that runs did not end everything \
             within {OBEYED_WITHIN:?}: stop it now"
        );
    }
    match status::ask(config) {
        Ok(_) => {
            println!("locked down in {:.2} s: no line, and nothing of the master runs", begun.elapsed().as_secs_f64())
        }
        Err(_) => println!("locked down; no agent is running, and one that is started stays offline"),
    }
    println!("lift it with `landline-agent lockdown --off`");
    Ok(ExitCode::SUCCESS)
}

fn lift(config: &Config) -> anyhow::Result<ExitCode> {
    if !lockdown::lift(&config.state_dir)? {
        println!("there was no lockdown");
        return Ok(ExitCode::SUCCESS);
    }
    if !wait(config, |line| line != "locked") {
        bail!("it is lifted, but the agent that runs does not come back: restart it");
    }
    match status::ask(config) {
        Ok(_) => println!("the lockdown is lifted; the agent connects again"),
        Err(_) => println!("the lockdown is lifted; no agent is running"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until the running agent's line is as wanted. One that does not run has nothing to obey.
fn wait(config: &Config, wanted: impl Fn(&str) -> bool) -> bool {
    let deadline = Instant::now() + OBEYED_WITHIN;
    while let Ok(status) = status::ask(config) {
        if wanted(status["line"].as_str().unwrap_or_default()) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
