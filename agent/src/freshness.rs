//! The agent's sense of the master's time, and with it the rule that a request runs once and soon. One per process: it
//! outlives every line. Reads no wall clock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::{
    freshness::{FreshnessGuard, MasterClock, NotFresh},
    id::RequestId,
    limits::{FRESHNESS_CAPACITY, FRESHNESS_WINDOW},
};
use tokio::time::Instant;

/// Ids that older requests of this machine used, with the master's time when they were taken.
pub type Taken = Vec<(RequestId, i64)>;

#[derive(Debug)]
pub struct Freshness {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clock: Option<MasterClock>,
    guard: FreshnessGuard,
}

impl Freshness {
    /// `taken` are the ids of an earlier run that must not run again.
    pub fn new(mut taken: Taken) -> Self {
        let window_ms = i64::try_from(FRESHNESS_WINDOW.as_millis()).unwrap_or(i64::MAX);
        let mut guard = FreshnessGuard::new(window_ms, FRESHNESS_CAPACITY);
        taken.sort_by_key(|(_, at_ms)| *at_ms);
        for (id, at_ms) in taken {
            // Only a full guard or a doubled id can refuse here, and both leave it as it should be.
            let _ = guard.take(at_ms, id, at_ms);
        }
        Self { started: Instant::now(), state: Mutex::new(State { clock: None, guard }) }
    }

    /// The master said what time it is.
    pub fn learn(&self, master_ms: i64) {
        let monotonic_ms = self.monotonic_ms();
        self.lock().clock = Some(MasterClock::learned(master_ms, monotonic_ms));
    }

    /// The master's time now; `None` before the first Welcome.
    pub fn master_ms(&self) -> Option<i64> {
        let monotonic_ms = self.monotonic_ms();
        self.lock().clock.map(|clock| clock.at(monotonic_ms))
    }

    /// Takes a request, or says why not. Returns the master's time.
    pub fn take(&self, id: RequestId, issued_at_ms: i64) -> Result<i64, NotFresh> {
        let monotonic_ms = self.monotonic_ms();
        let mut state = self.lock();
        // Streams come after Welcome, so the clock is known; without one nothing can be called fresh.
        let now_ms = state.clock.map_or(i64::MIN, |clock| clock.at(monotonic_ms));
        state.guard.take(now_ms, id, issued_at_ms)?;
        Ok(now_ms)
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_masters_time_runs_on_the_monotonic_clock() {
        let freshness = Freshness::new(Vec::new());
        assert_eq!(freshness.master_ms(), None);
        assert!(freshness.take(RequestId::random(), 0).is_err(), "nothing is fresh before Welcome");
        freshness.learn(4_000_000_000_000);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(freshness.master_ms(), Some(4_000_000_010_000));
        assert!(freshness.take(RequestId::random(), 4_000_000_010_000).is_ok());
        assert!(freshness.take(RequestId::random(), 3_999_999_979_000).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn ids_of_an_earlier_run_are_not_taken_again() {
        let (old, older) = (RequestId::random(), RequestId::random());
        let freshness = Freshness::new(vec![(old, 1_000_000), (older, 970_000)]);
        freshness.learn(1_020_000);
        assert_eq!(freshness.take(old, 1_010_000), Err(NotFresh::Replayed));
        assert_eq!(freshness.take(older, 995_000), Err(NotFresh::Replayed));
        assert_eq!(freshness.take(RequestId::random(), 1_020_000), Ok(1_020_000));
    }
}
