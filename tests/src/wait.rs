//! Waiting for a state with a deadline, never for a time.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` gives something; panics naming `what` after `within`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        // Between two looks; the deadline above bounds them.
        tokio::time::sleep(LOOK).await;
    }
}

/// The same for a condition that needs no waiting itself.
pub async fn until(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    eventually(within, what, || std::future::ready(holds().then_some(()))).await;
}
