//! `landline-agent doctor`: what stands between this machine and its master, with the fix of each thing.

use std::process::ExitCode;

use landline_agent::{
    config::{Config, Mistakes},
    doctor,
};
use proto::check::Check;

const EXAMPLES: &str = "\
Looks at: state folder, policy, disk, own log, UDP buffers, identity and pin; the master's name, QUIC on its UDP port
with the pin, the same inside a WebSocket on its TCP port, packet size, the proxy, the clock. It changes nothing, tells the master no
secret, and may run beside the agent. Under twenty seconds. Exit code 1 if anything failed.

Examples:
  landline-agent doctor
  landline-agent doctor --json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// As JSON: a list of `name`, `state` (ok, warn, fail), `seen` and `fix`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: Result<Config, Mistakes>, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let checks = match config {
        Ok(config) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let checks = runtime.block_on(doctor::examine(&config));
            // A name that does not resolve may hold a thread for long.
            runtime.shutdown_background();
            checks
        }
        Err(Mistakes(mistakes)) => {
            let fix = "correct it: `landline-agent check-config`; deploy/agent.example.toml has every key";
            mistakes.into_iter().map(|mistake| Check::fail("configuration", mistake, fix)).collect()
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        checks.iter().for_each(|check| println!("{check}"));
    }
    Ok(if checks.iter().any(Check::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
