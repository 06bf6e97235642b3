//! Operations that change names and what is told of files. None follows a link at the end of a path unless it says so.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    time::{SystemTime, UNIX_EPOCH},
};

use proto::{
    code::Code,
    file::{FileDone, FileKind, FileName, FilePath},
};
use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, chownat, fchmod, mkdirat, openat, symlinkat,
        unlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    Access, FileError, Links, Place, Roots,
    out::Out,
    place::{self, MODE_BITS, sync_dir},
    tree::{self, Met},
};
use crate::platform::users;

const GROUP: &str = "/etc/group";
/// Permission bits and the sticky bit.
const CHMOD_BITS: u32 = 0o1777;
/// Leaves that of the two times alone.
const UTIME_OMIT: i64 = rustix::fs::UTIME_OMIT;

fn one() -> FileDone {
    FileDone { files: 1, ..FileDone::default() }
}

/// A root itself belongs to the owner, not to whoever may work in it.
fn not_a_root(place: &Place) -> Result<(), FileError> {
    if place.is_root() {
        let text = "it is one of the folders that the owner's policy names";
        return Err(FileError::new(Code::READ_ONLY, text).at(place.path()));
    }
    Ok(())
}

pub(super) fn mkdir(roots: &Roots, path: &FilePath, parents: bool, mode: Option<u32>) -> Result<FileDone, FileError> {
    let mode = Mode::from_raw_mode((mode.unwrap_or(0o755) & MODE_BITS) as RawMode);
    if !parents {
        let place = roots.locate(path, Access::Write, Links::Keep)?;
        not_a_root(&place)?;
        mkdirat(place.dir(), place.name(), mode).map_err(|errno| FileError::from(errno).at(place.path()))?;
        sync_dir(place.dir())?;
        return Ok(one());
    }
    let mut done = FileDone::default();
    let slashes = path.0.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in slashes.chain([path.0.len()]) {
        let part = FilePath(path.0[..end].to_vec());
        // Above the roots there is nothing to be made.
        let place = match roots.locate(&part, Access::Read, Links::Follow) {
            Err(error) if error.code == Code::OUTSIDE_ROOTS && end < path.0.len() => continue,
            other => other?,
        };
        match place.stat() {
            Ok(stat) if tree::kind(&stat) == FileKind::Folder => continue,
            Ok(_) => return Err(FileError::new(Code::EXISTS, "something else is there").at(place.path())),
            Err(error) if error.code == Code::NOT_FOUND => {}
            Err(error) => return Err(error.at(place.path())),
        }
        let place = roots.locate(&part, Access::Write, Links::Follow)?;
        match mkdirat(place.dir(), place.name(), mode) {
            Ok(()) => done.files += 1,
            // Another was quicker.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::from(errno).at(place.path())),
        }
        sync_dir(place.dir())?;
    }
    Ok(done)
}

pub(super) fn remove(roots: &Roots, path: &FilePath, recursive: bool, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Write, Links::Keep)?;
    let at = |error: FileError| error.at(place.path());
    place.movable().map_err(at)?;
    let stat = place.stat().map_err(at)?;
    if tree::kind(&stat) != FileKind::Folder {
        unlinkat(place.dir(), place.name(), AtFlags::empty()).map_err(|errno| at(errno.into()))?;
        sync_dir(place.dir())?;
        return Ok(one());
    }
    let mut done = FileDone::default();
    if recursive {
        let top = place.open_dir().map_err(at)?;
        tree::walk_all(&top, place.sealed(), &mut |met| {
            out.go_on()?;
            let (found, flags) = match met {
                Met::Found(found) if tree::kind(found.stat) == FileKind::Folder => return Ok(()),
                Met::Found(found) => (found, AtFlags::empty()),
                Met::Left(found) => (found, AtFlags::REMOVEDIR),
                Met::Unreadable(path, error) => return Err(error.at(path)),
            };
            match unlinkat(found.dir, found.name, flags) {
                Ok(()) => done.files += 1,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(FileError::from(errno).at(found.path)),
            }
            Ok(())
        })
        .map_err(at)?;
    }
    unlinkat(place.dir(), place.name(), AtFlags::REMOVEDIR).map_err(|errno| at(errno.into()))?;
    sync_dir(place.dir())?;
    done.files += 1;
    Ok(done)
}

