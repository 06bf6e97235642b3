//! One file that arrives, beside its target: found again by target, size and hash, locked against a second writer, and in
//! its target's place only once its hash is right. Blocks on the file system.

use std::{
    ffi::{OsStr, OsString},
    fs::{FileTimes, TryLockError},
    io::{Read, Write},
    num::NonZeroU64,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use proto::{code::Code, id::RequestId, transfer::WriteSpec};
use rustix::fs::{Advice, AtFlags, FileType, fadvise, fstat, statat};

use crate::service::files::{
    FileError, Place, Temp,
    place::{TEMP_PREFIX, TEMP_SUFFIX},
};

/// Attempts to get hold of a file that others finish or give up at the same moment.
const TRIES: u32 = 8;
/// Written to the disk together while more is on its way, bytes.
const WRITE_BACK: u64 = 8 << 20;
/// Read at once where what is there is hashed again, bytes.
const REREAD: usize = 256 * 1024;

/// A file that arrives. Dropping it keeps what is there for another attempt, if that is anything at all.
#[derive(Debug)]
pub(super) struct Part {
    place: Place,
    temp: Option<Temp>,
    spec: WriteSpec,
    /// Bytes that are there.
    held: u64,
    hasher: blake3::Hasher,
    /// Bytes that the hash has seen; fewer than `held` right after a file was found again.
    hashed: u64,
    /// Bytes that the disk was told to begin with.
    on_its_way: u64,
    /// Pieces put together, kept for its memory.
    run: Vec<u8>,
}

/// What is in a file's name beside its target: which target and which content, so that another content never continues it.
/// A content that nobody can name gets a name that nobody finds again.
fn hex_of(target: &OsStr, spec: &WriteSpec) -> String {
    let Some(name) = spec.blake3.or(spec.key) else { return RequestId::random().0.simple().to_string() };
    let target = blake3::hash(target.as_bytes());
    let content = blake3::Hasher::new().update(&spec.size.to_be_bytes()).update(&name).finalize();
    hex::encode(&target.as_bytes()[..6]) + &hex::encode(&content.as_bytes()[..16])
}

/// How much of this content is there already.
pub(super) fn held(place: &Place, spec: &WriteSpec) -> Result<u64, FileError> {
    let hex = hex_of(place.name(), spec);
    match statat(place.dir(), temp_name(&hex), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(usable(u64::try_from(stat.st_size).unwrap_or(0), spec.size)),
        Err(rustix::io::Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// A file in its place.
#[derive(Debug)]
pub(super) struct Finished {
    /// Nothing was there before.
    pub(super) created: bool,
    pub(super) blake3: [u8; 32],
}

impl Part {
    /// Begins a file, or finds again what was begun. `BUSY` while another stream writes the same.
    pub(super) fn open(place: Place, spec: WriteSpec) -> Result<Self, FileError> {
        refuse_unless_replaceable(&place)?;
        let hex = hex_of(place.name(), &spec);
        for _ in 0..TRIES {
            let temp = match place.create_temp(&hex) {
                Err(error) if error.code == Code::EXISTS => match place.reopen_temp(&hex) {
                    // Finished or given up by another in between.
                    Err(error) if error.code == Code::NOT_FOUND => continue,
                    other => other?,
                },
                // The folder is gone, or one that takes no new files.
                other => other?,
            };
            match temp.file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    temp.keep();
                    return Err(FileError::new(Code::BUSY, "another transfer is writing the same file"));
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            if is_at(&place, &hex, &temp)? {
                return Self::found(place, temp, spec);
            }
            temp.keep();
        }
        Err(FileError::new(Code::BUSY, "other transfers are writing the same file"))
    }

    fn found(place: Place, temp: Temp, spec: WriteSpec) -> Result<Self, FileError> {
        let there = temp.file.metadata()?.len();
        let held = usable(there, spec.size);
        if held != there {
            temp.file.set_len(held)?;
        }
        Ok(Self {
            place,
            temp: Some(temp),
            spec,
            held,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            on_its_way: held,
            run: Vec::new(),
        })
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// How much another attempt will find.
    pub(super) fn kept(&self) -> u64 {
        if self.named() { self.held } else { 0 }
    }

    /// Whether another attempt can find it again.
    fn named(&self) -> bool {
        self.spec.blake3.or(self.spec.key).is_some()
    }

    pub(super) fn complete(&self) -> bool {
        self.held == self.spec.size
    }

    /// Takes the next bytes. More than announced is an error; what was announced stays.
    pub(super) fn take(&mut self, pieces: &[Bytes]) -> Result<(), FileError> {
        self.hash_what_was_there()?;
        let total: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if total > self.spec.size - self.held {
            return Err(FileError::new(Code::TOO_LARGE, "more bytes came than were announced"));
        }
        let temp = self.temp.as_ref().ok_or_else(gone)?;
        // Pieces are packets. One run of them is hashed several times as fast as each by itself, and written once.
        self.run.clear();
        pieces.iter().for_each(|piece| self.run.extend_from_slice(piece));
        self.hasher.update(&self.run);
        write_all(&temp.file, &self.run)?;
        self.held += total;
        self.hashed += total;
        let unsent = self.held - self.on_its_way;
        if let Some(length) = NonZeroU64::new(unsent).filter(|_| unsent >= WRITE_BACK) {
            // The disk begins now, so that the end need not wait for all of it. Only a hint: it may fail.
            let _ = fadvise(&temp.file, self.on_its_way, Some(length), Advice::DontNeed);
            self.on_its_way = self.held;
        }
        Ok(())
    }

    /// Verifies the whole and puts it in its place. Whatever goes wrong, the old file is as it was, and what is wrong is
    /// gone.
    pub(super) fn finish(mut self) -> Result<Finished, FileError> {
        self.hash_what_was_there()?;
        let temp = self.temp.take().ok_or_else(gone)?;
        let blake3 = *self.hasher.finalize().as_bytes();
        if self.spec.blake3.is_some_and(|announced| announced != blake3) {
            drop(temp);
            return Err(FileError::new(Code::WRONG_HASH, "what arrived is not what was announced; begin again"));
        }
        let created = match self.place.stat() {
            Ok(_) => false,
            Err(error) if error.code == Code::NOT_FOUND => true,
            Err(error) => return Err(error),
        };
        if let Some(modified) = self.spec.modified_ns.and_then(system_time) {
            temp.file.set_times(FileTimes::new().set_modified(modified))?;
        }
        temp.commit(self.spec.mode, true)?;
        Ok(Finished { created, blake3 })
    }

    /// Gives up what arrived.
    pub(super) fn discard(mut self) {
        self.temp = None;
    }

    /// The hash runs along with what is written. What was there before this stream has to be read once more, by the one
    /// thread that writes, so that the stream is opened without waiting for it.
    fn hash_what_was_there(&mut self) -> Result<(), FileError> {
        if self.hashed == self.held {
            return Ok(());
        }
        let mut file = &self.temp.as_ref().ok_or_else(gone)?.file;
        let mut buffer = vec![0; REREAD];
        while self.hashed < self.held {
            let wanted = usize::try_from(self.held - self.hashed).unwrap_or(REREAD).min(REREAD);
            match file.read(&mut buffer[..wanted]) {
                Ok(0) => return Err(FileError::new(Code::IO_FAILED, "what was there before became shorter")),
                Ok(read) => {
                    self.hasher.update(&buffer[..read]);
                    self.hashed += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(temp) = self.temp.take()
            && self.held > 0
            && self.named()
        {
            temp.keep();
        }
    }
}

/// What can be built on: a file longer than announced is none of ours.
fn usable(there: u64, size: u64) -> u64 {
    if there > size { 0 } else { there }
}

fn refuse_unless_replaceable(place: &Place) -> Result<(), FileError> {
    match place.stat() {
        Err(error) if error.code == Code::NOT_FOUND => Ok(()),
        Err(error) => Err(error),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(()),
        Ok(_) => Err(FileError::new(Code::NOT_A_FILE, "a folder, a device, a socket or a pipe is there")),
    }
}

/// Whether the file that was opened still has its name: another writer may have finished it, and then it is the target.
fn is_at(place: &Place, hex: &str, temp: &Temp) -> Result<bool, FileError> {
    let own = fstat(&temp.file)?;
    match statat(place.dir(), temp_name(hex), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn temp_name(hex: &str) -> OsString {
    format!("{TEMP_PREFIX}{hex}{TEMP_SUFFIX}").into()
}

fn write_all(mut file: &std::fs::File, mut bytes: &[u8]) -> Result<(), FileError> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(FileError::new(Code::NO_SPACE, "the file takes no more bytes")),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn system_time(ns: i64) -> Option<SystemTime> {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { SystemTime::UNIX_EPOCH.checked_add(distance) } else { SystemTime::UNIX_EPOCH.checked_sub(distance) }
}

fn gone() -> FileError {
    FileError::new(Code::INTERNAL, "the unfinished file was given up before")
}
