//! The input of one exec: what arrived and waits for the program, and the writing of it. It belongs to the run, not to the
//! stream that brings it.

use std::collections::VecDeque;

use proto::{
    code::Code,
    limits::{EXEC_PIECE_MAX, EXEC_STDIN_WINDOW},
};
use tokio::{io::AsyncWriteExt, process::ChildStdin};

use super::session::Session;

/// What arrived, in order; `taken` of it is with the program.
#[derive(Debug, Default)]
pub(super) struct Input {
    waiting: VecDeque<Vec<u8>>,
    arrived: u64,
    taken: u64,
    ended: bool,
    /// Nobody reads it: the program closed it, ended, or never had one. Whatever comes is swallowed.
    closed: bool,
}

impl Input {
    pub(super) fn new(wanted: bool) -> Self {
        Self { closed: !wanted, ..Self::default() }
    }

    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn is_open(&self) -> bool {
        !self.ended && !self.closed
    }

    /// A piece whose first byte is number `at`. What is here already is left out.
    pub(super) fn push(&mut self, at: u64, piece: &[u8]) -> Result<(), Code> {
        let known = self.arrived.checked_sub(at).ok_or(Code::BAD_OFFSET)?;
        let Some(new) = piece.get(usize::try_from(known).unwrap_or(usize::MAX)..).filter(|new| !new.is_empty()) else {
            return Ok(());
        };
        if self.closed {
            self.arrived += new.len() as u64;
            self.taken = self.arrived;
            return Ok(());
        }
        if self.ended {
            return Err(Code::UNEXPECTED);
        }
        if self.arrived + new.len() as u64 > self.taken + EXEC_STDIN_WINDOW {
            return Err(Code::TOO_LARGE);
        }
        self.arrived += new.len() as u64;
        match self.waiting.back_mut() {
            // Pieces of a few bytes must not cost more than they hold.
            Some(last) if last.len() + new.len() <= EXEC_PIECE_MAX => last.extend_from_slice(new),
            Some(_) | None => self.waiting.push_back(new.to_vec()),
        }
        Ok(())
    }

    /// The end, as seen by a stream that stands at byte `at`.
    pub(super) fn end(&mut self, at: u64) -> Result<(), Code> {
        if at != self.arrived {
            return Err(Code::BAD_OFFSET);
        }
        self.ended = true;
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.taken = self.arrived;
    }

    fn next(&mut self) -> Next {
        match self.waiting.pop_front() {
            Some(piece) => Next::Piece(piece),
            None if self.ended || self.closed => Next::Over,
            None => Next::Wait,
        }
    }
}

enum Next {
    Piece(Vec<u8>),
    Over,
    Wait,
}

/// Feeds the program for as long as it reads. Returns when there is nothing more to feed.
pub(super) async fn write(session: &Session, stdin: Option<ChildStdin>) {
    let Some(mut stdin) = stdin else { return };
    let mut changes = session.changes();
    loop {
        changes.mark_unchanged();
        let mut next = Next::Wait;
        session.update_silently(|state| next = state.input.next());
        match next {
            Next::Piece(piece) if stdin.write_all(&piece).await.is_ok() => {
                session.update(|state| state.input.taken += piece.len() as u64);
            }
            // The program closed it. Whoever sends is not held up.
            Next::Piece(_) => return session.update(|state| state.input.close()),
            Next::Over => return,
            Next::Wait => {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(input: &mut Input) -> Vec<u8> {
        let mut all = Vec::new();
        while let Next::Piece(piece) = input.next() {
            input.taken += piece.len() as u64;
            all.extend(piece);
        }
        all
    }

    #[test]
    fn nothing_is_fed_twice_and_nothing_is_left_out() {
        let mut input = Input::new(true);
        input.push(0, b"abcdef").unwrap();
        input.push(2, b"cd").unwrap();
        input.push(4, b"efgh").unwrap();
        assert_eq!(input.push(9, b"x"), Err(Code::BAD_OFFSET));
        assert_eq!(drain(&mut input), b"abcdefgh");
        assert_eq!(input.end(6), Err(Code::BAD_OFFSET), "a stream that fell behind does not end it");
        input.end(8).unwrap();
        assert_eq!(input.push(8, b"x"), Err(Code::UNEXPECTED));
        input.push(0, b"abc").unwrap();
        assert!(matches!(input.next(), Next::Over));
    }

    #[test]
    fn a_program_that_does_not_read_bounds_it_and_one_that_is_gone_swallows_it() {
        let mut input = Input::new(true);
        let piece = vec![7; EXEC_PIECE_MAX];
        let mut at = 0;
        while input.push(at, &piece).is_ok() {
            at += piece.len() as u64;
        }
        assert_eq!((at, input.push(at, b"x")), (EXEC_STDIN_WINDOW, Err(Code::TOO_LARGE)));
        input.close();
        assert_eq!((input.arrived(), input.taken()), (at, at));
        for _ in 0..100 {
            input.push(at, &piece).unwrap();
            at += piece.len() as u64;
        }
        assert_eq!((input.taken(), input.is_open()), (at, false));
    }

    #[test]
    fn many_small_pieces_are_kept_as_few() {
        let mut input = Input::new(true);
        for at in 0..100_000 {
            input.push(at, b"x").unwrap();
        }
        assert!(input.waiting.len() <= 4, "{}", input.waiting.len());
    }
}
