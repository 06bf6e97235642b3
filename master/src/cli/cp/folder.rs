//! A local folder that files arrive in. Nothing leaves it: what an agent names is opened beneath it, whatever links lie
//! there. A file arrives beside its place and takes it when it is whole.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, FileTimes, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt},
};

const PREFIX: &str = ".landline-";
const SUFFIX: &str = ".part";
/// Written to the disk together while more is on its way, bytes.
const WRITE_BACK: u64 = 8 << 20;
/// Files at least this large are looked for leftovers of earlier states.
const LARGE: u64 = 1 << 20;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(Dir);

/// A file that arrives. Dropping it keeps what is there for another attempt.
#[derive(Debug)]
pub(super) struct Part<'a> {
    folder: &'a Folder,
    temp: OsString,
    file: File,
    /// Bytes written since the disk was last told to begin.
    unsent: u64,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Dir::open_ambient_dir(path, ambient_authority()).map(Self)
    }

    /// Finds what an earlier attempt left of a file in one state, or begins it. `key` is of the file, `state` of what is
    /// in it now.
    pub(super) fn part(&self, key: &str, state: &str, size: u64) -> io::Result<Part<'_>> {
        let (key, state) = (short(key), short(state));
        let temp = OsString::from(format!("{PREFIX}{key}{state}{SUFFIX}"));
        if size >= LARGE {
            self.sweep(&format!("{PREFIX}{key}"), &temp);
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = self.0.open_with(&temp, &options)?.into_std();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another copy of the same file is under way"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let meta = file.metadata()?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(io::Error::other(format!("{} is in the way and none of ours", temp.display())));
        }
        if meta.len() > size {
            file.set_len(0)?;
        }
        Ok(Part { folder: self, temp, file, unsent: 0 })
    }

    /// A folder below it.
    pub(super) fn below(&self, path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() { self.0.try_clone().map(Self) } else { self.0.open_dir(path).map(Self) }
    }

    /// Makes a folder below it, or takes the one that is there.
    pub(super) fn make(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    /// Whether this file is there, as far as size and time tell.
    pub(super) fn has(&self, path: &Path, size: u64, modified_ns: i64) -> bool {
        self.0.symlink_metadata(path).is_ok_and(|meta| {
            let ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
            meta.is_file() && meta.len() == size && ns == modified_ns
        })
    }

    /// Makes a link, in place of another one that is there. It is not followed by anything here.
    pub(super) fn link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        match self.0.symlink_contents(target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !self.0.symlink_metadata(path)?.is_symlink() {
                    return Err(error);
                }
                self.0.remove_file(path)?;
                self.0.symlink_contents(target, path)
            }
            other => other,
        }
    }

    /// Parts of the same file in other states: nobody will go on with them.
    fn sweep(&self, prefix: &str, own: &OsStr) {
        let Ok(entries) = self.0.entries() else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let stale =
                name != own && name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(SUFFIX));
            if stale && self.0.open(&name).is_ok_and(|file| file.into_std().try_lock().is_ok()) {
                let _ = self.0.remove_file(&name);
            }
        }
    }
}

impl Part<'_> {
    /// Bytes that are there.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Feeds what is there into a hash, and leaves the position behind it.
    pub(super) fn hash(&mut self, hasher: &mut blake3::Hasher) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                read => _ = hasher.update(&buffer[..read]),
            }
        }
    }

    /// Writes at the position.
    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.unsent += piece.len() as u64;
        if self.unsent >= WRITE_BACK {
            self.begin_writing_back()?;
            self.unsent = 0;
        }
        Ok(())
    }

    /// The disk begins now, so that the end need not wait for all of it. Only a hint: it may fail.
    fn begin_writing_back(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use std::io::Seek as _;
            let from = self.file.stream_position()?.saturating_sub(self.unsent);
            let length = std::num::NonZeroU64::new(self.unsent);
            let _ = rustix::fs::fadvise(&self.file, from, length, rustix::fs::Advice::DontNeed);
        }
        Ok(())
    }

    /// Puts the file in its place; on the disk when this returns.
    pub(super) fn finish(self, name: &OsStr, mode: Option<u32>, modified_ns: Option<i64>) -> io::Result<()> {
        if let Some(mode) = mode {
            self.file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))?;
        }
        if let Some(time) = modified_ns.and_then(time) {
            self.file.set_times(FileTimes::new().set_modified(time))?;
        }
        self.file.sync_all()?;
        self.folder.0.rename(&self.temp, &self.folder.0, name)?;
        // Makes the name last; a file system that cannot does not take the file back.
        let _ = self.folder.0.open(".").and_then(|folder| folder.into_std().sync_all());
        Ok(())
    }

    /// Gives up what is there.
    pub(super) fn discard(self) {
        let _ = self.folder.0.remove_file(&self.temp);
    }
}

fn short(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

fn time(ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { SystemTime::UNIX_EPOCH.checked_add(distance) } else { SystemTime::UNIX_EPOCH.checked_sub(distance) }
}
