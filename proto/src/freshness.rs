//! The replay guard of a line: a request runs at most once, and only near the time it was issued (SECURITY R24, R25).
//!
//! Pure: the caller brings the master's time, which it knows from Welcome and a monotonic clock, never from a wall clock.

use std::collections::HashSet;

use crate::{code::Code, id::RequestId};

/// The master's time as an agent knows it: learned once, carried on by a monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasterClock {
    master_ms: i64,
    monotonic_ms: u64,
}

impl MasterClock {
    /// `master_ms` was the master's Unix time when the monotonic clock read `monotonic_ms`.
    pub fn learned(master_ms: i64, monotonic_ms: u64) -> Self {
        Self { master_ms, monotonic_ms }
    }

    /// The master's Unix time, milliseconds, when the monotonic clock reads `monotonic_ms`.
    pub fn at(&self, monotonic_ms: u64) -> i64 {
        let passed = monotonic_ms.saturating_sub(self.monotonic_ms);
        self.master_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFresh {
    #[error("issued {off_by_ms} ms from the master's time; {window_ms} ms are allowed")]
    Stale { off_by_ms: i64, window_ms: i64 },
    #[error("this request id was seen before")]
    Replayed,
    #[error("too many requests within the window; try again later")]
    Full,
}

impl NotFresh {
    pub fn code(self) -> Code {
        match self {
            Self::Stale { .. } => Code::STALE,
            Self::Replayed => Code::REPLAYED,
            Self::Full => Code::BUSY,
        }
    }
}

/// Remembers the ids of at least one window. Two generations, each as long as an id can stay valid, so that forgetting
/// is one swap. Survives reconnects: it belongs to the agent process, not to a line.
#[derive(Debug)]
pub struct FreshnessGuard {
    window_ms: i64,
    capacity: usize,
    newer: HashSet<RequestId>,
    older: HashSet<RequestId>,
    turned_ms: Option<i64>,
}

impl FreshnessGuard {
    /// At most `capacity` ids are held per generation, 16 bytes each and the set's overhead; when full, requests are
    /// refused rather than ids forgotten.
    pub fn new(window_ms: i64, capacity: usize) -> Self {
        Self { window_ms, capacity, newer: HashSet::new(), older: HashSet::new(), turned_ms: None }
    }

    /// Takes the request or says why not. `now_ms` is the master's time. A refused request leaves no trace.
    pub fn take(&mut self, now_ms: i64, id: RequestId, issued_at_ms: i64) -> Result<(), NotFresh> {
        let off_by_ms = now_ms.saturating_sub(issued_at_ms);
        if off_by_ms.unsigned_abs() > self.window_ms.unsigned_abs() {
            return Err(NotFresh::Stale { off_by_ms, window_ms: self.window_ms });
        }
        self.turn(now_ms);
        if self.newer.contains(&id) || self.older.contains(&id) {
            return Err(NotFresh::Replayed);
        }
        if self.newer.len() >= self.capacity {
            return Err(NotFresh::Full);
        }
        self.newer.insert(id);
        Ok(())
    }

    /// A request issued a window ahead stays acceptable for two windows, so a generation lasts that long. Time that
    /// runs backwards forgets nothing.
    fn turn(&mut self, now_ms: i64) {
        let turned_ms = *self.turned_ms.get_or_insert(now_ms);
        let passed = now_ms.saturating_sub(turned_ms);
        if passed <= self.window_ms.saturating_mul(2) {
            return;
        }
        self.older = std::mem::take(&mut self.newer);
        if passed > self.window_ms.saturating_mul(4) {
            self.older.clear();
        }
        self.turned_ms = Some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: i64 = 30_000;

    #[test]
    fn stale_replayed_and_full_are_told_apart() {
        let mut guard = FreshnessGuard::new(WINDOW, 2);
        let (a, b, c) = (RequestId::random(), RequestId::random(), RequestId::random());
        assert_eq!(guard.take(100_000, a, 130_000), Ok(()));
        assert_eq!(guard.take(100_000, a, 130_000), Err(NotFresh::Replayed));
        assert_eq!(guard.take(100_000, b, 69_999), Err(NotFresh::Stale { off_by_ms: 30_001, window_ms: WINDOW }));
        assert_eq!(guard.take(100_000, b, 70_000), Ok(()));
        assert_eq!(guard.take(100_000, c, 100_000), Err(NotFresh::Full));
    }

    #[test]
    fn an_id_is_remembered_for_as_long_as_it_could_be_replayed() {
        let mut guard = FreshnessGuard::new(WINDOW, 1_000_000);
        let id = RequestId::random();
        guard.take(0, RequestId::random(), 0).unwrap();
        guard.take(59_000, id, 89_000).unwrap();
        for now in (59_000..=119_000).step_by(500) {
            guard.take(now, RequestId::random(), now).unwrap();
            assert_eq!(guard.take(now, id, 89_000), Err(NotFresh::Replayed), "at {now}");
        }
        assert!(matches!(guard.take(119_001, id, 89_000), Err(NotFresh::Stale { .. })));
    }

    #[test]
    fn the_master_clock_needs_no_wall_clock() {
        let clock = MasterClock::learned(1_000_000, 500);
        assert_eq!(clock.at(1_500), 1_001_000);
        assert_eq!(clock.at(0), 1_000_000);
        assert_eq!(clock.at(u64::MAX), i64::MAX);
    }
}
