//! The wall clock, in the one unit the master stores and sends: Unix milliseconds. Nothing else reads it for storage.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds now. A clock set before 1970 reads as 0.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds of a duration, as stored.
pub fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
