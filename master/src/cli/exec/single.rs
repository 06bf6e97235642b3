//! One exec at this terminal: its output is ours, its exit code too, Ctrl-C cancels it.

use std::{io, process::ExitCode};

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Context, EXEC_FAILED,
        client::Client,
        output::{self, Format},
        stop::StopSignal,
    },
    following::{FollowError, Following, Pipe, Told},
    input::{InputError, feed},
    run::{Audience, RunError, run},
    screen::Screen,
};
use crate::api::dto::{
    exec::{ExecLine, Exit, Piece},
    shell::LineState,
};

const SIGINT: u8 = 2;
const SIGPIPE: u8 = 13;

/// What this command does beside showing the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Role {
    /// Ctrl-C ends the program.
    Caller { stdin: bool },
    /// Ctrl-C ends the looking.
    Reader,
}

/// Follows one run to its end; its exit code as a shell would tell it.
pub(in crate::cli) async fn follow(context: &Context, following: Following, role: Role) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignal::listen()?;
    let (screen, writer) = Screen::open();
    let gone = screen.gone.clone();
    let (started, id) = oneshot::channel();
    let mut audience = Terminal { screen, format: context.format, started: Some(started) };
    let cancel = CancellationToken::new();
    let (mut interrupted, mut unfed) = (false, None);
    let ended = {
        let mut running = std::pin::pin!(run(&context.client, following, &cancel, &mut audience));
        let mut feeding = std::pin::pin!(fed(&context.client, id, role == Role::Caller { stdin: true }));
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => {
                    // The second one does not wait for anybody, and who only reads ends nothing.
                    if interrupted || role == Role::Reader {
                        return Ok((128 + SIGINT).into());
                    }
                    interrupted = true;
                    cancel.cancel();
                }
                () = gone.cancelled(), if !cancel.is_cancelled() => {
                    if role == Role::Reader {
                        break Err(RunError::NotStarted);
                    }
                    cancel.cancel();
                }
                error = &mut feeding, if unfed.is_none() => {
                    unfed = Some(error);
                    cancel.cancel();
                }
                ended = &mut running => break ended,
            }
        }
    };
    if let (Format::Json, Err(RunError::Follow(FollowError::Told { code, message }))) = (context.format, &ended) {
        audience.print(&ExecLine::Error { code: code.clone(), message: message.clone() }).await;
    }
    drop(audience);
    let written = tokio::select! {
        biased;
        written = writer.finish(cancel.is_cancelled()) => written,
        () = stop.wait() => return Ok((128 + SIGINT).into()),
    };
    match written {
        // Nobody reads any more, as behind `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok((128 + SIGPIPE).into()),
        written => written.context("cannot write the output")?,
    }
    match (unfed, ended) {
        (Some(error), _) => Err(error.into()),
        (None, Err(RunError::NotStarted)) if interrupted => Ok((128 + SIGINT).into()),
        (None, ended) => code_of(&ended?, interrupted),
    }
}

/// Feeds the program once it runs. Resolves only with a failure.
async fn fed(client: &Client, id: oneshot::Receiver<String>, wanted: bool) -> InputError {
    if wanted
        && let Ok(id) = id.await
        && let Err(error) = feed(client, &id).await
    {
        return error;
    }
    std::future::pending().await
}

fn code_of(exit: &Exit, interrupted: bool) -> anyhow::Result<ExitCode> {
    if exit.truncated {
        output::say(
            "landline: output is missing: what was beyond --output-max, or still in the pipe of a killed program",
        );
    }
    match (exit.code, exit.signal, exit.killed.as_deref()) {
        (Some(code), _, _) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(EXEC_FAILED))),
        (None, Some(signal), _) => {
            Ok(u8::try_from(signal).ok().and_then(|n| n.checked_add(128)).unwrap_or(EXEC_FAILED).into())
        }
        (None, None, Some("cancelled")) if interrupted => Ok((128 + SIGINT).into()),
        (None, None, killed) => Err(anyhow!("killed by the agent: {}", killed.unwrap_or("no reason given"))),
    }
}

/// Prints as it comes: the program's own bytes, or the lines of the API.
struct Terminal {
    screen: Screen,
    format: Format,
    started: Option<oneshot::Sender<String>>,
}

impl Terminal {
    /// As JSON.
    async fn print(&self, line: &ExecLine) {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        self.screen.write(Pipe::Stdout, text).await;
    }
}

impl Audience for Terminal {
    async fn hear(&mut self, told: Told) {
        if let Told::Started { exec_id, .. } = &told
            && let Some(started) = self.started.take()
        {
            let _ = started.send(exec_id.clone());
        }
        match told {
            Told::Master(Err(_)) => {
                self.screen
                    .say("the connection to the master was lost; the program runs on, waiting for the master")
                    .await
            }
            Told::Master(Ok(())) => self.screen.say("the master is back").await,
            told if self.format == Format::Json => {
                if let Some(line) = as_line(told) {
                    self.print(&line).await;
                }
            }
            Told::Output(pipe, bytes) => self.screen.write(pipe, bytes).await,
            Told::Line(LineState::Lost) => self.screen.say("the agent's line is lost; waiting for it").await,
            Told::Line(LineState::Back) => self.screen.say("the agent is back").await,
            Told::Started { .. } | Told::Exit(_) => {}
        }
    }
}

/// What was told as the API tells it; nothing for what is ours.
pub(super) fn as_line(told: Told) -> Option<ExecLine> {
    Some(match told {
        Told::Started { exec_id, pid } => ExecLine::Started { exec_id, pid },
        Told::Output(Pipe::Stdout, bytes) => ExecLine::Stdout(Piece::from_bytes(bytes)),
        Told::Output(Pipe::Stderr, bytes) => ExecLine::Stderr(Piece::from_bytes(bytes)),
        Told::Line(state) => ExecLine::Line { state },
        Told::Exit(exit) => ExecLine::Exit(exit),
        Told::Master(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let code = |interrupted, exit: Exit| code_of(&exit, interrupted).map(|code| format!("{code:?}")).ok();
        let is = |n: u8| Some(format!("{:?}", ExitCode::from(n)));
        assert_eq!(code(false, Exit { code: Some(7), ..Exit::default() }), is(7));
        assert_eq!(code(false, Exit { signal: Some(9), ..Exit::default() }), is(137));
        let killed = |word: &str| Exit { killed: Some(word.into()), ..Exit::default() };
        assert_eq!(code(true, killed("cancelled")), is(130));
        assert_eq!(code(false, killed("timed_out")), None);
    }
}
