//! One session as those see it who have to do with it: the hub, which has the stream to the agent, and the viewers. Holds
//! what is between them and wakes whoever waits. Reads and writes nothing itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use proto::{
    limits::{EXEC_PIECE_MAX, SHELL_HELD_FOR, SHELL_INPUT_WINDOW, SHELL_WINDOW},
    ring::Ring,
    shell::Size,
};
use tokio::sync::watch;

use crate::session::ended::Ended;

/// What a viewer is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Output that begins at this byte.
    Output {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// So many bytes are gone; the next output begins at `offset`.
    Lost {
        bytes: u64,
        offset: u64,
    },
    /// Whether the agent's line is there.
    Line {
        up: bool,
    },
    Resized(Size),
    /// Another one types now.
    TakenOver,
    /// The last.
    Ended(Ended),
}

/// A viewer's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub(super) viewer: u64,
    /// Where its output begins.
    pub begin: u64,
    /// What is gone before that.
    pub lost: u64,
    /// Where the output stood when it came.
    pub end: u64,
}

/// What the agent is told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ForAgent {
    Input(Vec<u8>),
    Resize(Size),
    Ack(u64),
    Close,
}

/// What was told to the agent on one stream.
#[derive(Debug)]
pub(super) struct AgentKnows {
    pub(super) input: u64,
    pub(super) size: Size,
    pub(super) acked: u64,
    pub(super) close: bool,
}

pub(super) struct State {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

struct Inner {
    ring: Ring,
    /// Typed and not taken by the program, from byte `taken` on.
    input: VecDeque<u8>,
    taken: u64,
    size: Size,
    up: bool,
    closing: bool,
    ended: Option<Ended>,
    viewers: BTreeMap<u64, Cursor>,
    next_viewer: u64,
    writer: Option<u64>,
}

/// Where a viewer stands.
struct Cursor {
    sent: u64,
    acked: u64,
    /// Since when something waits for its acknowledgement.
    waiting: Option<Instant>,
    line: bool,
    size: Size,
}

impl State {
    /// The output goes on behind `ring`.
    pub(super) fn new(size: Size, ring: Ring) -> Self {
        let inner = Inner {
            ring,
            input: VecDeque::new(),
            taken: 0,
            size,
            up: true,
            closing: false,
            ended: None,
            viewers: BTreeMap::new(),
            next_viewer: 0,
            writer: None,
        };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(()) }
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A new viewer that has everything up to `offset`; the one that types takes the place of the one before. `None` if
    /// the offset is beyond the output.
    pub(super) fn join(&self, offset: Option<u64>, writes: bool, now: Instant) -> Option<Joined> {
        let mut inner = self.lock();
        let asked = offset.unwrap_or_else(|| inner.ring.start());
        if asked > inner.ring.end() {
            return None;
        }
        let begin = asked.max(inner.ring.start());
        let id = inner.next_viewer;
        inner.next_viewer += 1;
        let waiting = (inner.ring.end() > begin).then_some(now);
        let cursor = Cursor { sent: begin, acked: begin, waiting, line: inner.up, size: inner.size };
        inner.viewers.insert(id, cursor);
        if writes {
            inner.writer = Some(id);
        }
        let joined = Joined { viewer: id, begin, lost: begin - asked, end: inner.ring.end() };
        drop(inner);
        self.changed.send_replace(());
        Some(joined)
    }

    pub(super) fn leave(&self, viewer: u64) {
        self.change(|inner| {
            inner.viewers.remove(&viewer);
            if inner.writer == Some(viewer) {
                inner.writer = None;
            }
        });
    }

