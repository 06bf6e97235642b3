//! Files on an agent: typed operations, and the streams of bytes in and out. Paths are bytes: a name need not be text.

use serde::{Deserialize, Serialize};

use crate::{
    limits::PATH_MAX,
    wire::{self, Invalid, Message, ensure},
};

/// An absolute path on the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilePath(#[serde(with = "wire::bytes")] pub Vec<u8>);

/// One operation. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    Stat { path: FilePath, follow: bool },
}

/// Bytes of one file, from `offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSpec {
    pub path: FilePath,
    pub offset: u64,
    /// Bytes wanted; `None` is all up to the end.
    pub length: Option<u64>,
}

/// Bytes for one file, from `offset` of what was delivered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSpec {
    pub path: FilePath,
    pub offset: u64,
    /// Of the whole file.
    pub size: u64,
    /// BLAKE3 of the whole file: what was delivered before is found by it, and nothing else takes the file's place.
    pub blake3: [u8; 32],
    /// Permission bits; `None` keeps those of the file that is replaced, else 0644.
    pub mode: Option<u32>,
    /// Nanoseconds since 1970; `None` is the time of writing.
    pub modified_ns: Option<i64>,
}

impl FilePath {
    pub fn check(&self) -> Result<(), Invalid> {
        ensure(!self.0.is_empty() && self.0.len() <= PATH_MAX, "length of a path out of range")?;
        ensure(self.0[0] == b'/', "a path begins with /")?;
        ensure(!self.0.contains(&0), "a path holds a NUL byte")
    }
}

impl Message for FileRequest {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Stat { path, .. } => path.check(),
        }
    }
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
