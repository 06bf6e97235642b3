//! Taking archives apart (SECURITY R49). An archive comes from anywhere: every name in it is walked below the folder it is
//! extracted into, through no link, not even one of its own; nothing gets setuid; devices and hard links are refused.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufReader, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path},
};

use flate2::read::MultiGzDecoder;
use proto::{
    code::Code,
    file::{ArchiveFormat, FileDone, FilePath},
};
use rustix::{
    fs::{AtFlags, Mode, mkdirat, symlinkat, unlinkat},
    io::Errno,
};

use super::{
    Access, FileError, Links, Place, Roots,
    archive::bad_zip,
    copy::create_new,
    out::Out,
    place::{open_dir, sync_dir},
};

/// Things in one archive.
const ENTRIES_MAX: u64 = 1_000_000;
const DEPTH_MAX: usize = 256;
/// Longest target of a link in a zip archive, bytes.
const TARGET_MAX: u64 = 4096;

pub(super) fn unpack(
    roots: &Roots,
    from: &FilePath,
    to: &FilePath,
    format: ArchiveFormat,
    replace: bool,
    out: &Out,
) -> Result<FileDone, FileError> {
    let from = roots.locate(from, Access::Read, Links::Follow)?;
    let to = roots.locate(to, Access::Write, Links::Follow)?;
    let file = from.open_read().map_err(|error| error.at(from.path()))?;
    if format == ArchiveFormat::Gzip {
        return gunzip(file, &to, replace, out).map_err(|error| error.at(to.path()));
    }
    to.fillable().map_err(|error| error.at(to.path()))?;
    match mkdirat(to.dir(), to.name(), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(FileError::from(errno).at(to.path())),
    }
    let top = to.open_dir().map_err(|error| error.at(to.path()))?;
    let mut into = Into { top, place: &to, replace, out, done: FileDone::default() };
    let taken = match format {
        ArchiveFormat::Zip => zip(file, &mut into),
        ArchiveFormat::TarGzip => tar(MultiGzDecoder::new(BufReader::new(file)), &mut into),
        ArchiveFormat::Tar | ArchiveFormat::Gzip => tar(BufReader::new(file), &mut into),
    };
    taken.map_err(|error| error.at(from.path()))?;
    sync_dir(&into.top)?;
    Ok(into.done)
}

fn gunzip(file: File, to: &Place, replace: bool, out: &Out) -> Result<FileDone, FileError> {
    if !replace && to.stat().is_ok() {
        return Err(Errno::EXIST.into());
    }
    let temp = to.create_fresh()?;
    let mut decoder = MultiGzDecoder::new(BufReader::new(file));
    let bytes = pour(&mut decoder, &temp.file, out)?;
    temp.commit(None, replace)?;
    Ok(FileDone { files: 1, bytes, ..FileDone::default() })
}

fn tar(source: impl Read, into: &mut Into<'_>) -> Result<(), FileError> {
    let mut archive = tar::Archive::new(source);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path_bytes().into_owned();
        let name = Path::new(OsStr::from_bytes(&name)).to_owned();
        let mode = entry.header().mode().unwrap_or(0o644);
        match entry.header().entry_type() {
            tar::EntryType::Directory => into.folder(&name)?,
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                into.link(&name, OsStr::from_bytes(&target))?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                into.file(&name, mode, &mut entry)?;
            }
            tar::EntryType::XGlobalHeader => {}
            tar::EntryType::Link => return Err(refused(&name, "it is a hard link")),
            _ => return Err(refused(&name, "it is a device, a pipe or of an unknown kind")),
        }
    }
    Ok(())
}

fn zip(file: File, into: &mut Into<'_>) -> Result<(), FileError> {
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(bad_zip)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(bad_zip)?;
        let name = Path::new(OsStr::from_bytes(entry.name_raw())).to_owned();
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_symlink() {
            let mut target = Vec::new();
            (&mut entry).take(TARGET_MAX).read_to_end(&mut target).map_err(damaged)?;
            into.link(&name, OsStr::from_bytes(&target))?;
        } else if entry.is_dir() {
            into.folder(&name)?;
        } else {
            into.file(&name, mode, &mut entry)?;
        }
    }
    Ok(())
}