    /// What the viewer is told next; `None` until something changes. `writes` is what it came for.
    pub(super) fn next(&self, viewer: u64, writes: bool) -> Option<Told> {
        let inner = &mut *self.lock();
        if writes && inner.writer != Some(viewer) {
            return Some(Told::TakenOver);
        }
        let cursor = inner.viewers.get_mut(&viewer)?;
        if cursor.line != inner.up {
            cursor.line = inner.up;
            return Some(Told::Line { up: inner.up });
        }
        if cursor.size != inner.size {
            cursor.size = inner.size;
            return Some(Told::Resized(inner.size));
        }
        let lost = inner.ring.start().saturating_sub(cursor.sent);
        if lost > 0 {
            cursor.sent += lost;
            return Some(Told::Lost { bytes: lost, offset: cursor.sent });
        }
        let window = (cursor.acked + SHELL_WINDOW).saturating_sub(cursor.sent);
        let bytes = inner.ring.read(cursor.sent, usize::try_from(window).unwrap_or(usize::MAX).min(EXEC_PIECE_MAX));
        if !bytes.is_empty() {
            let offset = cursor.sent;
            cursor.sent += bytes.len() as u64;
            return Some(Told::Output { offset, bytes });
        }
        let done = cursor.sent == inner.ring.end();
        inner.ended.clone().filter(|_| done).map(Told::Ended)
    }

    /// The viewer has everything up to `offset`. False for what it was not sent.
    pub(super) fn acked(&self, viewer: u64, offset: u64, now: Instant) -> bool {
        let mut inner = self.lock();
        let end = inner.ring.end();
        let Some(cursor) = inner.viewers.get_mut(&viewer).filter(|cursor| offset <= cursor.sent) else { return false };
        if offset > cursor.acked {
            cursor.acked = offset;
            cursor.waiting = (end > offset).then_some(now);
        }
        drop(inner);
        self.changed.send_replace(());
        true
    }

    /// How many bytes of input would be taken right now.
    pub(super) fn input_room(&self) -> usize {
        let inner = self.lock();
        usize::try_from(SHELL_INPUT_WINDOW).unwrap_or(usize::MAX).saturating_sub(inner.input.len())
    }

    pub(super) fn type_in(&self, bytes: &[u8]) {
        self.change(|inner| {
            if inner.ended.is_none() {
                inner.input.extend(bytes);
            }
        });
    }

    pub(super) fn resize(&self, size: Size) {
        self.change(|inner| inner.size = size);
    }

    pub(super) fn close(&self) {
        self.change(|inner| inner.closing = true);
    }

    pub(super) fn line(&self, up: bool) {
        self.change(|inner| inner.up = up);
    }

    pub(super) fn printed(&self, bytes: &[u8], now: Instant) {
        self.change(|inner| {
            inner.ring.push(bytes);
            for cursor in inner.viewers.values_mut() {
                cursor.waiting.get_or_insert(now);
            }
        });
    }

    /// Output was lost before it came here.
    pub(super) fn skipped(&self, bytes: u64) {
        self.change(|inner| {
            let to = inner.ring.end() + bytes;
            inner.ring.skip_to(to);
        });
    }

    /// The agent has `received` bytes of input and its program took `taken` of them.
    pub(super) fn attached(&self, received: u64) -> u64 {
        let mut inner = self.lock();
        if inner.input.is_empty() {
            // An earlier master typed those.
            inner.taken = received;
        }
        received.clamp(inner.taken, inner.taken + inner.input.len() as u64)
    }

    pub(super) fn taken(&self, input: u64) {
        self.change(|inner| {
            let count = usize::try_from(input.saturating_sub(inner.taken)).unwrap_or(usize::MAX).min(inner.input.len());
            inner.input.drain(..count);
            inner.taken += count as u64;
        });
    }

    pub(super) fn over(&self, ended: Ended) {
        self.change(|inner| {
            inner.input.clear();
            _ = inner.ended.get_or_insert(ended);
        });
    }

    pub(super) fn end(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Until when no more output is taken from the agent: the one who types reads first what there is, unless it fell
    /// silent.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        let inner = self.lock();
        let cursor = inner.viewers.get(&inner.writer?)?;
        let until = cursor.waiting? + SHELL_HELD_FOR;
        (inner.ring.end() - cursor.acked >= SHELL_WINDOW && now < until).then_some(until)
    }

