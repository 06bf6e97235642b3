//! The owner of one terminal: reads it, types into it, resizes it, and sees its program to the end, whatever ends it.
//! When it is done, nothing of the session runs and the terminal is closed.

use std::{
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use proto::{code::Code, exec::End, limits::EXEC_PIECE_MAX, shell::Size};
use pty_process::Pty;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Child,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Patience,
    session::{Session, View},
};
use crate::platform;

/// After the program's end the terminal is read until it was silent for this long: what the program left behind in the
/// background may hold it open.
const SILENT_FOR: Duration = Duration::from_millis(200);
/// What is read then at most, bytes: more than a terminal holds, less than the ring has room for.
const REST_MAX: usize = 256 * 1024;
/// Between the signals where nobody may wait long (SECURITY R5).
const HURRIED_GRACE: Duration = Duration::from_millis(300);

/// A started program and its terminal.
pub(super) struct Terminal {
    pub(super) child: Child,
    pub(super) pty: Pty,
    pub(super) leader: i32,
}

/// The reasons to end a session that it brings along itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) patience: Patience,
}

#[derive(Debug, Clone, Copy)]
struct Killing {
    code: Code,
    /// When the polite signal has had its time.
    kill_at: Option<Instant>,
}

/// Keeps the session until its program is gone and its output is in the session. Says how it ended.
pub(super) async fn keep(
    session: Arc<Session>,
    terminal: Terminal,
    limits: Limits,
    shutdown: CancellationToken,
) -> End {
    let Terminal { mut child, mut pty, leader } = terminal;
    // Asked for the foreground group while the halves are in use.
    let asked = pty.as_fd().try_clone_to_owned();
    let end = watch(&session, &mut child, &mut pty, leader, limits, &shutdown).await;
    let foreground = asked.ok().and_then(|fd| rustix::termios::tcgetpgrp(fd).ok());
    // What sits in the foreground of a terminal that goes away goes with it; what was put aside on purpose may stay.
    for group in [Some(leader), foreground.map(|pid| pid.as_raw_nonzero().get())].into_iter().flatten() {
        platform::signal_group(group, Signal::KILL);
    }
    drop(pty);
    tracing::info!(id = %session.id, ?end, "a shell ended");
    session.over(end.clone());
    end
}

async fn watch(
    session: &Session,
    child: &mut Child,
    pty: &mut Pty,
    leader: i32,
    limits: Limits,
    shutdown: &CancellationToken,
) -> End {
    let mut changes = session.changes();
    let (mut read, mut write) = pty.split();
    let mut buffer = vec![0; EXEC_PIECE_MAX];
    let mut size: Option<Size> = None;
    let mut killing: Option<Killing> = None;
    // False once the program closed its terminal: then only its end is left to wait for.
    let mut open = true;
    let exited = loop {
        changes.borrow_and_update();
        let view = session.view(Instant::now());
        if size.replace(view.size).is_some_and(|known| known != view.size) {
            let _ = write.resize(pty_process::Size::new(view.size.rows, view.size.cols));
        }
        let due = due(&view, limits, killing);
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if killing.is_none() => {
                killing = Some(begin(leader, Code::SHUTDOWN, limits.patience).await);
            }
            code = at(due) => match &mut killing {
                None => killing = Some(begin(leader, code, limits.patience).await),
                Some(killing) => {
                    signal_session(leader, Signal::KILL).await;
                    killing.kill_at = None;
                }
            },
            status = child.wait() => break status,
            typed = write.write(&view.input), if open && !view.input.is_empty() => {
                // What cannot be typed any more is taken by nobody.
                session.took(typed.unwrap_or(view.input.len()));
            }
            _ = changes.changed() => {}
            () = until(view.held_until), if view.is_held => {}
            printed = read.read(&mut buffer), if open && !view.is_held => match printed {
                Ok(count) if count > 0 => session.printed(&buffer[..count]),
                Ok(_) | Err(_) => open = false,
            },
        }
    };
    read_rest(session, &mut read, &mut buffer).await;
    match killing {
        Some(killing) => {
            // They had their signal; those that ignored it are not waited for.
            signal_session(leader, Signal::KILL).await;
            End::Killed(killing.code)
        }
        None => exited.map_or(End::Killed(Code::OUTCOME_UNKNOWN), end_of),
    }
}

/// What ends the session next, and when.
fn due(view: &View, limits: Limits, killing: Option<Killing>) -> Option<(Instant, Code)> {
    if let Some(killing) = killing {
        return Some((killing.kill_at?, killing.code));
    }
    let asked = view.ending.map(|code| (Instant::now(), code));
    let idle = limits.idle.map(|idle| (view.typed_at + idle, Code::IDLE));
    let unattached = view.left_at.map(|left| (left + limits.patience.unattached, Code::UNATTACHED));
    [asked, idle, unattached].into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// Hangs up: the polite signal, and for those that are stopped the one that lets them hear it.
async fn begin(leader: i32, code: Code, patience: Patience) -> Killing {
    signal_session(leader, Signal::HUP).await;
    signal_session(leader, Signal::CONT).await;
    // An agent that is sent away, locked or shut down has no time for last words.
    let hurried = [Code::SHUTDOWN, Code::SUSPENDED, Code::REMOVED, Code::OWNER_LOCKDOWN].contains(&code);
    let grace = if hurried { patience.grace.min(HURRIED_GRACE) } else { patience.grace };
    Killing { code, kill_at: Some(Instant::now() + grace) }
}

/// Signals everything that belongs to the session: a shell puts each job into a group of its own.
async fn signal_session(leader: i32, signal: Signal) {
    let signalled = tokio::task::spawn_blocking(move || {
        for pid in platform::session_members(leader) {
            // It may end by itself in between.
            let _ = platform::signal_process(pid, signal);
        }
    });
    if signalled.await.is_err() {
        platform::signal_group(leader, signal);
    }
}

/// What the program printed last is still in the terminal.
async fn read_rest(session: &Session, read: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) {
    let mut left = REST_MAX;
    while left > 0 {
        match tokio::time::timeout(SILENT_FOR, read.read(buffer)).await {
            Ok(Ok(count)) if count > 0 => {
                session.printed(&buffer[..count]);
                left = left.saturating_sub(count);
            }
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Killed(Code::OUTCOME_UNKNOWN),
    }
}

/// Resolves at the time with its code, or never.
async fn at(due: Option<(Instant, Code)>) -> Code {
    match due {
        Some((time, code)) => {
            tokio::time::sleep_until(time).await;
            code
        }
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
