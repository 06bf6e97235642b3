//! One exec as it outlives its streams: its output, its input, its outcome, and who reads. What runs it is `supervise`, who
//! talks to the master is `attend`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use proto::{
    code::Code,
    exec::{Attached, Outcome},
    id::RequestId,
    open::Refused,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    input::Input,
    output::{HISTORY_MAX, Output},
};

/// Output of all execs together, bytes. At this bound what was read is given up first; then each exec still may hold
/// [`FLOOR`], and beyond it the pipes are left unread until somebody reads.
const POOL_MAX: u64 = 64 << 20;
/// Unread output that every exec may hold however full the pool is, bytes.
const FLOOR: u64 = 64 << 10;

/// What changes while it runs.
#[derive(Debug)]
pub(super) struct State {
    pub(super) output: Output,
    pub(super) input: Input,
    /// The program itself ended; its output may still come.
    pub(super) exited: bool,
    /// It is over.
    pub(super) outcome: Option<Outcome>,
    /// Which attachment reads: a newer one takes the place.
    pub(super) reader: u64,
}

/// How much all execs hold.
#[derive(Debug)]
pub(super) struct Pool {
    used: AtomicU64,
    max: u64,
    freed: Notify,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: RequestId,
    pub(super) pid: u32,
    state: watch::Sender<State>,
    kill: watch::Sender<Option<Code>>,
    /// Forgotten: whoever is still attached is sent away.
    pub(super) gone: CancellationToken,
    pool: Arc<Pool>,
}

/// A place at a session: where the attachment begins.
pub(super) struct Seat {
    pub(super) attached: Attached,
    /// Number of the reader; `None` takes no output.
    pub(super) reader: Option<u64>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { used: AtomicU64::new(0), max: POOL_MAX, freed: Notify::new() }
    }
}

impl Pool {
    fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max
    }

    fn moved(&self, before: u64, after: u64) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }
}

impl Session {
    pub(super) fn new(id: RequestId, pid: u32, stdin: bool, pool: Arc<Pool>) -> Self {
        let state =
            State { output: Output::default(), input: Input::new(stdin), exited: false, outcome: None, reader: 0 };
        let gone = CancellationToken::new();
        Self { id, pid, state: watch::Sender::new(state), kill: watch::Sender::new(None), gone, pool }
    }

    pub(super) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Changes the state and tells everybody.
    pub(super) fn update(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| self.accounted(state, change));
    }

    /// Changes the state in a way that nobody waits for.
    pub(super) fn update_silently(&self, change: impl FnOnce(&mut State)) {
        self.state.send_if_modified(|state| {
            self.accounted(state, change);
            false
        });
    }

    /// Reads the state.
    pub(super) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.borrow())
    }

    fn accounted(&self, state: &mut State, change: impl FnOnce(&mut State)) {
        let before = state.output.cost();
        change(state);
        state.output.trim(if self.pool.is_full() { 0 } else { HISTORY_MAX });
        self.pool.moved(before, state.output.cost());
    }

    /// Gives up what was read, to make room for others.
    pub(super) fn shed(&self) {
        self.update_silently(|state| state.output.trim(0));
    }

    /// Ends it; the first reason counts.
    pub(super) fn kill(&self, code: Code) {
        self.kill.send_if_modified(|reason| reason.is_none() && reason.replace(code).is_none());
    }

    /// Resolves with the reason when it is to be ended.
    pub(super) async fn killed(&self) -> Code {
        let mut reasons = self.kill.subscribe();
        let reason = reasons.wait_for(Option::is_some).await.ok().and_then(|reason| *reason);
        match reason {
            Some(code) => code,
            None => std::future::pending().await,
        }
    }

    /// Whether the pipes may be read.
    pub(super) fn has_room(&self) -> bool {
        let (room, unread) = self.look(|state| (state.output.has_room(state.exited), state.output.unread()));
        room && (unread < FLOOR || !self.pool.is_full())
    }

    /// Whether only the others' output stands in the way.
    pub(super) fn is_crowded(&self) -> bool {
        self.pool.is_full() && self.look(|state| state.output.has_room(state.exited))
    }

    /// Resolves when there is room again. `reclaim` is called where others may give something up.
    pub(super) async fn room(&self, reclaim: impl Fn()) {
        let mut changes = self.changes();
        loop {
            let freed = self.pool.freed.notified();
            changes.mark_unchanged();
            if self.is_crowded() {
                reclaim();
            }
            if self.has_room() {
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = freed => {}
            }
        }
    }

    /// Takes a place at it. With an offset, what lies before counts as read, and an earlier reader is superseded.
    pub(super) fn join(&self, offset: Option<u64>) -> Result<Seat, Refused> {
        let mut joined = Err(Refused { code: Code::INTERNAL, message: String::new() });
        self.update(|state| {
            joined = match offset {
                Some(offset) => state.check(offset).map(|()| {
                    state.output.ack(offset);
                    state.reader += 1;
                    Some(state.reader)
                }),
                None => Ok(None),
            }
            .map(|reader| Seat { attached: state.attached(self.pid), reader });
        });
        joined
    }

    /// The place of the stream that started it.
    pub(super) fn first(&self) -> Seat {
        Seat { attached: self.look(|state| state.attached(self.pid)), reader: Some(0) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let cost = self.look(|state| state.output.cost());
        self.pool.moved(cost, 0);
    }
}

impl State {
    fn check(&self, offset: u64) -> Result<(), Refused> {
        let (from, end) = (self.output.kept_from(), self.output.end());
        let message = if offset < from {
            format!("output before byte {from} is no longer kept; it was asked for from byte {offset}")
        } else if offset > end {
            format!("there are {end} bytes of output so far; it was asked for from byte {offset}")
        } else {
            return Ok(());
        };
        Err(Refused { code: Code::OUTPUT_GONE, message })
    }

    fn attached(&self, pid: u32) -> Attached {
        Attached {
            pid,
            kept_from: self.output.kept_from(),
            output: self.output.end(),
            stdin: self.input.arrived(),
            stdin_taken: self.input.taken(),
            stdin_open: self.input.is_open() && self.outcome.is_none(),
            outcome: self.outcome.clone(),
        }
    }
}
