//! One session as those see it who have to do with it: its keeper, who owns the terminal, and the stream that is attached.
//! Holds what is between them, and wakes whoever waits for it. Starts, reads and kills nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::{
    code::Code,
    exec::End,
    id::ShellId,
    limits::SHELL_INPUT_WINDOW,
    shell::{FromShell, Size, ToShell},
};
use tokio::{sync::watch, time::Instant};

use super::output::{BadOffset, Output, Piece};

/// Input handed to the program at a time, bytes.
const INPUT_PIECE: usize = 4096;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ShellId,
    pub(super) pid: u32,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    output: Output,
    /// Typed and not yet taken by the program.
    input: VecDeque<u8>,
    /// Bytes of input that came, and those of them that the program was handed.
    typed: u64,
    taken: u64,
    typed_at: Instant,
    size: Size,
    /// The stream that is attached; a later one has a higher number.
    reader: Option<u64>,
    readers: u64,
    left_at: Instant,
    ending: Option<Code>,
    ended: Option<(End, Instant)>,
}

/// A stream's place at a session. Dropping it leaves.
#[derive(Debug)]
pub(super) struct Place<'a> {
    session: &'a Session,
    number: u64,
}

/// What a place is told next.
#[derive(Debug)]
pub(super) enum Next {
    Frame(FromShell),
    /// The last frame.
    Last(FromShell),
    /// A newer stream has the session.
    Superseded,
    /// Nothing until the session changed.
    Wait,
}

/// What a keeper looks at between two events.
#[derive(Debug)]
pub(super) struct View {
    pub(super) is_held: bool,
    pub(super) held_until: Option<Instant>,
    pub(super) input: Vec<u8>,
    pub(super) size: Size,
    pub(super) ending: Option<Code>,
    pub(super) typed_at: Instant,
    /// `None` while somebody is attached.
    pub(super) left_at: Option<Instant>,
}

impl Session {
    pub(super) fn new(id: ShellId, pid: u32, size: Size) -> Self {
        let now = Instant::now();
        let state = State {
            output: Output::new(),
            input: VecDeque::new(),
            typed: 0,
            taken: 0,
            typed_at: now,
            size,
            reader: None,
            readers: 0,
            left_at: now,
            ending: None,
            ended: None,
        };
        Self { id, pid, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Resolves with each change; see `tokio::sync::watch`.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes the place of whoever is attached, from `offset` on. Also gives the frame that says so.
    pub(super) fn attach(&self, offset: u64) -> Result<(Place<'_>, FromShell), BadOffset> {
        let mut state = self.lock();
        let (begin, lost) = state.output.attach(offset, Instant::now())?;
        state.readers += 1;
        state.reader = Some(state.readers);
        let place = Place { session: self, number: state.readers };
        let (input, size) = (state.typed, state.size);
        drop(state);
        self.changed.send_replace(());
        Ok((place, FromShell::Attached { pid: self.pid, offset: begin, lost, input, size }))
    }

    /// Ends the session for this reason, unless it is ending already.
    pub(super) fn end(&self, code: Code) {
        self.change(|state| _ = state.ending.get_or_insert(code));
    }

    /// When it ended.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.lock().ended.as_ref().map(|(_, at)| *at)
    }

    pub(super) fn view(&self, now: Instant) -> View {
        let state = self.lock();
        View {
            is_held: state.output.is_held(now),
            held_until: state.output.held_until(),
            input: state.input.iter().take(INPUT_PIECE).copied().collect(),
            size: state.size,
            ending: state.ending,
            typed_at: state.typed_at,
            left_at: state.reader.is_none().then_some(state.left_at),
        }
    }

    /// The program printed this.
    pub(super) fn printed(&self, piece: &[u8]) {
        self.change(|state| state.output.push(piece, Instant::now()));
    }

    /// The program was handed so many bytes of input.
    pub(super) fn took(&self, count: usize) {
        self.change(|state| {
            state.input.drain(..count);
            state.taken += count as u64;
        });
    }

    /// It is over: there will be no more output.
    pub(super) fn over(&self, end: End) {
        self.change(|state| {
            state.input = VecDeque::new();
            state.ended = Some((end, Instant::now()));
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// `told` is what was last told of the input.
    pub(super) fn next(&self, told: &mut u64) -> Next {
        let mut state = self.session.lock();
        if state.reader != Some(self.number) {
            return Next::Superseded;
        }
        if state.taken > *told {
            *told = state.taken;
            return Next::Frame(FromShell::Taken { input: state.taken });
        }
        match state.output.next() {
            Some(Piece::Lost(bytes)) => Next::Frame(FromShell::Lost { bytes }),
            Some(Piece::Bytes(bytes)) => Next::Frame(FromShell::Output(bytes)),
            None => match &state.ended {
                Some((end, _)) if state.output.is_sent() => Next::Last(FromShell::Ended(end.clone())),
                Some(_) | None => Next::Wait,
            },
        }
    }

    /// What the master says. `Err` is a breach of the rules.
    pub(super) fn hear(&self, message: ToShell) -> Result<(), Code> {
        let mut state = self.session.lock();
        if state.reader != Some(self.number) {
            return Err(Code::SUPERSEDED);
        }
        match message {
            ToShell::Input(piece) => {
                if state.typed + piece.len() as u64 > state.taken + SHELL_INPUT_WINDOW {
                    return Err(Code::TOO_LARGE);
                }
                state.typed += piece.len() as u64;
                state.typed_at = Instant::now();
                if state.ended.is_some() || state.ending.is_some() {
                    // Nobody is there to take it.
                    state.taken = state.typed;
                } else {
                    state.input.extend(piece);
                }
            }
            ToShell::Resize(size) => state.size = size,
            ToShell::Ack { offset } => state.output.ack(offset, Instant::now()).map_err(|_| Code::UNEXPECTED)?,
            ToShell::Close => _ = state.ending.get_or_insert(Code::CANCELLED),
        }
        drop(state);
        self.session.changed.send_replace(());
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.session.change(|state| {
            if state.reader == Some(self.number) {
                state.reader = None;
                state.left_at = Instant::now();
            }
        });
    }
}
