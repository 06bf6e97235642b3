//! Operations that change nothing.

use std::{ffi::OsStr, io::Read, os::unix::ffi::OsStrExt};

use md5::Md5;
use proto::{
    code::Code,
    file::{FileDone, FileKind, FileName, FilePath, FromFile, HashAlgorithm},
};
use rustix::fs::{AtFlags, readlinkat, statat};
use sha2::{Digest, Sha256, Sha512};

use super::{
    Access, FileError, Links, Place, Roots,
    out::Out,
    tree::{self, Met, bytes_of, entry},
};
use crate::platform::users;

/// Read at once, bytes.
const PIECE: usize = 256 * 1024;
/// As much of a file as tells its type, bytes.
const HEAD: usize = 8192;

pub(super) fn stat(roots: &Roots, path: &FilePath, follow: bool, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, if follow { Links::Follow } else { Links::Keep })?;
    let stat = place.stat().map_err(|error| error.at(place.path()))?;
    let name = place.path().file_name().unwrap_or(OsStr::new("/"));
    out.entry(entry(place.dir(), place.name(), name.as_bytes().to_vec(), &stat, &users::names()))?;
    Ok(FileDone { files: 1, ..FileDone::default() })
}

pub(super) fn list(
    roots: &Roots,
    path: &FilePath,
    after: &FileName,
    limit: u32,
    out: &Out,
) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let dir = place.open_dir().map_err(|error| error.at(place.path()))?;
    let mut names = tree::names(&dir).map_err(|error| error.at(place.path()))?;
    names.retain(|name| name.as_bytes() > after.0.as_slice());
    names.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    let users = users::names();
    let mut done = FileDone::default();
    let more = names.len() > limit as usize;
    for name in names.iter().take(limit as usize) {
        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                out.entry(entry(&dir, name, name.as_bytes().to_vec(), &stat, &users))?;
                done.files += 1;
            }
            Err(_) => done.skipped += 1,
        }
    }
    Ok(FileDone { more, ..done })
}

pub(super) fn walk(roots: &Roots, path: &FilePath, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let top = place.open_dir().map_err(|error| error.at(place.path()))?;
    let users = users::names();
    let mut done = FileDone::default();
    tree::walk(&top, place.sealed(), &mut |met| {
        match met {
            Met::Found(found) => {
                done.files += 1;
                out.entry(entry(found.dir, found.name, bytes_of(found.path), found.stat, &users))?;
            }
            Met::Left(_) => {}
            Met::Unreadable(path, error) => {
                tracing::debug!(?path, %error, "left out of a walk");
                done.skipped += 1;
            }
        }
        Ok(())
    })?;
    Ok(done)
}

/// By its content, and where that tells nothing by its name.
pub(super) fn kind(roots: &Roots, path: &FilePath, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let at = |error: FileError| error.at(place.path());
    let kind = tree::kind(&place.stat().map_err(at)?);
    let mime = match kind {
        FileKind::Folder => "inode/directory".to_owned(),
        FileKind::Link => "inode/symlink".to_owned(),
        FileKind::Pipe => "inode/fifo".to_owned(),
        FileKind::Socket => "inode/socket".to_owned(),
        FileKind::Device => "inode/device".to_owned(),
        FileKind::File => {
            let mut head = Vec::with_capacity(HEAD);
            let file = place.open_read().map_err(at)?;
            file.take(HEAD as u64).read_to_end(&mut head).map_err(|error| at(error.into()))?;
            mime(&head, place.name())
        }
    };
    out.say(FromFile::Type { kind, mime })?;
    Ok(FileDone { files: 1, ..FileDone::default() })
}

fn mime(head: &[u8], name: &OsStr) -> String {
    if let Some(known) = infer::get(head) {
        return known.mime_type().to_owned();
    }
    if head.is_empty() {
        return "application/x-empty".to_owned();
    }
    if let Some(guess) = mime_guess::from_path(name).first() {
        return guess.essence_str().to_owned();
    }
    // A character may be cut at the end of the head.
    let text = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    if text && !head.contains(&0) { "text/plain".to_owned() } else { "application/octet-stream".to_owned() }
}

pub(super) fn link(roots: &Roots, path: &FilePath, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Keep)?;
    let target = readlinkat(place.dir(), place.name(), Vec::new()).map_err(|errno| match errno {
        rustix::io::Errno::INVAL => FileError::new(Code::INVALID, "it is no link").at(place.path()),
        errno => FileError::from(errno).at(place.path()),
    })?;
    out.say(FromFile::Target(FileName(target.into_bytes())))?;
    Ok(FileDone { files: 1, ..FileDone::default() })
}

pub(super) fn checksum(
    roots: &Roots,
    path: &FilePath,
    algorithm: HashAlgorithm,
    out: &Out,
) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let (hash, bytes) = match algorithm {
        HashAlgorithm::Blake3 => {
            let mut hasher = blake3::Hasher::new();
            let bytes = read_all(&place, out, |piece| _ = hasher.update(piece))?;
            (hasher.finalize().as_bytes().to_vec(), bytes)
        }
        HashAlgorithm::Sha256 => digest::<Sha256>(&place, out)?,
        HashAlgorithm::Sha512 => digest::<Sha512>(&place, out)?,
        HashAlgorithm::Md5 => digest::<Md5>(&place, out)?,
    };
    out.say(FromFile::Hash(hash))?;
    Ok(FileDone { files: 1, bytes, ..FileDone::default() })
}

fn digest<D: Digest>(place: &Place, out: &Out) -> Result<(Vec<u8>, u64), FileError> {
    let mut digest = D::new();
    let bytes = read_all(place, out, |piece| digest.update(piece))?;
    Ok((digest.finalize().to_vec(), bytes))
}

fn read_all(place: &Place, out: &Out, mut take: impl FnMut(&[u8])) -> Result<u64, FileError> {
    let mut file = place.open_read().map_err(|error| error.at(place.path()))?;
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        out.go_on()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                take(&buffer[..read]);
                total += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::from(error).at(place.path())),
        }
    }
}

/// What a file or folder takes on the disk, hard links counted once.
pub(super) fn disk_use(roots: &Roots, path: &FilePath, out: &Out) -> Result<FileDone, FileError> {
    let place = roots.locate(path, Access::Read, Links::Keep)?;
    let own = place.stat().map_err(|error| error.at(place.path()))?;
    let mut seen = std::collections::HashSet::new();
    let mut done = FileDone::default();
    let mut count = |done: &mut FileDone, stat: &rustix::fs::Stat| {
        done.files += 1;
        if stat.st_nlink < 2 || tree::kind(stat) == FileKind::Folder || seen.insert((stat.st_dev, stat.st_ino)) {
            done.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    };
    count(&mut done, &own);
    if tree::kind(&own) == FileKind::Folder {
        let top = place.open_dir().map_err(|error| error.at(place.path()))?;
        tree::walk(&top, place.sealed(), &mut |met| {
            out.go_on()?;
            match met {
                Met::Found(found) => count(&mut done, found.stat),
                Met::Left(_) => {}
                Met::Unreadable(..) => done.skipped += 1,
            }
            Ok(())
        })?;
    }
    Ok(done)
}
