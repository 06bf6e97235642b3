//! What is being started: who asks for it before it is there waits for it. Knows nothing of what is started.

use std::{collections::HashSet, sync::Arc};

use proto::id::RequestId;
use tokio::sync::watch;

/// The requests that are being started. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Starting {
    ids: Arc<watch::Sender<HashSet<RequestId>>>,
}

/// One request being started. Dropping it says that the start is over, whatever came of it.
#[derive(Debug)]
pub(super) struct Start {
    starting: Starting,
    id: RequestId,
}

impl Default for Starting {
    fn default() -> Self {
        Self { ids: Arc::new(watch::Sender::new(HashSet::new())) }
    }
}

impl Starting {
    pub(super) fn begin(&self, id: RequestId) -> Start {
        self.ids.send_if_modified(|ids| ids.insert(id));
        Start { starting: self.clone(), id }
    }

    /// Resolves when nothing is being started.
    pub(super) async fn all_settled(&self) {
        let _ = self.ids.subscribe().wait_for(HashSet::is_empty).await;
    }

    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.ids.borrow().is_empty()
    }

    /// Resolves when this request is not being started, or not any more.
    pub(super) async fn settled(&self, id: RequestId) {
        // The sender lives as long as `self`.
        let _ = self.ids.subscribe().wait_for(|ids| !ids.contains(&id)).await;
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.starting.ids.send_if_modified(|ids| ids.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_early_waits() {
        let (starting, id) = (Starting::default(), RequestId::random());
        starting.settled(id).await;
        let start = starting.begin(id);
        let early = tokio::time::timeout(Duration::from_secs(1), starting.settled(id)).await;
        assert!(early.is_err(), "it is not there yet");
        drop(start);
        starting.settled(id).await;
    }
}
