//! The operator's command line: one file per command. Everything but `serve`, `demo`, `check-config`, `doctor`, `backup` and
//! `sim` speaks only the HTTP API. Owns the exit codes: the remote one for `exec`, 64 for usage and configuration, 1 for the rest.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod admin;
mod agents;
mod audit;
mod backup;
pub(crate) mod client;
mod command;
mod connect;
mod cp;
mod demo;
mod doctor;
mod end;
mod enrol;
mod events;
mod exec;
mod execs;
mod forward;
mod fs;
mod health;
mod log;
mod operators;
pub(crate) mod output;
mod password;
mod patience;
mod replay;
mod serve;
mod shell;
mod shells;
mod sim;
mod ssh_config;
mod stdio;
mod stop;
mod terminal;
mod token;
mod tunnel;
pub(crate) mod websocket;

use client::{CallError, Client, Connection, SetupError};
use output::Format;

const USAGE: u8 = 64;
const FAILED: u8 = 1;
/// A failure of ours where the remote exit code would stand.
const EXEC_FAILED: u8 = 255;

/// One line open from every machine behind NAT to one public master.
#[derive(Debug, Parser)]
#[command(name = "landline", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// What to print
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  landline serve --config /etc/landline/master.toml
  landline agents add home-1 --label site=berlin
  landline exec home-1 -- uname -a
  landline tunnel open home-1 localhost:443 --scheme https

Environment:
  LANDLINE_URL    the master's internal API (default http://127.0.0.1:7800)
  LANDLINE_TOKEN  an API token; on the master's host its admin token is found by itself";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the master in the foreground
    Serve(serve::Serve),
    /// Read the configuration, report every mistake, and start nothing
    CheckConfig(serve::CheckConfig),
    /// Add, list and manage agents
    Agents(agents::Agents),
    /// Run a program on an agent, or on many, and stream its output
    Exec(exec::Exec),
    /// List, show, read on and cancel what runs
    Execs(execs::Execs),
    /// Copy files to and from an agent
    Cp(cp::Copy),
    /// Look at, move, remove and archive files on an agent
    Fs(fs::Fs),
    /// Open a terminal on an agent
    Shell(shell::Shell),
    /// List and end shell sessions, download recordings
    Shells(shells::Shells),
    /// Show a recording again
    Replay(replay::Replay),
    /// Send one typed command and print its reply
    #[allow(clippy::enum_variant_names, reason = "it is the word users type")]
    Command(command::Call),
    /// Open, list and close tunnels
    Tunnel(tunnel::Tunnel),
    /// Listen here and carry connections to a target behind an agent
    Forward(forward::Forward),
    /// One connection to a target on standard input and output, for ProxyCommand
    Stdio(stdio::Stdio),
    /// Print a block for ~/.ssh/config
    SshConfig(ssh_config::SshConfig),
    /// Follow what happens
    Events(events::Events),
    /// Make keys for new machines, and the line to paste into them; approve those that wait
    Enrol(enrol::Enrol),
    /// Manage API tokens
    Token(token::Token),
    /// Read, verify and export the audit trail
    Audit(audit::Audit),
    /// Ask a master whether it can take work
    Health(health::Health),
    /// Look at everything a master needs on this host, and name the fix of what is wrong
    Doctor(doctor::Doctor),
    /// Copy a master's database and keys into one file, while it runs
    Backup(backup::Backup),
    /// Manage people, their roles and sessions
    Operators(operators::Operators),
    /// Make the first admin
    Admin(admin::Admin),
    /// Simulate many agents, for sizing
    Sim(sim::Sim),
    /// Run a master, three agents and a site behind each on this machine
    Demo(demo::Demo),
    #[command(hide = true)]
    WithParent(demo::WithParent),
}

/// A command that went wrong in the user's hands rather than ours.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// What every API command is given.
struct Context {
    client: Client,
    format: Format,
}

