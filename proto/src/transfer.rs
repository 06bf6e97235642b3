//! Files on their way: what the streams of bytes in and out begin and end with. Raw bytes lie between, so that
//! no piece is copied for a frame.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    file::FilePath,
    limits::TEXT_MAX,
    wire::{Invalid, Message, ensure},
};

/// Bytes of one file, from `offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSpec {
    pub path: FilePath,
    pub offset: u64,
    /// Bytes wanted; `None` is all up to the end.
    pub length: Option<u64>,
    /// Hash what lies before `offset` too: for a reader that has it from an earlier attempt.
    pub whole: bool,
}

/// Agent → master, before the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBegin {
    /// Of the whole file.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// Permission bits.
    pub mode: u32,
    pub version: Version,
    /// How many bytes follow: what was wanted, as far as the file goes.
    pub length: u64,
}

/// Agent → master, behind the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadEnd {
    /// The file was written to meanwhile: the bytes may be a mixture.
    pub changed: bool,
    /// BLAKE3 of the bytes that were sent; with `whole`, of the file from its beginning to their end.
    pub blake3: [u8; 32],
}

/// One state of one file: another one as soon as it was written to or another file stands in its place. Opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub [u8; 16]);

/// Bytes for one file, from `offset` of what was delivered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSpec {
    pub path: FilePath,
    pub offset: u64,
    /// Of the whole file.
    pub size: u64,
    /// BLAKE3 of the whole file: what was delivered before is found by it, and nothing else takes the file's place.
    /// `None` where the caller does not know it: then only the size is held to, and nothing can be gone on with.
    pub blake3: Option<[u8; 32]>,
    /// What names a content whose hash is not known, so that it can be delivered in pieces all the same.
    pub key: Option<[u8; 32]>,
    /// Permission bits; `None` keeps those of the file that is replaced, else 0644.
    pub mode: Option<u32>,
    /// Nanoseconds since 1970; `None` is the time of writing.
    pub modified_ns: Option<i64>,
    /// Only tell what is there: the stream ends after [`FromWrite::Ready`], and `offset` means nothing.
    pub ask: bool,
}

/// Agent → master on the stream of a write: `Ready` first, then one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWrite {
    /// This much is there; the bytes from here on are awaited.
    Ready { offset: u64 },
    /// The file stands in its place and is on the disk; `blake3` is of what arrived.
    Done { created: bool, blake3: [u8; 32] },
    /// The bytes ended early; this much is kept for the next attempt.
    Partial { offset: u64 },
    /// Nothing of the target changed. `offset` is what is kept for another attempt.
    Failed { code: Code, message: String, offset: u64 },
}

impl ReadSpec {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.path.check()
    }
}

impl WriteSpec {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.path.check()?;
        ensure(self.offset <= self.size, "the offset is beyond the end")
    }
}

impl Message for ReadBegin {
    fn check(&self) -> Result<(), Invalid> {
        ensure(self.length <= self.size, "more bytes than the file has")
    }
}

impl Message for ReadEnd {}

impl Message for FromWrite {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Failed { message, .. } => ensure(message.len() <= TEXT_MAX, "message too long"),
            Self::Ready { .. } | Self::Done { .. } | Self::Partial { .. } => Ok(()),
        }
    }
}
