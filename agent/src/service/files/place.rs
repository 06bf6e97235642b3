//! A name in an open folder, and what is done there without ever following a link (SECURITY R47, R50). New content is
//! written to a file beside the old one and renamed over it, so that whoever looks sees the old or the new.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{code::Code, failpoint, id::RequestId};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Uid, openat, statat, unlinkat},
    io::Errno,
};

use super::{error::FileError, roots::Access, sealed::Sealed};

/// Permission bits that are given to anything written: no setuid, no setgid, no sticky bit.
pub const MODE_BITS: u32 = 0o777;
/// Files that are not finished are called so, with hexadecimal digits in between.
pub const TEMP_PREFIX: &str = ".landline-";
pub const TEMP_SUFFIX: &str = ".part";

/// Whether a name is that of an unfinished file.
pub fn is_temp(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(TEMP_PREFIX.as_bytes()) && name.ends_with(TEMP_SUFFIX.as_bytes())
}

/// Something, or nothing yet, by its name in an open folder.
#[derive(Debug, Clone)]
pub struct Place {
    dir: Arc<OwnedFd>,
    /// `None` is the folder itself: a root.
    name: Option<OsString>,
    path: PathBuf,
    access: Access,
    beneath: Beneath,
    sealed: Sealed,
}

/// Which of the policy's folders a place is or holds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beneath {
    /// It is one of them, or holds one.
    pub(super) root: bool,
    /// It holds one that may only be read.
    pub(super) read_only: bool,
    /// It holds the agent's own folder.
    pub(super) sealed: bool,
}

/// A file that is being written beside its place. Dropping it removes it.
#[derive(Debug)]
pub struct Temp {
    pub file: File,
    place: Place,
    name: OsString,
    kept: bool,
}

impl Place {
    pub(super) fn new(
        dir: Arc<OwnedFd>,
        name: Option<OsString>,
        path: PathBuf,
        access: Access,
        beneath: Beneath,
    ) -> Self {
        Self { dir, name, path, access, beneath, sealed: Sealed::default() }
    }

    /// The same, with a folder that is not entered from here.
    pub(super) fn sealing(self, sealed: Sealed) -> Self {
        Self { sealed, ..self }
    }

    /// What is not entered from here.
    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Without links, as it was when it was located. For people and for comparing; never to be opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the owner's policy allows here.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The open folder that holds it.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its name in [`dir`](Self::dir); `.` for a root.
    pub fn name(&self) -> &OsStr {
        self.name.as_deref().unwrap_or(OsStr::new("."))
    }

    /// Refuses what must not be moved or removed: a root, and a folder that holds one or the agent's own.
    pub fn movable(&self) -> Result<(), FileError> {
        if self.beneath.sealed {
            return Err(FileError::new(Code::READ_ONLY, "it holds the agent's own folder"));
        }
        if self.beneath.root {
            let text = "it is, or holds, one of the folders that the owner's policy names";
            return Err(FileError::new(Code::READ_ONLY, text));
        }
        Ok(())
    }

    /// Refuses to fill a folder that holds another one which may only be read.
    pub fn fillable(&self) -> Result<(), FileError> {
        if self.beneath.read_only {
            let text = "it holds a folder that the owner's policy lets only be read";
            return Err(FileError::new(Code::READ_ONLY, text));
        }
        Ok(())
    }

    /// Whether it is one of the policy's folders itself.
    pub fn is_root(&self) -> bool {
        self.name.is_none()
    }

    /// Something in a folder below this place.
    pub fn below(&self, dir: &OwnedFd, name: &OsStr) -> Result<Self, FileError> {
        let path = self.path.join(name);
        let dir = Arc::new(dir.try_clone()?);
        let (access, sealed) = (self.access, self.sealed.clone());
        Ok(Self { dir, name: Some(name.to_owned()), path, access, beneath: Beneath::default(), sealed })
    }

