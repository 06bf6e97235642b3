//! Files on an agent: typed operations. Paths are bytes: a name need not be text.

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
