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
    code::Code,
    net::stream::FrameStream,
    transfer::{ReadSpec, WriteSpec},
};

use super::{
    answer,
    files::{FileError, Roots},
};

/// What transfers stand on. Clones share it.
#[derive(Debug, Clone)]
pub struct Transfers {
    roots: Arc<Roots>,
}

impl Transfers {
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { roots }
    }

    /// Sends the bytes of one file and says how that ended. Dropping the future ends it.
    pub async fn read(&self, spec: ReadSpec, stream: FrameStream) -> Code {
        read::serve(self.roots.clone(), spec, stream).await
    }

    /// Takes the bytes of one file and says how that ended. Dropping the future keeps what arrived for another attempt.
    pub async fn write(&self, spec: WriteSpec, stream: FrameStream) -> Code {
        write::serve(self.roots.clone(), spec, stream).await
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

async fn refuse(stream: FrameStream, error: &FileError) -> Code {
    answer::refuse(stream, error.code, &error.message).await;
    error.code
}
