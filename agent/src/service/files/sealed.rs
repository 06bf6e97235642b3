//! The folder that no policy opens: the agent's own, with its key, its log and its stop switch. It is known by what it is,
//! not by a path, so that no link and no second mount leads into it (SECURITY R26).

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::code::Code;
use rustix::fs::{Stat, fstat, stat};

use super::error::FileError;

/// Clones share it. The default one seals nothing.
#[derive(Debug, Clone, Default)]
pub struct Sealed(Option<Arc<Folder>>);

#[derive(Debug)]
struct Folder {
    device: u64,
    inode: u64,
    /// Without links.
    path: PathBuf,
}

impl Sealed {
    /// The folder must be there; one that is not is nobody's yet.
    pub fn new(dir: &Path) -> Self {
        let folder = || {
            let path = std::fs::canonicalize(dir).ok()?;
            let (device, inode) = identity(&stat(&path).ok()?);
            Some(Arc::new(Folder { device, inode, path }))
        };
        Self(folder())
    }

    /// Refuses an opened folder that is it.
    pub(super) fn check(&self, opened: impl AsFd) -> Result<(), FileError> {
        match &self.0 {
            Some(_) => self.check_stat(&fstat(opened)?),
            None => Ok(()),
        }
    }

    /// The same by what was told of a folder.
    pub(super) fn check_stat(&self, stat: &Stat) -> Result<(), FileError> {
        match &self.0 {
            Some(folder) if identity(stat) == (folder.device, folder.inode) => {
                Err(FileError::new(Code::OUTSIDE_ROOTS, "this is the agent's own folder, which no policy opens"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it lies below a folder, so that moving that one would move it.
    pub(super) fn is_below(&self, path: &Path) -> bool {
        self.0.as_ref().is_some_and(|folder| folder.path.starts_with(path))
    }
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ between systems")]
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}
