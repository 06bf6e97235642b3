//! One file being read, and whether it stayed the same meanwhile.

use std::{fs::File, os::unix::fs::FileExt};

use proto::{code::Code, transfer::Version};
use rustix::fs::{Stat, fstat};

use crate::service::files::{FileError, Place};

/// Files up to this size are looked at before they are read, bytes.
const PROBED: u64 = 64 * 1024;

/// An open plain file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: File,
    pub(super) stat: Stat,
}

impl Source {
    pub(super) fn open(place: &Place) -> Result<Self, FileError> {
        let file = place.open_read()?;
        let stat = fstat(&file)?;
        Ok(Self { file, stat })
    }

    /// Refuses what only looks like a file: in /proc and /sys a size says nothing, and what is read by it is nothing or
    /// breaks off. Looks at files up to [`PROBED`] bytes; those of the kernel say less.
    pub(super) fn probed(self) -> Result<Self, FileError> {
        let size = self.size();
        if size > PROBED {
            return Ok(self);
        }
        let read = self.file.read_at(&mut [0], size.saturating_sub(1))?;
        if (read > 0) == (size > 0) {
            return Ok(self);
        }
        let text = format!("it has not the {size} bytes that it says, as files of /proc and /sys; read it by exec");
        Err(FileError::new(Code::NOT_A_FILE, text))
    }

    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// At least one byte and at most `wanted` from `offset`, which lies before the end.
    pub(super) fn piece(&self, offset: u64, wanted: usize) -> Result<Vec<u8>, FileError> {
        let mut piece = vec![0; wanted];
        loop {
            match self.file.read_at(&mut piece, offset) {
                Ok(0) => return Err(FileError::new(Code::SOURCE_CHANGED, "the file became shorter while it was read")),
                Ok(read) => piece.truncate(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            return Ok(piece);
        }
    }

    /// Whether it was written to since it was opened. That another file took its place does not matter: this one is
    /// still whole.
    pub(super) fn changed(&self) -> Result<bool, FileError> {
        let now = fstat(&self.file)?;
        let replaced = now.st_nlink != self.stat.st_nlink;
        let touched = changed_ns(&now) != changed_ns(&self.stat) && !replaced;
        Ok(now.st_size != self.stat.st_size || modified_ns(&now) != modified_ns(&self.stat) || touched)
    }
}

pub(super) fn version(stat: &Stat) -> Version {
    let mut hasher = blake3::Hasher::new();
    for part in [i128::from(stat.st_dev), i128::from(stat.st_ino), i128::from(stat.st_size)] {
        hasher.update(&part.to_be_bytes());
    }
    hasher.update(&modified_ns(stat).to_be_bytes());
    hasher.update(&changed_ns(stat).to_be_bytes());
    let mut version = [0; 16];
    version.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Version(version)
}

pub(super) fn modified_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_mtime, i128::from(stat.st_mtime_nsec))
}

fn changed_ns(stat: &Stat) -> i64 {
    nanoseconds(stat.st_ctime, i128::from(stat.st_ctime_nsec))
}

fn nanoseconds(seconds: i64, nanoseconds: i128) -> i64 {
    i64::try_from(i128::from(seconds) * 1_000_000_000 + nanoseconds).unwrap_or(0)
}

/// Permission bits without setuid, setgid and sticky.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o777
}
