//! The master's steady clock: the wall clock of its start, carried on by a monotonic one. A step of the wall clock while
//! the master runs makes no request stale.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone)]
pub struct SteadyClock {
    base_ms: i64,
    started: Instant,
}

impl SteadyClock {
    /// Reads the wall clock once.
    pub fn start() -> Self {
        Self { base_ms: wall_ms(), started: Instant::now() }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base_ms.saturating_add(passed)
    }
}

/// Unix milliseconds by the wall clock; 0 for a clock before 1970.
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
