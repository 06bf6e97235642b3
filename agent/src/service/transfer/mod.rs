//! Bytes of files in and out. Paths are found and judged by `files::roots`; what is written appears beside its target and
//! takes its place in one step (SECURITY R47, R48). Blocking work is done on blocking threads, a stream's piece at a time.

mod part;
mod read;
mod source;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::{
    net::stream::FrameStream,
    transfer::{ReadSpec, WriteSpec},
};

use super::{
    answer,
    files::{FileError, Roots},
};
use crate::policy::Policy;

/// What transfers stand on. Clones share it.
#[derive(Debug, Clone)]
pub struct Transfers {
    roots: Arc<Roots>,
}

impl Transfers {
    pub fn new(policy: &Policy) -> Self {
        let rules = policy.files().cloned().unwrap_or_default();
        Self { roots: Arc::new(Roots::new(&rules)) }
    }

    /// Sends the bytes of one file. Dropping the future ends it.
    pub async fn read(&self, spec: ReadSpec, stream: FrameStream) {
        read::serve(self.roots.clone(), spec, stream).await;
    }

    /// Takes the bytes of one file. Dropping the future keeps what arrived for another attempt.
    pub async fn write(&self, spec: WriteSpec, stream: FrameStream) {
        write::serve(self.roots.clone(), spec, stream).await;
    }
}

/// Runs blocking work; a panic in it goes on here, where panics of handlers are counted.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

async fn refuse(stream: FrameStream, error: &FileError) {
    answer::refuse(stream, error.code, &error.message).await;
}
