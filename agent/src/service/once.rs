//! A request with effects runs at most once: it is in the journal before it starts and marked as ended after. Wraps the
//! journal for the runtime; what runs is not known here.

use std::sync::Arc;

use proto::id::RequestId;

use crate::{
    journal::{Journal, JournalError},
    platform::ProcessMark,
};

/// Starts requests under the journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Once {
    journal: Arc<Journal>,
}

/// A request that began. Dropping it says that it ended, and that its processes are gone.
#[derive(Debug)]
pub struct Begun {
    journal: Arc<Journal>,
    id: RequestId,
}

impl Once {
    pub fn new(journal: Journal) -> Self {
        Self { journal: Arc::new(journal) }
    }

    /// On disk when this returns. After an error the request must not start.
    pub async fn begin(&self, id: RequestId, taken_ms: i64) -> Result<Begun, JournalError> {
        let journal = self.journal.clone();
        on_disk(move || journal.begin(id, taken_ms)).await?;
        Ok(Begun { journal: self.journal.clone(), id })
    }

    /// What was left over of it is gone.
    pub fn ended(&self, id: RequestId) {
        tell_end(&self.journal, id);
    }
}

impl Begun {
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Writes down the process group that a kill of this agent would leave behind. Between the start and this, the
    /// request id in the group's environment tells as much.
    pub async fn started(&self, leader: u32) -> Result<(), JournalError> {
        let (journal, id) = (self.journal.clone(), self.id);
        on_disk(move || match ProcessMark::of_leader(leader) {
            Some(mark) => journal.started(id, mark),
            None => Ok(()),
        })
        .await
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        tell_end(&self.journal, self.id);
    }
}

/// Never waits: others may hold the journal while the disk takes what they began.
fn tell_end(journal: &Arc<Journal>, id: RequestId) {
    let journal = journal.clone();
    let tell = move || {
        if let Err(error) = journal.ended(id) {
            tracing::warn!(%id, %error, "the journal did not take an end; the next start will look for leftovers in vain");
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => _ = runtime.spawn_blocking(tell),
        Err(_) => tell(),
    }
}

async fn on_disk(write: impl FnOnce() -> Result<(), JournalError> + Send + 'static) -> Result<(), JournalError> {
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|panic| Err(JournalError::Write(std::io::Error::other(panic))))
}
