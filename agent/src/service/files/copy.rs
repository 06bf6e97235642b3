//! Copies within one machine. A file appears whole; a folder appears file by file.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
};

use proto::{
    code::Code,
    file::{FileDone, FileKind, FilePath},
};
use rustix::{
    fs::{AtFlags, Mode, OFlags, RawMode, Stat, mkdirat, openat, readlinkat, statat, symlinkat},
    io::Errno,
};

use super::{
    Access, FileError, Links, Place, Roots, Sealed,
    out::Out,
    place::{MODE_BITS, open_dir, open_plain, sync_dir},
    tree::{self, Found},
};

const PIECE: usize = 256 * 1024;
/// Folders within folders.
const DEPTH_MAX: usize = 256;

pub(super) fn copy(
    roots: &Roots,
    from: &FilePath,
    to: &FilePath,
    recursive: bool,
    replace: bool,
    out: &Out,
) -> Result<FileDone, FileError> {
    let (from, to) =
        (roots.locate(from, Access::Read, Links::Follow)?, roots.locate(to, Access::Write, Links::Follow)?);
    let stat = from.stat().map_err(|error| error.at(from.path()))?;
    let mut copy = Copying { replace, out, done: FileDone::default() };
    if tree::kind(&stat) != FileKind::Folder {
        let source = from.open_read().map_err(|error| error.at(from.path()))?;
        copy.file(source, &stat, &to).map_err(|error| error.at(to.path()))?;
        return Ok(copy.done);
    }
    if !recursive {
        return Err(FileError::new(Code::NOT_A_FILE, "it is a folder; copy it recursively").at(from.path()));
    }
    to.fillable().map_err(|error| error.at(to.path()))?;
    if to.path().starts_with(from.path()) {
        return Err(FileError::new(Code::INVALID, "a folder cannot be copied into itself").at(to.path()));
    }
    let source = from.open_dir().map_err(|error| error.at(from.path()))?;
    let target = make_folder(to.dir(), to.name(), &stat, to.sealed()).map_err(|error| error.at(to.path()))?;
    copy.folder(&source, &target, &to, 0)?;
    sync_dir(to.dir())?;
    copy.done.files += 1;
    Ok(copy.done)
}

struct Copying<'a> {
    replace: bool,
    out: &'a Out,
    done: FileDone,
}

impl Copying<'_> {
    /// A file beside its place, and then in it.
    fn file(&mut self, source: File, stat: &Stat, to: &Place) -> Result<(), FileError> {
        if !self.replace && to.stat().is_ok() {
            return Err(Errno::EXIST.into());
        }
        let temp = to.create_fresh()?;
        self.bytes(source, &temp.file)?;
        temp.commit(Some(stat.st_mode), self.replace)?;
        self.done.files += 1;
        Ok(())
    }

    fn bytes(&mut self, mut source: File, mut target: &File) -> Result<(), FileError> {
        let mut buffer = vec![0; PIECE];
        loop {
            self.out.go_on()?;
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    std::io::Write::write_all(&mut target, &buffer[..read])?;
                    self.done.bytes += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn folder(&mut self, source: &OwnedFd, target: &OwnedFd, place: &Place, depth: usize) -> Result<(), FileError> {
        if depth == DEPTH_MAX {
            return Err(FileError::new(Code::TOO_LARGE, "folders are nested too deep"));
        }
        for name in tree::names(source)? {
            self.out.go_on()?;
            let stat = match statat(source, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(FileError::from(errno).at(name.as_ref())),
            };
            let place = place.below(target, &name)?;
            let found = Found { dir: source, name: &name, path: name.as_ref(), stat: &stat };
            self.one(&found, target, &place, depth).map_err(|error| error.at(place.path()))?;
        }
        sync_dir(target)
    }

    fn one(&mut self, found: &Found<'_>, target: &OwnedFd, place: &Place, depth: usize) -> Result<(), FileError> {
        match tree::kind(found.stat) {
            FileKind::File => self.file(open_plain(found.dir, found.name, OFlags::RDONLY)?, found.stat, place),
            FileKind::Folder => {
                let inner = open_dir(found.dir, found.name, place.sealed())?;
                let made = make_folder(target.as_fd(), found.name, found.stat, place.sealed())?;
                self.done.files += 1;
                self.folder(&inner, &made, place, depth + 1)
            }
            FileKind::Link => {
                let link = readlinkat(found.dir, found.name, Vec::new())?;
                symlinkat(&link, target, found.name)?;
                self.done.files += 1;
                Ok(())
            }
            FileKind::Pipe | FileKind::Socket | FileKind::Device => {
                self.done.skipped += 1;
                Ok(())
            }
        }
    }
}

/// Makes a folder, or takes the one that is there, and opens it.
pub(super) fn make_folder(dir: impl AsFd, name: &OsStr, stat: &Stat, sealed: &Sealed) -> Result<OwnedFd, FileError> {
    let mode = Mode::from_raw_mode((stat.st_mode & MODE_BITS | 0o700) as RawMode);
    match mkdirat(&dir, name, mode) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name, sealed),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens for writing a file that was not there.
pub(super) fn create_new(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<File, FileError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::from_raw_mode((mode & MODE_BITS) as RawMode))?.into())
}
