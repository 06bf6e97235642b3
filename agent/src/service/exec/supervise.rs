//! One running exec: its output, its input, its end, and the reasons to end it sooner. Whatever the reason, the whole
//! process group goes.

use std::{os::unix::process::ExitStatusExt, pin::pin, process::ExitStatus, time::Duration};

use proto::{
    code::Code,
    exec::{End, ExecSpec, FromExec, Outcome},
    net::stream::{FrameStream, SendHalf},
};
use rustix::process::Signal;
use tokio::{process::Child, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    super::launch::Group,
    Patience,
    input::feed,
    pump::{Pumped, pump, reason_to_kill},
};

/// Output still in the pipes after the kill is read for this long.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A started process and its group.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    group: Group,
}

impl Run {
    pub(super) fn new(child: Child, group: Group) -> Self {
        Self { child, group }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }
}

/// The group is being ended: why, and what comes next.
#[derive(Debug)]
struct Killing {
    code: Code,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Asked to end; killed at the given time.
    Asked(Instant),
    /// Killed; its output is given up at the given time.
    Killed(Instant),
    Over,
}

impl Killing {
    fn begin(code: Code, group: &Group, grace: Duration) -> Self {
        // Nobody waits for the words of a program when the agent itself goes or nobody reads.
        if [Code::SHUTDOWN, Code::UNREAD].contains(&code) {
            group.signal(Signal::KILL);
            return Self { code, step: Step::Killed(Instant::now() + LAST_OUTPUT) };
        }
        group.signal(Signal::TERM);
        Self { code, step: Step::Asked(Instant::now() + grace) }
    }

    fn due(&self) -> Option<Instant> {
        match self.step {
            Step::Asked(at) | Step::Killed(at) => Some(at),
            Step::Over => None,
        }
    }

    fn advance(&mut self, group: &Group, enough: &CancellationToken) {
        self.step = match self.step {
            Step::Asked(_) => {
                group.signal(Signal::KILL);
                Step::Killed(Instant::now() + LAST_OUTPUT)
            }
            Step::Killed(_) | Step::Over => {
                enough.cancel();
                Step::Over
            }
        };
    }
}

/// Watches until the process is reaped and its output delivered, then tells the outcome.
pub(super) async fn supervise(
    mut run: Run,
    stream: FrameStream,
    spec: &ExecSpec,
    patience: Patience,
    shutdown: &CancellationToken,
) {
    let FrameStream { mut send, mut recv } = stream;
    let (stdin, stdout, stderr) = (run.child.stdin.take(), run.child.stdout.take(), run.child.stderr.take());
    let gone = send.stopped();
    let enough = CancellationToken::new();
    let (exited, pumped, killing) = {
        let mut gone = pin!(gone);
        let mut input = pin!(feed(&mut recv, stdin));
        let mut output = pin!(pump(stdout, stderr, &mut send, spec.output_max, patience.unread, &enough));
        let timeout = (spec.timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(spec.timeout_ms));
        let (mut exited, mut pumped) = (None, None);
        let mut killing: Option<Killing> = None;
        while exited.is_none() || pumped.is_none() {
            let due = killing.as_ref().and_then(Killing::due);
            let reason = tokio::select! {
                biased;
                () = shutdown.cancelled(), if killing.is_none() => Some(Code::SHUTDOWN),
                _ = &mut gone, if killing.is_none() => Some(Code::LINE_LOST),
                code = &mut input, if killing.is_none() => Some(code),
                () = at(timeout), if killing.is_none() => Some(Code::TIMED_OUT),
                () = at(due) => {
                    if let Some(killing) = &mut killing {
                        killing.advance(&run.group, &enough);
                    }
                    None
                }
                status = run.child.wait(), if exited.is_none() => {
                    exited = Some(status);
                    None
                }
                end = &mut output, if pumped.is_none() => {
                    pumped = Some(end);
                    reason_to_kill(end)
                }
            };
            if let (Some(code), None) = (reason, &killing) {
                killing = Some(Killing::begin(code, &run.group, patience.grace));
            }
        }
        (exited, pumped, killing)
    };
    recv.source_mut().stop(Code::DONE);
    let killed = killing.map(|killing| killing.code);
    match killed {
        // What let go of its output and runs on was meant to: a daemon that was started.
        None => run.group.release(),
        Some(_) => drop(run.group),
    }
    tell(send, killed, exited.and_then(Result::ok), pumped, patience.unread).await;
}

/// The last frame, where somebody is there to read it.
async fn tell(
    mut send: SendHalf,
    killed: Option<Code>,
    exited: Option<ExitStatus>,
    pumped: Option<Pumped>,
    unread: Duration,
) {
    let truncated = match pumped {
        Some(Pumped::All { truncated }) => truncated,
        Some(Pumped::Unread) => return send.reset(Code::UNREAD),
        Some(Pumped::Lost) | None => return,
    };
    let end = match (killed, exited) {
        (Some(code), _) => End::Killed(code),
        (None, Some(status)) => end_of(status),
        (None, None) => End::Killed(Code::OUTCOME_UNKNOWN),
    };
    let ended = FromExec::Ended(Outcome { end, truncated });
    match tokio::time::timeout(unread, send.write_frame(&ended)).await {
        Ok(Ok(())) => send.finish(),
        Ok(Err(_)) => {}
        Err(_) => send.reset(Code::UNREAD),
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Killed(Code::OUTCOME_UNKNOWN),
    }
}

/// Resolves at the time, or never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