    /// What the agent is told next, and notes it as told.
    pub(super) fn for_agent(&self, knows: &mut AgentKnows) -> Option<ForAgent> {
        let inner = self.lock();
        if inner.closing && !knows.close {
            knows.close = true;
            return Some(ForAgent::Close);
        }
        if inner.size != knows.size {
            knows.size = inner.size;
            return Some(ForAgent::Resize(inner.size));
        }
        if inner.ring.end() > knows.acked {
            knows.acked = inner.ring.end();
            return Some(ForAgent::Ack(knows.acked));
        }
        let skip = usize::try_from(knows.input.saturating_sub(inner.taken)).unwrap_or(usize::MAX);
        let piece: Vec<u8> = inner.input.iter().skip(skip).take(EXEC_PIECE_MAX).copied().collect();
        knows.input += piece.len() as u64;
        (!piece.is_empty()).then_some(ForAgent::Input(piece))
    }

    pub(super) fn size(&self) -> Size {
        self.lock().size
    }

    pub(super) fn offset(&self) -> u64 {
        self.lock().ring.end()
    }

    pub(super) fn viewers(&self) -> usize {
        self.lock().viewers.len()
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::limits::SHELL_RING;

    use super::*;

    const SIZE: Size = Size { cols: 80, rows: 24 };

    fn drain(state: &State, viewer: u64, writes: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(Told::Output { bytes: piece, .. }) = state.next(viewer, writes) {
            bytes.extend(piece);
        }
        bytes
    }

    #[test]
    fn the_writer_holds_the_agent_back_until_it_falls_silent_and_a_watcher_never() {
        let (state, now) = (State::new(SIZE, Ring::new(SHELL_RING, 0)), Instant::now());
        let watcher = state.join(None, false, now).unwrap().viewer;
        state.printed(&[1; 300_000], now);
        assert_eq!(state.held_until(now), None, "a watcher holds nobody back");
        let joined = state.join(Some(0), true, now).unwrap();
        assert_eq!((joined.begin, joined.lost, joined.end), (0, 0, 300_000));
        let writer = joined.viewer;
        assert!(state.held_until(now).is_some());
        assert!(state.held_until(now + SHELL_HELD_FOR).is_none(), "silent");
        assert_eq!(drain(&state, writer, true).len() as u64, SHELL_WINDOW);
        assert!(state.acked(writer, 200_000, now + Duration::from_secs(4)));
        assert!(state.held_until(now + Duration::from_secs(8)).is_none(), "below the window");
        state.printed(&vec![2; SHELL_RING], now);
        assert_eq!(state.next(watcher, false), Some(Told::Lost { bytes: 300_000, offset: 300_000 }));
    }

    #[test]
    fn one_types_and_the_next_takes_over() {
        let (state, now) = (State::new(SIZE, Ring::new(SHELL_RING, 7)), Instant::now());
        assert_eq!(state.join(Some(8), true, now), None, "beyond the output");
        let first = state.join(Some(7), true, now).unwrap().viewer;
        let joined = state.join(Some(3), true, now).unwrap();
        assert_eq!((joined.begin, joined.lost), (7, 4));
        let second = joined.viewer;
        assert_eq!(state.next(first, true), Some(Told::TakenOver));
        assert_eq!(state.next(second, true), None);
        state.over(Ended { reason: "exited".into(), code: Some(3), signal: None });
        assert!(matches!(state.next(second, true), Some(Told::Ended(Ended { code: Some(3), .. }))));
    }

    #[test]
    fn input_goes_to_the_agent_once_across_streams() {
        let (state, now) = (State::new(SIZE, Ring::new(SHELL_RING, 0)), Instant::now());
        let mut knows = AgentKnows { input: state.attached(0), size: SIZE, acked: 0, close: false };
        state.type_in(b"abcdef");
        assert_eq!(state.for_agent(&mut knows), Some(ForAgent::Input(b"abcdef".to_vec())));
        assert_eq!(state.for_agent(&mut knows), None);
        state.taken(2);
        // The line broke when four had arrived.
        let mut knows = AgentKnows { input: state.attached(4), size: SIZE, acked: 0, close: false };
        assert_eq!(state.for_agent(&mut knows), Some(ForAgent::Input(b"ef".to_vec())));
        state.printed(b"x", now);
        state.resize(Size { cols: 1, rows: 1 });
        state.close();
        let told: Vec<_> = std::iter::from_fn(|| state.for_agent(&mut knows)).collect();
        assert_eq!(told, [ForAgent::Close, ForAgent::Resize(Size { cols: 1, rows: 1 }), ForAgent::Ack(1)]);
    }
}
