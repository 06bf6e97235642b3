//! `landline exec`: runs a program on an agent with its output live and its exit code as ours. Ctrl-C cancels the run.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::Engine;
use clap::Args;

use super::{Context, EXEC_FAILED, client::segment, output, output::Format, shell, stop::StopSignal};
use crate::api::dto::{
    exec::{ExecCall, ExecLine, Exit, Piece},
    shell::{LineState, NewShell},
};

/// Bytes of input taken along; the API takes the input with the call.
const STDIN_MAX: u64 = 2 << 20;
/// Longest line of the stream: one piece of 32 KiB in base64 or escaped text, with room.
const LINE_MAX: usize = 1 << 20;
/// How long a cancelled run may take to say how it ended.
const CANCEL_WITHIN: Duration = Duration::from_secs(15);
const SIGINT: u8 = 2;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline exec home-1 -- uname -a
  landline exec home-1 --shell 'df -h | tail -3' --timeout 10s
  landline exec home-1 -i -- sha256sum < file
  landline exec home-1 -t -- top

Exit code: the program's own, 128 + n if signal n ended it, 255 if it could not be run or followed.")]
pub(super) struct Exec {
    agent: String,
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
    /// Send this command's standard input along
    #[arg(short = 'i', long)]
    stdin: bool,
    /// On a terminal of its own, as for top or vim
    #[arg(short = 't', long, conflicts_with_all = ["stdin", "timeout", "output_max"])]
    tty: bool,
    /// Program and arguments
    #[arg(last = true, required_unless_present = "shell")]
    argv: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        if self.tty {
            let id = shell::open(&context, &self.agent, &self.on_terminal()).await?;
            return shell::follow(&context, &id, false, false).await;
        }
        let mut stop = StopSignal::listen()?;
        let path = format!("/agents/{}/exec", segment(&self.agent));
        let body = serde_json::to_value(self.call()?)?;
        let mut response = tokio::select! {
            biased;
            () = stop.wait() => return Ok((128 + SIGINT).into()),
            response = context.client.stream(&path, &(), Some(&body)) => response?,
        };
        let mut run = Run { format: context.format, id: None, cancelled: false };
        let mut lines = Lines::default();
        let mut deadline = None;
        loop {
            let piece = tokio::select! {
                biased;
                () = stop.wait() => {
                    // The second one does not wait for anybody.
                    if run.cancelled {
                        return Ok((128 + SIGINT).into());
                    }
                    run.cancel(&context).await?;
                    deadline = Some(tokio::time::Instant::now() + CANCEL_WITHIN);
                    continue;
                }
                () = sleep_until(deadline) => bail!("cancelled, but the agent did not say how it ended"),
                piece = response.chunk() => piece.map_err(|error| context.client.cut(&error))?,
            };
            let Some(piece) = piece else { bail!("the connection to the master ended before the program did") };
            for line in lines.push(&piece)? {
                if let Some(code) = run.line(&line)? {
                    return Ok(code);
                }
            }
        }
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

    fn call(&self) -> anyhow::Result<ExecCall> {
        let stdin_base64 = if self.stdin { Some(read_stdin()?) } else { None };
        Ok(ExecCall {
            argv: self.shell.is_none().then(|| self.argv.clone()),
            shell: self.shell.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            stdin: None,
            stdin_base64,
            stdin_open: false,
            timeout_s: self.timeout,
            output_max: self.output_max,
        })
    }
}

/// One run as it is followed.
struct Run {
    format: Format,
    id: Option<String>,
    cancelled: bool,
}

