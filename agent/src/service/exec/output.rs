//! The output of one exec as it is kept: bytes of both kinds in one sequence, what is unread and a little of what was read.
//! Pure: knows neither pipes nor streams.

use std::collections::VecDeque;

/// Unread output at which the pipes are left unread, bytes.
pub(super) const UNREAD_MAX: u64 = 2 << 20;
/// How much further a program that has exited may fill it: the rest in its pipes, so that its end is known at once.
const LAST_WORDS: u64 = 256 << 10;
/// Read output that is kept for a caller who must go back, bytes.
pub(super) const HISTORY_MAX: u64 = 1 << 20;
/// What one change between the kinds costs in memory, bytes: a program may change with each byte.
const RUN_COST: u64 = 16;

/// Which pipe bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stdout,
    Stderr,
}

/// Where bytes of one kind begin; they go up to the next run.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: u64,
    kind: Kind,
}

/// What is kept of the sequence: from `kept_from` to `end`, read up to `acked`.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: VecDeque<u8>,
    runs: VecDeque<Run>,
    kept_from: u64,
    acked: u64,
}

impl Output {
    /// The first byte that is still kept.
    pub(super) fn kept_from(&self) -> u64 {
        self.kept_from
    }

    /// Bytes so far.
    pub(super) fn end(&self) -> u64 {
        self.kept_from + self.bytes.len() as u64
    }

    /// What keeping it costs, bytes.
    pub(super) fn cost(&self) -> u64 {
        self.bytes.len() as u64 + self.runs.len() as u64 * RUN_COST
    }

    /// What nobody has read yet, and what cannot be given up to make room for more.
    pub(super) fn unread(&self) -> u64 {
        self.end() - self.acked + self.runs.len() as u64 * RUN_COST
    }

    /// Whether more may be read from the pipes.
    pub(super) fn has_room(&self, exited: bool) -> bool {
        self.unread() < UNREAD_MAX + if exited { LAST_WORDS } else { 0 }
    }

    pub(super) fn push(&mut self, kind: Kind, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|run| run.kind != kind) {
            self.runs.push_back(Run { from: self.end(), kind });
        }
        self.bytes.extend(bytes);
    }

    /// Everything before `offset` was read. Never goes back.
    pub(super) fn ack(&mut self, offset: u64) {
        self.acked = self.acked.max(offset.min(self.end()));
    }

    /// Forgets what was read, but for the last `history` bytes.
    pub(super) fn trim(&mut self, history: u64) {
        let keep_from = self.acked.saturating_sub(history);
        let Some(surplus) = keep_from.checked_sub(self.kept_from).filter(|surplus| *surplus > 0) else { return };
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..surplus);
        self.kept_from += surplus as u64;
        while self.runs.get(1).is_some_and(|next| next.from <= self.kept_from) {
            self.runs.pop_front();
        }
        if self.bytes.capacity() > 4 * self.bytes.len() + (64 << 10) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Up to `max` bytes of one kind from `offset` on; `None` if there are none.
    pub(super) fn read(&self, offset: u64, max: usize) -> Option<(Kind, Vec<u8>)> {
        if offset < self.kept_from || offset >= self.end() {
            return None;
        }
        let after = self.runs.partition_point(|run| run.from <= offset);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let run_end = self.runs.get(after).map_or(self.end(), |next| next.from);
        let begin = usize::try_from(offset - self.kept_from).ok()?;
        let length = usize::try_from(run_end - offset).unwrap_or(usize::MAX).min(max);
        let (front, back) = self.bytes.as_slices();
        let mut piece = Vec::with_capacity(length);
        piece.extend(front.iter().skip(begin).take(length));
        let rest = length - piece.len();
        piece.extend(back.iter().skip(begin.saturating_sub(front.len())).take(rest));
        Some((run.kind, piece))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(output: &Output, mut offset: u64, max: usize) -> Vec<(bool, u8)> {
        let mut all = Vec::new();
        while let Some((kind, piece)) = output.read(offset, max) {
            assert!(!piece.is_empty() && piece.len() <= max);
            offset += piece.len() as u64;
            all.extend(piece.into_iter().map(|byte| (kind == Kind::Stdout, byte)));
        }
        all
    }

    proptest! {
        /// Whatever is written, acknowledged and trimmed: what is kept reads as it was written, from any offset.
        #[test]
        fn it_reads_as_it_was_written(
            steps in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40), 0u64..60, 0u64..50), 1..60),
            max in 1usize..50,
        ) {
            let (mut output, mut written) = (Output::default(), Vec::new());
            for (stdout, bytes, ahead, history) in steps {
                output.push(if stdout { Kind::Stdout } else { Kind::Stderr }, &bytes);
                written.extend(bytes.into_iter().map(|byte| (stdout, byte)));
                let acked = output.acked;
                output.ack(acked + ahead);
                output.trim(history);
                prop_assert_eq!(output.end(), written.len() as u64);
                prop_assert!(output.kept_from() <= output.acked && output.acked <= output.end());
                prop_assert!(output.acked - output.kept_from() <= history.max(output.acked));
                for offset in output.kept_from()..=output.end() {
                    let from = usize::try_from(offset).unwrap();
                    prop_assert_eq!(read_all(&output, offset, max), &written[from..]);
                }
                prop_assert!(output.kept_from() == 0 || output.read(output.kept_from() - 1, max).is_none());
            }
        }
    }

    #[test]
    fn what_is_unread_fills_it_and_what_was_read_does_not() {
        let mut output = Output::default();
        while output.has_room(false) {
            output.push(Kind::Stdout, &[0; 30_000]);
        }
        assert!((UNREAD_MAX..UNREAD_MAX + 30_000).contains(&output.end()));
        assert!(output.has_room(true), "the last words of a program that ended");
        output.trim(0);
        assert!(!output.has_room(false) && output.kept_from() == 0, "nothing unread is given up");
        output.ack(output.end());
        output.trim(HISTORY_MAX);
        assert!(output.has_room(false));
        assert_eq!(output.end() - output.kept_from(), HISTORY_MAX);
    }

    #[test]
    fn changing_with_each_byte_costs_room() {
        let mut output = Output::default();
        while output.has_room(false) {
            output.push(Kind::Stdout, b"o");
            output.push(Kind::Stderr, b"e");
        }
        assert!(output.end() < UNREAD_MAX / 10, "{}", output.end());
    }
}
