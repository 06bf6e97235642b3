//! `landline-agent policy`: what the owner's policy is, and why it says yes or no.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs},
    process::ExitCode,
};

use anyhow::Context;
use jiff::Zoned;
use landline_agent::{
    config::{Config, Mistakes},
    policy::{Because, Denied, Host, Policy},
};
use proto::{
    exec::{ExecSpec, Program},
    open::{Operation, Target},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The policy in force, as TOML.
    Show,
    /// Would it be allowed, and by which line? Exits with 0 for yes and 1 for no.
    #[command(subcommand)]
    Test(Test),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Test {
    /// A connection to HOST:PORT ([v6]:PORT). Names are resolved as the agent would.
    Forward { target: String },
    /// A program with its arguments: `exec -- systemctl status nginx`.
    Exec {
        /// One shell line instead of a program.
        #[arg(long, conflicts_with = "argv")]
        shell: Option<String>,
        /// A variable that is set for it.
        #[arg(long, value_name = "NAME")]
        env: Vec<String>,
        #[arg(last = true, required_unless_present = "shell")]
        argv: Vec<String>,
    },
    /// A command, as service.action.
    Command { name: String },
}

pub(super) fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let policy = Policy::load(&config.policy_file);
    if !policy.mistakes().is_empty() {
        eprintln!("EVERYTHING IS DENIED, because {} cannot be used:", policy.origin());
        return Err(Mistakes(policy.mistakes().to_vec()).into());
    }
    match command {
        Command::Show => {
            print!("{}", policy.text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Test(Test::Forward { target }) => forward(&policy, &target),
        Command::Test(Test::Exec { shell, env, argv }) => {
            let program = shell.map_or(Program::Argv(argv), Program::Shell);
            let env = env.into_iter().map(|name| (name, String::new())).collect();
            let spec = ExecSpec { program, cwd: None, env, timeout_ms: 0, stdin: false, output_max: 0 };
            Ok(verdict("", policy.judge(&Operation::Exec(spec), &Zoned::now())))
        }
        Command::Test(Test::Command { name }) => {
            let (service, action) = name.split_once('.').context("write service.action")?;
            let (service, action) = (service.to_owned(), action.to_owned());
            let command = proto::command::Command { service, action, payload: String::new(), timeout_ms: 0 };
            Ok(verdict("", policy.judge(&Operation::Command(command), &Zoned::now())))
        }
    }
}

fn forward(policy: &Policy, text: &str) -> anyhow::Result<ExitCode> {
    let (host, port) = text.rsplit_once(':').context("write HOST:PORT")?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let target = Target { host, port: port.parse().context("the port must be 1 to 65535")? };
    target.check().map_err(|error| anyhow::anyhow!("{error}"))?;
    if let Err(denied) = policy.judge(&Operation::Forward(target.clone()), &Zoned::now()) {
        return Ok(verdict("", Err(denied)));
    }
    let host = Host::read(&target.host)?;
    let addresses: Vec<IpAddr> = match &host {
        Host::Address(address) => vec![*address],
        Host::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Host::Name(_) | Host::Scoped => {
            let found = (target.host.as_str(), target.port).to_socket_addrs();
            found.with_context(|| format!("{} does not resolve", target.host))?.map(|found| found.ip()).collect()
        }
    };
    let codes: Vec<ExitCode> = addresses
        .iter()
        .map(|address| verdict(&format!("{address}: "), policy.permits(&host, *address, target.port)))
        .collect();
    Ok(if codes.contains(&ExitCode::SUCCESS) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(what: &str, verdict: Result<Because, Denied>) -> ExitCode {
    match verdict {
        Ok(Because(line)) => {
            println!("{what}allowed: {line}");
            ExitCode::SUCCESS
        }
        Err(Denied(why)) => {
            println!("{what}denied: {why}");
            ExitCode::FAILURE
        }
    }
}
