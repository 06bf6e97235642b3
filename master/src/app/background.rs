//! Work nobody waits for: events on their way to disk, and the forgetting of what is old.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    events::{NextError, Subscription},
    fleet::SteadyClock,
    session::shell::RecordingDir,
    store::{Store, retention::Retention},
};

/// Events written per transaction at most.
const BATCH: usize = 500;
/// After a failed write; the ring holds what comes meanwhile.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often old rows are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Writes every event to the store, in batches, until `stop`; then what is left.
pub(super) async fn pump_events(store: Store, mut reader: Subscription, stop: CancellationToken) {
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => {
                let rest = tokio::time::timeout(Duration::from_millis(10), reader.next_batch(usize::MAX)).await;
                if let Ok(Ok(batch)) = rest && let Err(error) = store.events().append(&batch).await {
                    tracing::warn!(%error, "the last events could not be written");
                }
                return;
            }
            batch = reader.next_batch(BATCH) => batch,
        };
        match batch {
            Ok(batch) => {
                while let Err(error) = store.events().append(&batch).await {
                    tracing::warn!(%error, "events could not be written; trying again");
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(WRITE_AGAIN) => {}
                    }
                }
            }
            Err(NextError::Lagged(lagged)) => {
                tracing::warn!(oldest = lagged.oldest, "events were lost: the database was away for too long");
                reader.skip_to(lagged);
            }
            Err(NextError::Closed) => return,
        }
    }
}

/// Removes what is older than the operator wants to keep, by the steady clock: a wall clock that jumps by years while the
/// master runs must not take all of it away.
pub(super) async fn prune(store: Store, keep: config::Retention, clock: SteadyClock, stop: CancellationToken) {
    let retention = Retention::from(&keep);
    let mut every = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        match store.prune(&retention, clock.now_ms()).await {
            Ok(pruned) => tracing::debug!(?pruned, "old rows removed"),
            Err(error) => tracing::warn!(%error, "old rows could not be removed"),
        }
    }
}

/// Removes recordings that are too old, by the steady clock, or too many.
pub(super) async fn prune_recordings(
    (dir, keep): (RecordingDir, config::Recording),
    clock: SteadyClock,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(PRUNE_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let (dir, keep) = (dir.clone(), keep.clone());
        let before = clock.now() - keep.keep;
        let pruned = tokio::task::spawn_blocking(move || dir.prune(before, keep.max_total));
        match pruned.await {
            Ok(Ok(removed)) => tracing::debug!(removed, "old recordings removed"),
            Ok(Err(error)) => tracing::warn!(%error, "old recordings could not be removed"),
            Err(error) => tracing::warn!(%error, "old recordings could not be removed"),
        }
    }
}