impl Run {
    /// Prints what one line says; a code when it was the last.
    fn line(&mut self, line: &str) -> anyhow::Result<Option<ExitCode>> {
        if self.format == Format::Json {
            output::line(line)?;
        }
        let quiet = self.format == Format::Json;
        match serde_json::from_str(line).context("the master sent a line that this version does not know")? {
            ExecLine::Started { exec_id, .. } => self.id = Some(exec_id),
            ExecLine::Stdout(piece) if !quiet => write_piece(&mut io::stdout().lock(), piece)?,
            ExecLine::Stderr(piece) if !quiet => write_piece(&mut io::stderr().lock(), piece)?,
            ExecLine::Stdout(_) | ExecLine::Stderr(_) => {}
            ExecLine::Line { state: LineState::Lost } => {
                eprintln!("landline: the agent's line is lost; waiting for it")
            }
            ExecLine::Line { state: LineState::Back } => eprintln!("landline: the agent is back"),
            ExecLine::Exit(exit) => return Ok(Some(self.ended(&exit))),
            ExecLine::Error { code, message } => bail!("{message} ({code})"),
        }
        Ok(None)
    }

    fn ended(&self, exit: &Exit) -> ExitCode {
        if exit.truncated {
            eprintln!("landline: output beyond the limit was dropped");
        }
        match (exit.code, exit.signal, exit.killed.as_deref()) {
            (Some(code), _, _) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(EXEC_FAILED)),
            (None, Some(signal), _) => {
                u8::try_from(signal).ok().and_then(|n| n.checked_add(128)).unwrap_or(EXEC_FAILED).into()
            }
            (None, None, Some("cancelled")) if self.cancelled => (128 + SIGINT).into(),
            (None, None, killed) => {
                eprintln!("landline: killed by the agent: {}", killed.unwrap_or("no reason given"));
                EXEC_FAILED.into()
            }
        }
    }

    async fn cancel(&mut self, context: &Context) -> anyhow::Result<()> {
        self.cancelled = true;
        match &self.id {
            Some(id) => Ok(context.client.delete(&format!("/execs/{}", segment(id))).await?),
            // Not started yet: closing the connection cancels it.
            None => bail!("cancelled before it started"),
        }
    }
}

/// Cuts the stream into lines, whatever pieces it came in.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> anyhow::Result<Vec<String>> {
        self.rest.extend_from_slice(piece);
        let mut lines = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            lines.push(String::from_utf8(self.rest[begin..begin + length].to_vec())?);
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if self.rest.len() > LINE_MAX {
            bail!("the master sent a line longer than {LINE_MAX} bytes");
        }
        lines.retain(|line| !line.is_empty());
        Ok(lines)
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn write_piece(out: &mut impl Write, piece: Piece) -> anyhow::Result<()> {
    let bytes = piece.into_bytes().context("the master sent output that is neither text nor base64")?;
    out.write_all(&bytes).and_then(|()| out.flush()).context("cannot write the output")
}

fn read_stdin() -> anyhow::Result<String> {
    let mut input = Vec::new();
    io::stdin().lock().take(STDIN_MAX + 1).read_to_end(&mut input).context("cannot read standard input")?;
    if input.len() as u64 > STDIN_MAX {
        bail!("standard input is longer than {STDIN_MAX} bytes");
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(input))
}

pub(super) fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no variable; write KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_any_pieces() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").unwrap().is_empty());
        assert_eq!(lines.push(b":1}\n\n{}\n{").unwrap(), ["{\"a\":1}", "{}"]);
        assert_eq!(lines.push(b"}\n").unwrap(), ["{}"]);
        assert!(lines.push(&vec![b'x'; LINE_MAX + 1]).is_err());
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let run = |cancelled| Run { format: Format::Table, id: None, cancelled };
        let code = |run: &Run, exit: Exit| format!("{:?}", run.ended(&exit));
        let is = |n: u8| format!("{:?}", ExitCode::from(n));
        assert_eq!(code(&run(false), Exit { code: Some(7), ..Exit::default() }), is(7));
        assert_eq!(code(&run(false), Exit { signal: Some(9), ..Exit::default() }), is(137));
        let killed = |word: &str| Exit { killed: Some(word.into()), ..Exit::default() };
        assert_eq!(code(&run(true), killed("cancelled")), is(130));
        assert_eq!(code(&run(false), killed("timed_out")), is(255));
    }
}
