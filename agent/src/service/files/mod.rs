//! Files beneath the folders that the owner's policy opens. Every path is taken apart in `roots`, every name is then used
//! beneath an open folder (`place`), and every failure gets its code in `error`. Operations run on blocking threads; one
//! that nobody waits for any more ends at its next step.

mod archive;
mod change;
mod copy;
pub mod error;
mod look;
mod out;
pub mod place;
pub mod roots;
mod sealed;
mod search;
mod tree;
mod unpack;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::{
    code::Code,
    file::{FileDone, FileRequest, FromFile},
    id::RequestId,
    net::stream::FrameStream,
};
use tokio::sync::Semaphore;

use self::out::Out;
pub use self::{
    error::FileError,
    place::{Place, Temp},
    roots::{Access, Links, Roots},
    sealed::Sealed,
};
use super::{answer, once::Once};
use crate::policy::Policy;

/// Operations at work at once, of those that may take long and of the others; further ones wait for a thread.
const AT_ONCE: usize = 8;
/// Frames ahead of the stream.
const AHEAD: usize = 4;

/// Does operations on files. Clones share it.
#[derive(Debug, Clone)]
pub struct Files {
    roots: Arc<Roots>,
    once: Once,
    quick: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Files {
    /// `sealed` is opened to nobody, whatever the policy says.
    pub fn new(policy: &Policy, sealed: Sealed, once: Once) -> Self {
        let rules = policy.files().cloned().unwrap_or_default();
        let permits = || Arc::new(Semaphore::new(AT_ONCE));
        Self { roots: Arc::new(Roots::new(&rules).sealing(sealed)), once, quick: permits(), long: permits() }
    }

    /// The folders that the policy opens.
    pub fn roots(&self) -> Arc<Roots> {
        self.roots.clone()
    }

    /// Serves one operation and says how it ended. Dropping the future ends it at its next step; what it did until then
    /// stays.
    pub async fn serve(&self, id: RequestId, taken_ms: i64, request: FileRequest, mut stream: FrameStream) -> Code {
        let begun = if request.changes() {
            match self.once.begin(id, taken_ms).await {
                Ok(begun) => Some(begun),
                Err(error) => {
                    tracing::error!(%id, error = &error as &dyn std::error::Error, "files were not touched");
                    let message = "the agent's journal cannot be written, so nothing was done; is its disk full?";
                    answer::refuse(stream, Code::INTERNAL, message).await;
                    return Code::INTERNAL;
                }
            }
        } else {
            None
        };
        if answer::open(&mut stream, None).await.is_err() {
            return Code::ABANDONED;
        }
        let stopped = stream.send.stopped();
        let work = async {
            let permits = if takes_long(&request) { &self.long } else { &self.quick };
            let Ok(permit) = permits.clone().acquire_owned().await else { return Code::INTERNAL };
            let (out, mut frames) = Out::new(AHEAD);
            let roots = self.roots.clone();
            let work = tokio::task::spawn_blocking(move || {
                let result = run(&roots, &request, &out);
                // Held until the thread is through, also where nobody waits for it.
                drop((permit, begun));
                let code = result.as_ref().err().map_or(Code::DONE, |error| error.code);
                out.last(result);
                code
            });
            while let Some(frame) = frames.recv().await {
                if stream.send.write_frame(&frame).await.is_err() {
                    return Code::ABANDONED;
                }
            }
            let Ok(code) = work.await else { return Code::INTERNAL };
            stream.send.finish();
            stream.recv.source_mut().stop(Code::DONE);
            code
        };
        tokio::select! {
            biased;
            _ = stopped => Code::ABANDONED,
            code = work => code,
        }
    }
}

/// Whether it may read whole files or folders. Who lists a folder does not wait behind those who search the disk.
fn takes_long(request: &FileRequest) -> bool {
    match request {
        FileRequest::Walk { .. }
        | FileRequest::Checksum { .. }
        | FileRequest::DiskUse { .. }
        | FileRequest::Search { .. }
        | FileRequest::Grep { .. }
        | FileRequest::Copy { .. }
        | FileRequest::Pack { .. }
        | FileRequest::Unpack { .. } => true,
        FileRequest::Remove { recursive, .. } => *recursive,
        FileRequest::Stat { .. }
        | FileRequest::List { .. }
        | FileRequest::Type { .. }
        | FileRequest::ReadLink { .. }
        | FileRequest::Mkdir { .. }
        | FileRequest::Rename { .. }
        | FileRequest::Chmod { .. }
        | FileRequest::Chown { .. }
        | FileRequest::Symlink { .. }
        | FileRequest::Touch { .. } => false,
    }
}

/// Does one operation. Blocks on the file system.
fn run(roots: &Roots, request: &FileRequest, out: &Out) -> Result<FileDone, FileError> {
    match request {
        FileRequest::Stat { path, follow } => look::stat(roots, path, *follow, out),
        FileRequest::List { path, after, limit } => look::list(roots, path, after, *limit, out),
        FileRequest::Walk { path } => look::walk(roots, path, out),
        FileRequest::Type { path } => look::kind(roots, path, out),
        FileRequest::ReadLink { path } => look::link(roots, path, out),
        FileRequest::Checksum { path, algorithm } => look::checksum(roots, path, *algorithm, out),
        FileRequest::DiskUse { path } => look::disk_use(roots, path, out),
        FileRequest::Search { path, pattern, limit } => search::names(roots, path, pattern, *limit, out),
        FileRequest::Grep { path, pattern, ignore_case, limit } => {
            search::lines(roots, path, pattern, *ignore_case, *limit, out)
        }
        FileRequest::Mkdir { path, parents, mode } => change::mkdir(roots, path, *parents, *mode),
        FileRequest::Remove { path, recursive } => change::remove(roots, path, *recursive, out),
        FileRequest::Rename { from, to, replace } => change::rename(roots, from, to, *replace),
        FileRequest::Chmod { path, mode } => change::chmod(roots, path, *mode),
        FileRequest::Chown { path, user, group, follow } => {
            change::chown(roots, path, user.as_deref(), group.as_deref(), *follow)
        }
        FileRequest::Symlink { path, target } => change::symlink(roots, path, target),
        FileRequest::Touch { path, modified_ns } => change::touch(roots, path, *modified_ns),
        FileRequest::Copy { from, to, recursive, replace } => copy::copy(roots, from, to, *recursive, *replace, out),
        FileRequest::Pack { from, to, format, replace } => archive::pack(roots, from, to, *format, *replace, out),
        FileRequest::Unpack { from, to, format, replace } => unpack::unpack(roots, from, to, *format, *replace, out),
    }
}

/// The last word of an operation.
fn last_word(result: Result<FileDone, FileError>) -> FromFile {
    match result {
        Ok(done) => FromFile::Done(done),
        Err(error) => FromFile::Failed { code: error.code, message: answer::cut(&error.message) },
    }
}
