//! The clock of one tunnel: the wall clock of its creation, carried on by a monotonic one. A step of the wall clock
//! neither ends a tunnel nor makes it live for ever.

use tokio::time::Instant;

use crate::clock::{millis, unix_ms};

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base_ms: i64,
    base: Instant,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub(super) fn start() -> Self {
        Self { base_ms: unix_ms(), base: Instant::now() }
    }

    /// When it was started, Unix milliseconds.
    pub(super) fn start_ms(&self) -> i64 {
        self.base_ms
    }

    pub(super) fn elapsed(&self) -> std::time::Duration {
        self.base.elapsed()
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.ms(Instant::now())
    }

    /// Also for instants before the start.
    pub(super) fn ms(&self, instant: Instant) -> i64 {
        match instant.checked_duration_since(self.base) {
            Some(after) => self.base_ms + millis(after),
            None => self.base_ms - millis(self.base.duration_since(instant)),
        }
    }

    /// The instant of a time; one that is past, or too far away for the clock, is clamped.
    pub(super) fn instant(&self, ms: i64) -> Instant {
        let after = u64::try_from(ms.saturating_sub(self.base_ms)).unwrap_or(0);
        self.base + std::time::Duration::from_millis(after.min(FAR_MS))
    }
}

/// A year: nothing here waits longer without being woken.
const FAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
