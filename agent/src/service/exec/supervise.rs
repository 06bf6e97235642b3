//! One running exec: its output, its input, its end, and the reasons to end it sooner. Whatever the reason, the whole
//! process group goes.

use std::{os::unix::process::ExitStatusExt, pin::pin, process::ExitStatus, time::Duration};

use proto::{
    code::Code,
    exec::{End, Outcome},
};
use rustix::process::Signal;
use tokio::{process::Child, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    super::{launch::Group, leftovers},
    Patience,
    input::write,
    pump::pump,
    session::Session,
};
use crate::journal::Leftover;

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
        // Nobody waits for the words of a program when the agent itself goes, is sent away, or nobody reads.
        if ![Code::CANCELLED, Code::TIMED_OUT].contains(&code) {
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

/// How long a run may take, and how much it may say.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) timeout: Option<Duration>,
    pub(super) output_max: u64,
    pub(super) patience: Patience,
}

/// Watches until the process is reaped and its output kept, then puts the outcome into the session. Streams come and go
/// meanwhile. `reclaim` makes other execs give up what was read.
pub(super) async fn supervise(
    mut run: Run,
    session: &Session,
    bounds: Bounds,
    shutdown: &CancellationToken,
    reclaim: impl Fn(),
) {
    let (stdin, stdout, stderr) = (run.child.stdin.take(), run.child.stdout.take(), run.child.stderr.take());
    let patience = bounds.patience;
    let enough = CancellationToken::new();
    let (exited, truncated, killing) = {
        let mut input = pin!(write(session, stdin));
        let mut output = pin!(pump(session, (stdout, stderr), bounds.output_max, patience.unread, &enough, reclaim));
        let timeout = bounds.timeout.map(|timeout| Instant::now() + timeout);
        let (mut exited, mut truncated, mut fed) = (None, None, false);
        let mut killing: Option<Killing> = None;
        while exited.is_none() || truncated.is_none() {
            let due = killing.as_ref().and_then(Killing::due);
            let reason = tokio::select! {
                biased;
                () = shutdown.cancelled(), if killing.is_none() => Some(Code::SHUTDOWN),
                code = session.killed(), if killing.is_none() => Some(code),
                () = at(timeout), if killing.is_none() => Some(Code::TIMED_OUT),
                () = at(due) => {
                    if let Some(killing) = &mut killing {
                        killing.advance(&run.group, &enough);
                    }
                    None
                }
                status = run.child.wait(), if exited.is_none() => {
                    exited = Some(status);
                    session.update(|state| state.exited = true);
                    None
                }
                () = &mut input, if !fed => {
                    fed = true;
                    None
                }
                missing = &mut output, if truncated.is_none() => {
                    truncated = Some(missing);
                    None
                }
            };
            if let (Some(code), None) = (reason, &killing) {
                killing = Some(Killing::begin(code, &run.group, patience.grace));
            }
        }
        (exited, truncated, killing)
    };
    let killed = killing.map(|killing| killing.code);
    match killed {
        // What let go of its output and runs on was meant to: a daemon that was started.
        None => run.group.release(),
        Some(_) => {
            drop(run.group);
            // What left the group is found by its environment.
            let fled = Leftover { id: session.id, process: None };
            let _ = tokio::task::spawn_blocking(move || leftovers::end(&fled)).await;
        }
    }
    let end = match (killed, exited.and_then(Result::ok)) {
        (Some(code), _) => End::Killed(code),
        (None, Some(status)) => end_of(status),
        (None, None) => End::Killed(Code::OUTCOME_UNKNOWN),
    };
    let outcome = Outcome { end, truncated: truncated.unwrap_or(true) };
    session.update(|state| {
        state.input.close();
        state.outcome = Some(outcome);
    });
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
