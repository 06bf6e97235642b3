//! `landline exec`: a program on an agent, with its output live and its exit code as ours, or on many. Here are the
//! arguments.

mod following;
mod input;
mod lines;
mod many;
mod run;
mod screen;
mod single;

use std::{process::ExitCode, sync::Arc};

use clap::{ArgGroup, Args};

use self::many::{Many, fan_out};
pub(super) use self::{
    following::Following,
    single::{Role, follow},
};
use super::{Context, output, shell};
use crate::api::dto::{exec::ExecCall, shell::NewShell};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline exec home-1 -- uname -a
  landline exec home-1 --shell 'df -h | tail -3' --timeout 10s
  landline exec home-1 -i -- sha256sum < file
  landline exec home-1 -t -- top
  landline exec --selector env=prod --concurrency 10 --fail-at 20% -- uname -a
  landline exec --agents home-1,home-2 --grouped -- df -h /

Exit code: the program's own, 128 + n if signal n ended it, 255 if it could not be run or followed. Of a run on many:
0 if all succeeded, 1 if some did not, 2 if --fail-at stopped it, 255 if nothing was run, 130 after Ctrl-C. A lost line or a
restarted master is waited for, five minutes. Ctrl-C cancels the run; the second one does not wait for its end.")]
#[command(group = ArgGroup::new("targets").required(true).args(["agent", "selector", "agents", "all"]))]
pub(super) struct Exec {
    agent: Option<String>,
    #[command(flatten)]
    many: Many,
    /// A line for the agent's shell instead of a program and its arguments
    #[arg(long, value_name = "LINE", conflicts_with = "argv")]
    shell: Option<String>,
    /// Working directory on the agent
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Kill it after this long: 90s, 10m
    #[arg(long, value_parser = output::parse_seconds)]
    timeout: Option<u32>,
    /// Keep at most this many bytes of output
    #[arg(long, value_name = "BYTES")]
    output_max: Option<u64>,
    /// Send this command's standard input along, live; to many of at most 2 MiB, all of it to each
    #[arg(short = 'i', long)]
    stdin: bool,
    /// On a terminal of its own, as for top or vim
    #[arg(short = 't', long, requires = "agent", conflicts_with_all = ["stdin", "timeout", "output_max"])]
    tty: bool,
    /// Program and arguments
    #[arg(last = true, required_unless_present = "shell")]
    argv: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let Some(agent) = &self.agent else {
            let stdin_base64 = if self.stdin { Some(input::whole()?) } else { None };
            let call = ExecCall { stdin_base64, ..self.call() };
            return Box::pin(fan_out(&context, &self.many, call)).await;
        };
        if self.tty {
            let id = shell::open(&context, agent, &self.on_terminal()).await?;
            return shell::follow(&context, &id, false, false).await;
        }
        let call = ExecCall { stdin_open: self.stdin, ..self.call() };
        let following = Following::start(&context.client, agent, Arc::new(call));
        follow(&context, following, Role::Caller { stdin: self.stdin }).await
    }

    fn on_terminal(&self) -> NewShell {
        NewShell {
            argv: self.shell.is_none().then(|| self.argv.clone()),
            shell: self.shell.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().cloned().collect(),
            ..shell::on_this_terminal()
        }
    }

    fn call(&self) -> ExecCall {
        ExecCall {
            argv: self.shell.is_none().then(|| self.argv.clone()),
            shell: self.shell.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().cloned().collect(),
            timeout_s: self.timeout,
            output_max: self.output_max,
            ..ExecCall::default()
        }
    }
}

pub(super) fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no variable; write KEY=VALUE")),
    }
}
