//! The output of one session and who has it: what may be read from the program, what may be sent, what was lost. Pure:
//! events and times in, decisions out.

use std::time::Duration;

use proto::{
    limits::{EXEC_PIECE_MAX, SHELL_HELD_FOR, SHELL_RING, SHELL_WINDOW},
    ring::Ring,
};
use tokio::time::Instant;

/// What a reader is told next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Lost(u64),
    Bytes(Vec<u8>),
}

/// The reader breaks the rules, or asks for what is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the output at this offset is not there")]
pub(super) struct BadOffset;

#[derive(Debug)]
pub(super) struct Output {
    ring: Ring,
    /// Read by the latest reader up to here.
    acked: u64,
    /// Sent to the latest reader up to here.
    sent: u64,
    /// Since when something waits to be acknowledged; moved on by each acknowledgement.
    waiting: Option<Instant>,
    held_for: Duration,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { ring: Ring::new(SHELL_RING, 0), acked: 0, sent: 0, waiting: None, held_for: SHELL_HELD_FOR }
    }

    /// Whether the program is left waiting: a reader that was there lately has a window's worth to read first.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.ring.end() - self.acked >= SHELL_WINDOW && self.held_until().is_some_and(|until| now < until)
    }

    /// When a silent reader stops holding the program back.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.waiting.map(|since| since + self.held_for)
    }

    pub(super) fn push(&mut self, piece: &[u8], now: Instant) {
        self.ring.push(piece);
        self.waiting.get_or_insert(now);
    }

    /// What comes next for the reader; `None` until there is more or its window opens.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let lost = self.ring.start().saturating_sub(self.sent);
        if lost > 0 {
            self.sent += lost;
            return Some(Piece::Lost(lost));
        }
        let window = (self.acked + SHELL_WINDOW).saturating_sub(self.sent);
        let max = usize::try_from(window).unwrap_or(usize::MAX).min(EXEC_PIECE_MAX);
        let bytes = self.ring.read(self.sent, max);
        self.sent += bytes.len() as u64;
        (!bytes.is_empty()).then_some(Piece::Bytes(bytes))
    }

    /// The reader has everything up to `offset`.
    pub(super) fn ack(&mut self, offset: u64, now: Instant) -> Result<(), BadOffset> {
        if offset > self.sent {
            return Err(BadOffset);
        }
        if offset > self.acked {
            self.acked = offset;
            self.waiting = (self.ring.end() > offset).then_some(now);
        }
        Ok(())
    }

    /// A reader that has everything up to `offset`. Returns where its output begins, and how much before that is lost.
    pub(super) fn attach(&mut self, offset: u64, now: Instant) -> Result<(u64, u64), BadOffset> {
        if offset > self.ring.end() {
            return Err(BadOffset);
        }
        let begin = offset.max(self.ring.start());
        (self.acked, self.sent) = (begin, begin);
        self.waiting = (self.ring.end() > begin).then_some(now);
        Ok((begin, begin - offset))
    }

    /// Whether the reader was sent everything there is.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.ring.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = SHELL_RING;

    fn take(output: &mut Output) -> (u64, u64) {
        let (mut bytes, mut lost) = (0, 0);
        while let Some(piece) = output.next() {
            match piece {
                Piece::Lost(count) => lost += count,
                Piece::Bytes(piece) => bytes += piece.len() as u64,
            }
        }
        (bytes, lost)
    }

    #[test]
    fn a_reader_holds_the_program_back_until_it_fell_silent() {
        let start = Instant::now();
        let mut output = Output::new();
        output.push(&vec![0; 300_000], start);
        assert!(output.is_held(start));
        assert_eq!(take(&mut output), (SHELL_WINDOW, 0), "no more than the window is under way");
        let later = start + Duration::from_secs(4);
        output.ack(100_000, later).unwrap();
        assert!(!output.is_held(later));
        output.push(&vec![0; 100_000], later);
        assert!(output.is_held(later + Duration::from_secs(4)), "counted from its last word");
        assert!(!output.is_held(later + Duration::from_secs(5)));
    }

    #[test]
    fn a_long_pause_is_not_silence() {
        let start = Instant::now();
        let mut output = Output::new();
        output.push(b"$ ", start);
        take(&mut output);
        output.ack(2, start).unwrap();
        let later = start + Duration::from_secs(3600);
        output.push(&vec![0; 300_000], later);
        assert!(output.is_held(later));
    }

    #[test]
    fn a_silent_reader_is_told_its_loss_first() {
        let start = Instant::now();
        let mut output = Output::new();
        output.push(&vec![1; 1000], start);
        assert_eq!(take(&mut output), (1000, 0));
        output.push(&vec![2; MIB + 5000], start);
        assert_eq!(output.next(), Some(Piece::Lost(5000)));
        output.ack(output.sent, start).unwrap();
        assert_eq!(take(&mut output).1, 0);
    }

    #[test]
    fn offsets_beyond_the_output_are_refused() {
        let start = Instant::now();
        let mut output = Output::new();
        output.push(b"abc", start);
        assert_eq!(output.ack(1, start), Err(BadOffset), "nothing was sent yet");
        assert_eq!(output.attach(4, start), Err(BadOffset));
        assert_eq!(output.attach(3, start), Ok((3, 0)));
        assert_eq!(output.attach(1, start), Ok((1, 0)));
        assert_eq!(output.next(), Some(Piece::Bytes(b"bc".to_vec())));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Take(usize),
        Ack,
        Reattach,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..400_000_usize).prop_map(Step::Push),
            (1..20_usize).prop_map(Step::Take),
            Just(Step::Ack),
            Just(Step::Reattach),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However it goes, a reader gets each byte once and in order, or is told that it is lost.
        #[test]
        fn nothing_is_doubled_and_every_loss_is_told(steps in proptest::collection::vec(step(), 1..60)) {
            let now = Instant::now();
            let mut output = Output::new();
            let (mut produced, mut have, mut under_way) = (0_u64, 0_u64, 0_u64);
            let byte = |offset: u64| (offset % 251) as u8;
            for step in steps {
                match step {
                    Step::Push(length) => {
                        let piece: Vec<u8> = (produced..produced + length as u64).map(byte).collect();
                        output.push(&piece, now);
                        produced += length as u64;
                    }
                    Step::Take(pieces) => for _ in 0..pieces {
                        match output.next() {
                            None => break,
                            Some(Piece::Lost(count)) => have += count,
                            Some(Piece::Bytes(bytes)) => {
                                under_way += bytes.len() as u64;
                                for got in bytes {
                                    prop_assert_eq!(got, byte(have));
                                    have += 1;
                                }
                            }
                        }
                        prop_assert!(have <= produced);
                        prop_assert!(under_way <= SHELL_WINDOW);
                    },
                    Step::Ack => {
                        output.ack(have, now).unwrap();
                        under_way = 0;
                    }
                    Step::Reattach => {
                        let (begin, lost) = output.attach(have, now).unwrap();
                        prop_assert_eq!(begin, have + lost);
                        (have, under_way) = (begin, 0);
                    }
                }
            }
        }
    }
}