pub(super) fn rename(roots: &Roots, from: &FilePath, to: &FilePath, replace: bool) -> Result<FileDone, FileError> {
    let (from, to) = (roots.locate(from, Access::Write, Links::Keep)?, roots.locate(to, Access::Write, Links::Keep)?);
    from.movable().map_err(|error| error.at(from.path()))?;
    to.movable().map_err(|error| error.at(to.path()))?;
    from.stat().map_err(|error| error.at(from.path()))?;
    let renamed = place::rename(from.dir(), from.name(), to.dir(), to.name(), replace);
    renamed.map_err(|error| error.at(to.path()))?;
    sync_dir(from.dir())?;
    sync_dir(to.dir())?;
    Ok(one())
}

pub(super) fn chmod(roots: &Roots, path: &FilePath, mode: u32) -> Result<FileDone, FileError> {
    if mode & !CHMOD_BITS != 0 {
        return Err(FileError::new(Code::INVALID, "setuid and setgid cannot be set from afar; give e.g. 755"));
    }
    let place = roots.locate(path, Access::Write, Links::Follow)?;
    not_a_root(&place)?;
    let at = |errno: Errno| FileError::from(errno).at(place.path());
    let kind = tree::kind(&place.stat().map_err(|error| error.at(place.path()))?);
    if !matches!(kind, FileKind::File | FileKind::Folder) {
        return Err(FileError::new(Code::NOT_A_FILE, "neither a file nor a folder").at(place.path()));
    }
    // Opened first: a name could be another thing by the time its mode is set.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match openat(place.dir(), place.name(), flags, Mode::empty()) {
        Ok(file) => fchmod(file, Mode::from_raw_mode(mode as RawMode)).map_err(at)?,
        // The agent's user owns it but may not read it.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(
                place.dir(),
                place.name(),
                Mode::from_raw_mode(mode as RawMode),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(at)?;
        }
        Err(errno) => return Err(at(errno)),
    }
    Ok(one())
}

pub(super) fn chown(
    roots: &Roots,
    path: &FilePath,
    user: Option<&str>,
    group: Option<&str>,
    follow: bool,
) -> Result<FileDone, FileError> {
    let unknown =
        |what: &str, name: &str| FileError::new(Code::INVALID, format!("this machine knows no {what} {name:?}"));
    let uid = match user {
        None => None,
        Some(name) => {
            let number = name.parse().ok().or_else(|| users::find(name).map(|user| user.uid));
            Some(Uid::from_raw(number.filter(|uid| *uid != u32::MAX).ok_or_else(|| unknown("user", name))?))
        }
    };
    let gid = match group {
        None => None,
        Some(name) => {
            let number = name.parse().ok().or_else(|| groups().get(name).copied());
            Some(Gid::from_raw(number.filter(|gid| *gid != u32::MAX).ok_or_else(|| unknown("group", name))?))
        }
    };
    if uid.is_none() && gid.is_none() {
        return Err(FileError::new(Code::INVALID, "give a user, a group or both"));
    }
    let place = roots.locate(path, Access::Write, if follow { Links::Follow } else { Links::Keep })?;
    not_a_root(&place)?;
    chownat(place.dir(), place.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| FileError::from(errno).at(place.path()))?;
    Ok(one())
}

fn groups() -> HashMap<String, u32> {
    let text = std::fs::read_to_string(GROUP).unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(group).collect()
}

pub(super) fn symlink(roots: &Roots, path: &FilePath, target: &FileName) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Write, Links::Keep)?;
    not_a_root(&place)?;
    symlinkat(OsStr::from_bytes(&target.0), place.dir(), place.name())
        .map_err(|errno| FileError::from(errno).at(place.path()))?;
    sync_dir(place.dir())?;
    Ok(one())
}

pub(super) fn touch(roots: &Roots, path: &FilePath, modified_ns: Option<i64>) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Write, Links::Follow)?;
    not_a_root(&place)?;
    let at = |errno: Errno| FileError::from(errno).at(place.path());
    if let Err(error) = place.stat() {
        if error.code != Code::NOT_FOUND {
            return Err(error.at(place.path()));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(place.dir(), place.name(), flags, Mode::from_raw_mode(0o644)).map_err(at)?;
        sync_dir(place.dir())?;
    }
    let ns = modified_ns.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
    });
    let modified = Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified };
    utimensat(place.dir(), place.name(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(at)?;
    Ok(one())
}
