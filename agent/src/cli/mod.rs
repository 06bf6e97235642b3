//! The command line: what can be asked for, and where settings come from. One file per command.
#![allow(clippy::print_stdout, reason = "this is the command line")]

mod doctor;
mod enrol;
mod install;
mod lockdown;
mod log;
mod policy;
mod run;
mod status;
mod supervise;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use landline_agent::config::{self, Config, Inputs, Mistakes};

/// Usage or configuration.
pub(crate) const EXIT_USAGE: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  Enrol once, with the token that `landline agents add` printed, then run:
    landline-agent enrol --token-file token.txt
    landline-agent

  Everything from the environment (or a .env in the working directory):
    MASTER_URL=wss://master.example AGENT_ID=home-1 AGENT_SECRET=… MASTER_PIN=sha256:… landline-agent

  May the master reach the web UI of the NAS, and why?
    landline-agent policy test forward nas.lan:443

  What is the line doing?
    landline-agent status

  What stands between this machine and its master?
    landline-agent doctor

  What did the master have this machine do?
    landline-agent log

  Stop everything, now and until you say otherwise:
    landline-agent lockdown

Exit codes: 64 usage or configuration, 1 anything else.";

/// Keeps one line open to a Landline master and answers what the owner's policy allows.
#[derive(Debug, Parser)]
#[command(name = "landline-agent", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration file (TOML). Environment and .env weigh more, the options here most.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where key, certificate and journal are kept (mode 0700).
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<String>,
    /// The owner's policy (TOML); must exist when named.
    #[arg(long, global = true, value_name = "FILE")]
    policy_file: Option<String>,
    /// The owner's own actions: <DIR>/<service>/<action>.
    #[arg(long, global = true, value_name = "DIR")]
    actions_dir: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as `info,quinn=debug`.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// What carries the line: udp, wss (the same inside a WebSocket), or auto for whichever gets through.
    #[arg(long, global = true, value_name = "CARRIER")]
    carrier: Option<String>,
    /// persistent: a line that is always open; on-demand: a short visit now and then, and a line while something needs it.
    #[arg(long, global = true, value_name = "MODE")]
    mode: Option<String>,
    /// Turn segmentation offload off, for network drivers that mishandle it.
    #[arg(long, global = true)]
    no_gso: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the line (the default).
    Run,
    /// Get a certificate with a join token, once.
    Enrol(enrol::Arguments),
    /// Install this program as a service, or upgrade it, and wait until it is online.
    Install(install::Arguments),
    /// End the agent and remove program, configuration, identity, unit and user.
    Uninstall(install::Uninstall),
    /// Keep the agent running where there is no init system.
    Supervise(supervise::Arguments),
    /// Ask the running agent about its line.
    Status(status::Arguments),
    /// End everything the master does here, at once and until you lift it.
    Lockdown(lockdown::Arguments),
    /// Look at everything that a line needs, and name the fix of what is wrong.
    Doctor(doctor::Arguments),
    /// Show what the master had this machine do, or verify that record.
    Log(log::Arguments),
    /// Show the owner's policy, or explain a verdict of it.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Read the whole configuration and say what is wrong with it.
    CheckConfig,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings;
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => run::run(load(&settings, Vec::new())?),
        Command::Enrol(arguments) => {
            let token = enrol::token(&arguments)?;
            enrol::run(&load(&settings, token)?, &arguments)
        }
        Command::Install(arguments) => install::run(arguments),
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        Command::Supervise(arguments) => supervise::run(&arguments),
        Command::Status(arguments) => status::run(&load(&settings, Vec::new())?, &arguments),
        Command::Lockdown(arguments) => lockdown::run(&load(&settings, Vec::new())?, &arguments),
        Command::Doctor(arguments) => doctor::run(load(&settings, Vec::new()), &arguments),
        Command::Log(arguments) => log::run(&load(&settings, Vec::new())?, &arguments),
        Command::Policy(command) => policy::run(&load(&settings, Vec::new())?, command),
        Command::CheckConfig => check(&load(&settings, Vec::new())?),
    }
}

/// Settings with their origin on the command line.
type Overrides = Vec<(&'static str, String)>;

fn load(settings: &Settings, mut overrides: Overrides) -> Result<Config, Mistakes> {
    let mut option = |key, value: &Option<String>| overrides.extend(value.clone().map(|value| (key, value)));
    option("state_dir", &settings.state_dir);
    option("policy_file", &settings.policy_file);
    option("actions_dir", &settings.actions_dir);
    option("carrier", &settings.carrier);
    option("mode", &settings.mode);
    option("log_level", &settings.log_level);
    if settings.no_gso {
        overrides.push(("gso", "false".into()));
    }
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Config::load(&Inputs {
        file: settings.config.clone().unwrap_or_else(|| config::CONFIG_FILE.into()),
        file_named: settings.config.is_some(),
        dotenv: Some(".env".into()),
        environment: std::env::vars_os().filter_map(text).collect(),
        overrides,
    })
}

fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let policy = landline_agent::policy::Policy::load(&config.policy_file);
    let mut mistakes: Vec<String> =
        policy.mistakes().iter().map(|mistake| format!("policy {}: {mistake}", policy.origin())).collect();
    mistakes.extend(run::log_filter(config).err().map(|error| format!("log_level: {error}")));
    if !mistakes.is_empty() {
        return Err(Mistakes(mistakes).into());
    }
    println!("the configuration is good\nstate folder: {}\npolicy: {}", config.state_dir.display(), policy.origin());
    Ok(ExitCode::SUCCESS)
}
