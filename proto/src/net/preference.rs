//! What a stream is for, and with it how it stands beside the others of its line (TRANSPORT §4): whose bytes go first, and
//! who may use the last part of the send window, which bulk must leave free. Nothing here knows what the bytes are.

use std::time::{Duration, Instant};

use super::quic::SEND_RESERVE;
use crate::open::Operation;

/// An interactive stream that sends more than this in a second is bulk for as long as it does, bytes.
const CHATTY: u64 = 256 * 1024;
const SECOND: Duration = Duration::from_secs(1);

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The line's own messages.
    Control,
    /// Somebody waits for each byte: shells, execs, commands.
    Interactive,
    Tunnel,
    Files,
}

impl Class {
    /// What a work stream is for.
    pub fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Forward(_) => Self::Tunnel,
            Operation::Exec(_) | Operation::ExecAttach(_) | Operation::Command(_) => Self::Interactive,
            Operation::Shell(_) | Operation::ShellAttach(_) => Self::Interactive,
            Operation::File(_) | Operation::FileRead(_) | Operation::FileWrite(_) => Self::Files,
        }
    }

    /// quinn's priority: the higher goes first.
    pub fn priority(self) -> i32 {
        match self {
            Self::Control => 100,
            Self::Interactive => 50,
            Self::Tunnel => 0,
            Self::Files => -10,
        }
    }
}

/// How one stream is preferred right now. Interactive ones that chatter are taken for tunnels until they calm down.
#[derive(Debug)]
pub(super) struct Preference {
    line: quinn::Connection,
    window: u64,
    /// `None` for streams that may say as much as they like.
    chatter: Option<Chatter>,
}

impl Preference {
    /// `window` is what bulk may have written and not yet delivered on the line, bytes.
    pub(super) fn new(class: Class, line: quinn::Connection, window: u64) -> Self {
        let chatter = (class == Class::Interactive).then(|| Chatter::new(Instant::now()));
        Self { line, window, chatter }
    }

    /// Counts what was sent; a new priority where that changes it.
    pub(super) fn sent(&mut self, bytes: usize) -> Option<i32> {
        let chatty = self.chatter.as_mut()?.sent(bytes, Instant::now())?;
        let class = if chatty { Class::Tunnel } else { Class::Interactive };
        Some(class.priority())
    }

    /// Runs one write with the reserve at its disposal. Bulk that waits for room is woken by deliveries, not by this: the
    /// window is back before anybody else of this thread looks, and another thread's glimpse costs a little of the
    /// reserve once.
    pub(super) fn with_reserve<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.chatter.as_ref().is_some_and(|chatter| chatter.chatty) {
            return write();
        }
        self.line.set_send_window(self.window + SEND_RESERVE);
        let result = write();
        self.line.set_send_window(self.window);
        result
    }
}

/// How much a stream said in the running second.
#[derive(Debug)]
struct Chatter {
    second: Instant,
    bytes: u64,
    chatty: bool,
}

impl Chatter {
    fn new(now: Instant) -> Self {
        Self { second: now, bytes: 0, chatty: false }
    }

    /// Whether it is chatty now, where that changed. Calm takes a whole second below the bound.
    fn sent(&mut self, bytes: usize, now: Instant) -> Option<bool> {
        let (was, age) = (self.chatty, now.duration_since(self.second));
        if age >= SECOND {
            self.chatty &= self.bytes > CHATTY && age < 2 * SECOND;
            (self.second, self.bytes) = (now, 0);
        }
        self.bytes += bytes as u64;
        self.chatty |= self.bytes > CHATTY;
        (was != self.chatty).then_some(self.chatty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_demoted_and_a_calm_second_forgives_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut chatter = Chatter::new(start);
        assert_eq!(chatter.sent(200_000, at(10)), None, "a screenful is no flood");
        assert_eq!(chatter.sent(100_000, at(20)), Some(true));
        assert_eq!(chatter.sent(1, at(30)), None);
        assert_eq!(chatter.sent(1, at(1_100)), None, "the second before was full");
        assert_eq!(chatter.sent(1, at(2_200)), Some(false), "a calm second");
        assert_eq!(chatter.sent(300_000, at(2_300)), Some(true));
        assert_eq!(chatter.sent(1, at(9_000)), Some(false), "silence is calm");
    }
}