/// The folder that things are extracted into.
struct Into<'a> {
    top: OwnedFd,
    place: &'a Place,
    replace: bool,
    out: &'a Out,
    done: FileDone,
}

impl Into<'_> {
    fn folder(&mut self, name: &Path) -> Result<(), FileError> {
        self.count()?;
        let parts = parts(name)?;
        self.walk(&parts).map_err(|error| error.at(name))?;
        Ok(())
    }

    /// A link is made as it stands, if what it says stays below the folder. Nothing here ever follows it.
    fn link(&mut self, name: &Path, target: &OsStr) -> Result<(), FileError> {
        self.count()?;
        let mut parts = parts(name)?;
        let last = parts.pop().ok_or_else(|| refused(name, "it has no name"))?;
        let mut depth = parts.len();
        for part in Path::new(target).components() {
            match part {
                Component::Normal(_) => depth += 1,
                Component::CurDir => {}
                Component::ParentDir if depth > 0 => depth -= 1,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(refused(name, "it is a link that leads out of the folder"));
                }
            }
        }
        let dir = self.walk(&parts).map_err(|error| error.at(name))?;
        let made = match symlinkat(target, &dir, &last) {
            Err(Errno::EXIST) if self.replace => {
                unlinkat(&dir, &last, AtFlags::empty()).and_then(|()| symlinkat(target, &dir, &last))
            }
            other => other,
        };
        made.map_err(|errno| FileError::from(errno).at(name))
    }

    fn file(&mut self, name: &Path, mode: u32, content: &mut dyn Read) -> Result<(), FileError> {
        self.count()?;
        let mut parts = parts(name)?;
        let last = parts.pop().ok_or_else(|| refused(name, "it has no name"))?;
        let dir = self.walk(&parts).map_err(|error| error.at(name))?;
        let bytes = match create_new(&dir, &last, mode) {
            Ok(file) => pour(content, &file, self.out).inspect_err(|_| {
                // Half a file is none; it would also keep a full disk full.
                let _ = unlinkat(&dir, &last, AtFlags::empty());
            }),
            Err(error) if error.code == Code::EXISTS && self.replace => {
                let place = self.place.below(&dir, &last)?;
                let temp = place.create_fresh()?;
                let bytes = pour(content, &temp.file, self.out);
                bytes.and_then(|bytes| temp.commit(Some(mode), true).map(|()| bytes))
            }
            Err(error) => Err(error),
        };
        self.done.bytes += bytes.map_err(|error| error.at(name))?;
        Ok(())
    }

    fn count(&mut self) -> Result<(), FileError> {
        self.out.go_on()?;
        self.done.files += 1;
        if self.done.files > ENTRIES_MAX {
            return Err(FileError::new(Code::BAD_ARCHIVE, format!("it holds more than {ENTRIES_MAX} things")));
        }
        Ok(())
    }

    /// Opens a folder below the top, making what is missing on the way.
    fn walk(&self, parts: &[OsString]) -> Result<OwnedFd, FileError> {
        let mut dir = self.top.try_clone()?;
        for part in parts {
            match mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            dir = open_dir(&dir, part, self.place.sealed())?;
        }
        Ok(dir)
    }
}

/// The names on the way to something in an archive.
fn parts(name: &Path) -> Result<Vec<OsString>, FileError> {
    if name.as_os_str().as_bytes().contains(&0) {
        return Err(refused(name, "its name holds a NUL byte"));
    }
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_owned()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(name, "its name leads out of the folder"));
            }
        }
    }
    if parts.len() > DEPTH_MAX {
        return Err(refused(name, "it lies too deep"));
    }
    Ok(parts)
}

fn pour(source: &mut dyn Read, mut target: &File, out: &Out) -> Result<u64, FileError> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        out.go_on()?;
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                io::Write::write_all(&mut target, &buffer[..read])?;
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(damaged(error)),
        }
    }
}

fn refused(name: &Path, why: &str) -> FileError {
    FileError::new(Code::BAD_ARCHIVE, format!("{why}; only what stands before it in the archive was extracted"))
        .at(name)
}

/// Errors of the decoder are errors of the archive.
fn damaged(error: io::Error) -> FileError {
    match error.raw_os_error() {
        Some(_) => error.into(),
        None => FileError::new(Code::BAD_ARCHIVE, format!("it is no such archive, or damaged: {error}")),
    }
}