/// Parses the arguments, runs one command and says how the process ends.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return if error.use_stderr() { usage_code().into() } else { ExitCode::SUCCESS };
        }
    };
    let follows = match &cli.command {
        Command::Exec(_) | Command::Shell(_) => true,
        Command::Execs(execs) => execs.follows(),
        _ => false,
    };
    let ours = follows.then_some(EXEC_FAILED);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::say(&format!("landline: {}", output::plain_lines(&format!("{error:#}"))));
            ours.unwrap_or_else(|| failure_code(&error)).into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { connection, output: format, command } = cli;
    let context = || -> anyhow::Result<Context> { Ok(Context { client: connection.client()?, format }) };
    match command {
        Command::Serve(serve) => serve.run(),
        Command::CheckConfig(check) => Ok(check.run()),
        Command::Agents(agents) => block_on(agents.run(context()?)),
        Command::Exec(exec) => block_on(exec.run(context()?)),
        Command::Execs(execs) => block_on(execs.run(context()?)),
        Command::Fs(fs) => block_on(fs.run(context()?)),
        Command::Cp(copy) => block_on(copy.run(context()?)),
        Command::Shell(shell) => block_on(shell.run(context()?)),
        Command::Shells(shells) => block_on(shells.run(context()?)),
        Command::Replay(replay) => block_on(replay.run(context)),
        Command::Command(call) => block_on(call.run(context()?)),
        Command::Tunnel(tunnel) => block_on(tunnel.run(context()?)),
        Command::Forward(forward) => block_on(forward.run(context()?)),
        Command::Stdio(stdio) => block_on(stdio.run(context()?)),
        Command::SshConfig(config) => block_on(config.run(context()?)),
        Command::Events(events) => block_on(events.run(context()?)),
        Command::Enrol(enrol) => block_on(enrol.run(context()?)),
        Command::Token(token) => block_on(token.run(context()?)),
        Command::Audit(audit) => block_on(audit.run(context()?)),
        Command::Health(health) => block_on(health.run(connection)),
        Command::Doctor(doctor) => block_on(doctor.run(format)),
        Command::Backup(backup) => block_on(backup.run()),
        Command::Operators(operators) => block_on(operators.run(context()?)),
        Command::Admin(admin) => block_on(admin.run(context()?)),
        Command::Sim(sim) => block_on(sim.run(context()?)),
        Command::Demo(demo) => block_on(demo.run()),
        Command::WithParent(program) => program.run(),
    }
}

/// One thread is enough for a client, and for a master (measured: it is faster than several on two cores).
fn block_on(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // A read of standard input that nobody will answer must not hold the end up.
    runtime.shutdown_background();
    result
}

/// The exit code for a failed command: 64 where the user or the configuration is at fault.
fn failure_code(error: &anyhow::Error) -> u8 {
    let ours = error.chain().any(|cause| cause.is::<SetupError>() || cause.is::<UsageError>());
    if ours { USAGE } else { FAILED }
}

/// `exec` keeps 255 for failures of ours even when its arguments cannot be read.
fn usage_code() -> u8 {
    if matches!(std::env::args().nth(1).as_deref(), Some("exec" | "shell")) { EXEC_FAILED } else { USAGE }
}

/// Whether a call failed because the master could not be reached, which may pass.
fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Unreachable { .. } | CallError::Silent { .. } | CallError::Cut { .. } => true,
        CallError::Problem(problem) => matches!(problem.status, 429 | 503),
        CallError::Foreign { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                let leaf = sub.get_subcommands().next().is_none();
                assert!(!leaf || help.contains(&path), "`{path} --help` shows no example");
                visit(sub, &path);
            }
        }
        visit(&Cli::command(), "landline");
    }

    #[test]
    fn usage_and_failure_have_their_own_codes() {
        assert_eq!(failure_code(&UsageError("x".into()).into()), USAGE);
        assert_eq!(failure_code(&anyhow::anyhow!("x")), FAILED);
    }
}
