//! The master's steady clock: the wall clock of its start, carried on by a monotonic one. A step of the wall clock while
//! the master runs makes no request stale.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::unix_ms;

#[derive(Debug, Clone)]
pub struct SteadyClock {
    base_ms: i64,
    started: Instant,
}

impl SteadyClock {
    /// Reads the wall clock once.
    pub fn start() -> Self {
        Self { base_ms: unix_ms(), started: Instant::now() }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base_ms.saturating_add(passed)
    }

    /// The same as the times of files are told.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now_ms()).unwrap_or(0))
    }
}
