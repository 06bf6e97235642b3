//! Walking what lies below an open folder, one name at a time and never through a link.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use proto::{
    code::Code,
    file::{Entry, FileKind, FileName},
};
use rustix::fs::{AtFlags, Dir, FileType, Stat, readlinkat, statat};

use super::{
    error::FileError,
    place::{is_temp, open_dir},
    sealed::Sealed,
};

/// Folders within folders. One descriptor is open for each on the way.
const DEPTH_MAX: usize = 256;

/// Something below the folder where a walk began.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    /// The open folder it lies in.
    pub(super) dir: &'a OwnedFd,
    pub(super) name: &'a OsStr,
    /// Relative to where the walk began.
    pub(super) path: &'a Path,
    pub(super) stat: &'a Stat,
}

/// What a visitor meets.
pub(super) enum Met<'a> {
    /// A folder comes before what is in it.
    Found(Found<'a>),
    /// A folder again, after all that is in it.
    Left(Found<'a>),
    /// What could not be looked into; the walk goes on.
    Unreadable(&'a Path, FileError),
}

/// What is done at each step of a walk.
type Visit<'a> = dyn FnMut(Met<'_>) -> Result<(), FileError> + 'a;

/// Walks everything below `top` but unfinished files. A visitor that fails ends it.
pub(super) fn walk(top: &OwnedFd, sealed: &Sealed, visit: &mut Visit<'_>) -> Result<(), FileError> {
    Walk { sealed, temps: false, visit }.below(top, Path::new(""), 0)
}

/// The same with unfinished files.
pub(super) fn walk_all(top: &OwnedFd, sealed: &Sealed, visit: &mut Visit<'_>) -> Result<(), FileError> {
    Walk { sealed, temps: true, visit }.below(top, Path::new(""), 0)
}

struct Walk<'a, 'v> {
    sealed: &'a Sealed,
    temps: bool,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    fn below(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> Result<(), FileError> {
        let names = match all_names(dir, self.temps) {
            Ok(names) => names,
            Err(error) => return (self.visit)(Met::Unreadable(path, error)),
        };
        for name in names {
            let path = path.join(&name);
            match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.one(&Found { dir, name: &name, path: &path, stat: &stat }, depth)?,
                // Gone since the folder was read.
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => (self.visit)(Met::Unreadable(&path, errno.into()))?,
            }
        }
        Ok(())
    }

    fn one(&mut self, found: &Found<'_>, depth: usize) -> Result<(), FileError> {
        (self.visit)(Met::Found(*found))?;
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        if depth == DEPTH_MAX {
            let error = FileError::new(Code::TOO_LARGE, "folders are nested too deep");
            return (self.visit)(Met::Unreadable(found.path, error));
        }
        match open_dir(found.dir, found.name, self.sealed) {
            Ok(inner) => self.below(&inner, found.path, depth + 1)?,
            Err(error) => (self.visit)(Met::Unreadable(found.path, error))?,
        }
        (self.visit)(Met::Left(*found))
    }
}

/// The names in a folder, but for those of unfinished files.
pub(super) fn names(dir: &OwnedFd) -> Result<Vec<OsString>, FileError> {
    all_names(dir, false)
}

fn all_names(dir: &OwnedFd, temps: bool) -> Result<Vec<OsString>, FileError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && (temps || !is_temp(OsStr::from_bytes(name))) {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

pub(super) fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => FileKind::Device,
    }
}

/// Tells of something in an open folder.
pub(super) fn entry(
    dir: impl AsFd,
    name: &OsStr,
    shown: Vec<u8>,
    stat: &Stat,
    users: &std::collections::BTreeMap<u32, String>,
) -> Entry {
    let kind = kind(stat);
    let target = match kind {
        FileKind::Link => readlinkat(dir, name, Vec::new()).ok().map(|target| FileName(target.into_bytes())),
        _ => None,
    };
    Entry {
        name: FileName(shown),
        kind,
        size: if kind == FileKind::Folder { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) },
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        user: users.get(&stat.st_uid).cloned(),
        modified_ns: modified_ns(stat),
        target,
    }
}

fn modified_ns(stat: &Stat) -> i64 {
    let ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    i64::try_from(ns).unwrap_or(0)
}

pub(super) fn bytes_of(path: &Path) -> Vec<u8> {
    PathBuf::from(path).into_os_string().into_vec()
}