    /// What is there; of a link, the link.
    pub fn stat(&self) -> Result<Stat, FileError> {
        Ok(statat(&self.dir, self.name(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens a plain file for reading. Never blocks: anything else is refused before it is opened, and again after.
    pub fn open_read(&self) -> Result<File, FileError> {
        open_plain(&self.dir, self.name(), OFlags::RDONLY)
    }

    /// Opens the folder that is there, for listing and for working beneath it.
    pub fn open_dir(&self) -> Result<OwnedFd, FileError> {
        open_dir(&self.dir, self.name(), &self.sealed)
    }

    /// Another name in the same folder.
    #[must_use]
    pub fn beside(&self, name: &OsStr) -> Self {
        let path = self.path.with_file_name(name);
        Self { name: Some(name.to_owned()), path, ..self.clone() }
    }

    /// Begins a new file that shall take this place. `hex` makes its name; an old file of that name is an error.
    pub fn create_temp(&self, hex: &str) -> Result<Temp, FileError> {
        let name = self.temp_name(hex)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Temp { file: file.into(), place: self.clone(), name, kept: false })
    }

    /// Goes on with a file that [`create_temp`](Self::create_temp) began and [`keep`](Temp::keep) left. One that could be
    /// somebody else's is refused. The position is its beginning.
    pub fn reopen_temp(&self, hex: &str) -> Result<Temp, FileError> {
        let name = self.temp_name(hex)?;
        let file = open_plain(&self.dir, &name, OFlags::RDWR)?;
        let stat = rustix::fs::fstat(&file)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_nlink == 1
            && RawMode::from(stat.st_mode) & 0o077 == 0;
        if !ours {
            return Err(FileError::new(Code::NO_ACCESS, "the unfinished file there is not the agent's own"));
        }
        Ok(Temp { file, place: self.clone(), name, kept: false })
    }

    /// Begins a new file that shall take this place and that nobody goes on with.
    pub fn create_fresh(&self) -> Result<Temp, FileError> {
        self.create_temp(&RequestId::random().0.simple().to_string())
    }

    fn temp_name(&self, hex: &str) -> Result<OsString, FileError> {
        if self.name.is_none() {
            return Err(FileError::new(Code::NOT_A_FILE, "it is a folder"));
        }
        Ok(format!("{TEMP_PREFIX}{hex}{TEMP_SUFFIX}").into())
    }
}

impl Temp {
    /// Leaves the file for a later [`Place::reopen_temp`].
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Puts the file in its place: on disk when this returns. `mode` `None` keeps that of a file that is replaced, else
    /// 0644; its owner is kept as far as the system lets the agent. With `replace` false something that is there is left
    /// alone and is an error; a folder always is.
    pub fn commit(mut self, mode: Option<u32>, replace: bool) -> Result<(), FileError> {
        let old = match self.place.stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Some(stat),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(FileError::new(Code::NOT_A_FILE, "a folder is there"));
            }
            Ok(_) => None,
            Err(error) if error.code == Code::NOT_FOUND => None,
            Err(error) => return Err(error),
        };
        if let Some(old) = &old {
            // Only root may give files away; for anybody else the new file is their own, as with any editor.
            let _ = rustix::fs::fchown(&self.file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)));
        }
        let mode = mode.unwrap_or_else(|| old.map_or(0o644, |old| old.st_mode)) & MODE_BITS;
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode as RawMode))?;
        failpoint::here("file.before_sync");
        rustix::fs::fsync(&self.file)?;
        failpoint::here("file.before_rename");
        rename(&self.place.dir, &self.name, &self.place.dir, self.place.name(), replace)?;
        self.kept = true;
        failpoint::here("file.renamed");
        sync_dir(&self.place.dir)?;
        failpoint::here("file.in_place");
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            let _ = unlinkat(&self.place.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Renames, with `replace` false only to a name that is free.
pub fn rename(
    from: impl AsFd,
    from_name: &OsStr,
    to: impl AsFd,
    to_name: &OsStr,
    replace: bool,
) -> Result<(), FileError> {
    if replace {
        return Ok(rustix::fs::renameat(from, from_name, to, to_name)?);
    }
    rename_to_free(from.as_fd(), from_name, to.as_fd(), to_name)
}

#[cfg(target_os = "linux")]
fn rename_to_free(
    from: BorrowedFd<'_>,
    from_name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
) -> Result<(), FileError> {
    match rustix::fs::renameat_with(from, from_name, to, to_name, rustix::fs::RenameFlags::NOREPLACE) {
        // A file system that cannot: look first, then rename. Another writer may come in between.
        Err(Errno::INVAL | Errno::NOSYS) => look_and_rename(from, from_name, to, to_name),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_to_free(
    from: BorrowedFd<'_>,
    from_name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
) -> Result<(), FileError> {
    look_and_rename(from, from_name, to, to_name)
}

fn look_and_rename(
    from: BorrowedFd<'_>,
    from_name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
) -> Result<(), FileError> {
    match statat(to, to_name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(from, from_name, to, to_name)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a plain file. What it is is looked at first, as opening a device alone may have effects, and again afterwards.
pub fn open_plain(dir: impl AsFd, name: &OsStr, flags: OFlags) -> Result<File, FileError> {
    plain(&statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?)?;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    plain(&rustix::fs::fstat(&file)?)?;
    Ok(file.into())
}

/// Opens a folder for reading; a link is none, and what is sealed is refused.
pub fn open_dir(dir: impl AsFd, name: &OsStr, sealed: &Sealed) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => return Err(Errno::NOTDIR.into()),
        other => other?,
    };
    sealed.check(&opened)?;
    Ok(opened)
}

fn plain(stat: &Stat) -> Result<(), FileError> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "it is a folder",
        FileType::Symlink => "it is a link",
        FileType::Fifo => "it is a pipe",
        FileType::Socket => "it is a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "it is a device",
        FileType::Unknown => "it is no plain file",
    };
    Err(FileError::new(Code::NOT_A_FILE, what))
}

/// Makes names in a folder last. A folder that may be written but not read cannot be synced, and a file system that
/// does not know it cannot either; neither takes the change back.
pub fn sync_dir(dir: impl AsFd) -> Result<(), FileError> {
    let opened = openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match opened.and_then(rustix::fs::fsync) {
        Ok(()) | Err(Errno::ACCESS | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
