//! One operation on files of an agent: the request in the header, and the frames that answer it. Paths and names are bytes:
//! they need not be text. Content goes through `transfer`.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    limits::{FILE_ITEMS_MAX, FILE_LIST_MAX, FILE_SOURCES_MAX, PATH_MAX, TEXT_MAX},
    wire::{self, Invalid, Message, at_most, ensure},
};

/// An absolute path on the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilePath(#[serde(with = "wire::bytes")] pub Vec<u8>);

/// A name, a path below a folder, or what a link says: bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileName(#[serde(with = "wire::bytes")] pub Vec<u8>);

/// One operation. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// One [`FromFile::Entries`] of one. `follow` false tells of a link itself.
    Stat {
        path: FilePath,
        follow: bool,
    },
    /// What is in a folder, by name in the order of bytes, from the first behind `after`.
    List {
        path: FilePath,
        after: FileName,
        limit: u32,
    },
    /// Everything below a folder, in no order but that a folder comes before what is in it. Links are not followed.
    Walk {
        path: FilePath,
    },
    /// One [`FromFile::Type`].
    Type {
        path: FilePath,
    },
    Mkdir {
        path: FilePath,
        parents: bool,
        mode: Option<u32>,
    },
    /// Never follows a link.
    Remove {
        path: FilePath,
        recursive: bool,
    },
    Rename {
        from: FilePath,
        to: FilePath,
        replace: bool,
    },
    Copy {
        from: FilePath,
        to: FilePath,
        recursive: bool,
        replace: bool,
    },
    /// Permission bits and the sticky bit; setuid and setgid are refused.
    Chmod {
        path: FilePath,
        mode: u32,
    },
    /// By name or number.
    Chown {
        path: FilePath,
        user: Option<String>,
        group: Option<String>,
        follow: bool,
    },
    /// Makes a link at `path` that says `target`.
    Symlink {
        path: FilePath,
        target: FileName,
    },
    /// One [`FromFile::Target`].
    ReadLink {
        path: FilePath,
    },
    /// Sets the time of the last change; makes an empty file where none is.
    Touch {
        path: FilePath,
        modified_ns: Option<i64>,
    },
    /// One [`FromFile::Hash`].
    Checksum {
        path: FilePath,
        algorithm: HashAlgorithm,
    },
    /// In `Done`: how many files and folders, and the bytes they take on the disk.
    DiskUse {
        path: FilePath,
    },
    /// What lies below `path` and whose name fits a pattern with `*`, `?` and `[…]`.
    Search {
        path: FilePath,
        pattern: String,
        limit: u32,
    },
    /// Lines that fit a regular expression, in one file or in all below a folder.
    Grep {
        path: FilePath,
        pattern: String,
        ignore_case: bool,
        limit: u32,
    },
    /// Makes the archive `to`. For gzip there is one source, a file.
    Pack {
        #[serde(deserialize_with = "at_most::<FILE_SOURCES_MAX, _, _>")]
        from: Vec<FilePath>,
        to: FilePath,
        format: ArchiveFormat,
        replace: bool,
    },
    /// Extracts into the folder `to`, which is made where it is missing; for gzip `to` is the file.
    Unpack {
        from: FilePath,
        to: FilePath,
        format: ArchiveFormat,
        replace: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashAlgorithm {
    Blake3,
    Sha256,
    Sha512,
    Md5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveFormat {
    Zip,
    Tar,
    TarGzip,
    Gzip,
}

/// Agent → master. `Done` or `Failed` last, then the stream finishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromFile {
    /// None as a sign of life.
    Entries(#[serde(deserialize_with = "at_most::<FILE_ITEMS_MAX, _, _>")] Vec<Entry>),
    Lines(#[serde(deserialize_with = "at_most::<FILE_ITEMS_MAX, _, _>")] Vec<GrepLine>),
    Type {
        kind: FileKind,
        mime: String,
    },
    Hash(#[serde(with = "wire::bytes")] Vec<u8>),
    Target(FileName),
    Done(FileDone),
    Failed {
        code: Code,
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    Device,
}

/// One thing in a folder, or below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: FileName,
    pub kind: FileKind,
    /// Bytes of content.
    pub size: u64,
    /// Permission bits, setuid, setgid and sticky among them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Where the agent's system has a name for it.
    pub user: Option<String>,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// What a link says.
    pub target: Option<FileName>,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrepLine {
    /// Relative to where the search began; empty if that is the file itself.
    pub name: FileName,
    /// From 1.
    pub number: u64,
    /// Without its end, cut where it is too long.
    #[serde(with = "wire::bytes")]
    pub text: Vec<u8>,
}

/// How an operation ended that did not fail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDone {
    /// Files and folders it was done to.
    pub files: u64,
    /// What they hold, or as the request says.
    pub bytes: u64,
    /// What could not be read, or is none of what was asked for.
    pub skipped: u64,
    /// True if there is more than was asked for.
    pub more: bool,
}

impl FilePath {
    pub fn check(&self) -> Result<(), Invalid> {
        ensure(!self.0.is_empty() && self.0.len() <= PATH_MAX, "length of a path out of range")?;
        ensure(self.0[0] == b'/', "a path begins with /")?;
        ensure(!self.0.contains(&0), "a path holds a NUL byte")
    }
}

impl FileName {
    fn check(&self) -> Result<(), Invalid> {
        ensure(self.0.len() <= PATH_MAX && !self.0.contains(&0), "a name is too long or holds a NUL byte")
    }
}

impl FileRequest {
    /// Whether it changes anything: then it is done at most once, and needs more than the right to read.
    pub fn changes(&self) -> bool {
        match self {
            Self::Stat { .. }
            | Self::List { .. }
            | Self::Walk { .. }
            | Self::Type { .. }
            | Self::ReadLink { .. }
            | Self::Checksum { .. }
            | Self::DiskUse { .. }
            | Self::Search { .. }
            | Self::Grep { .. } => false,
            Self::Mkdir { .. }
            | Self::Remove { .. }
            | Self::Rename { .. }
            | Self::Copy { .. }
            | Self::Chmod { .. }
            | Self::Chown { .. }
            | Self::Symlink { .. }
            | Self::Touch { .. }
            | Self::Pack { .. }
            | Self::Unpack { .. } => true,
        }
    }
}

impl Message for FileRequest {
    fn check(&self) -> Result<(), Invalid> {
        let counted = |limit: u32| ensure((1..=FILE_LIST_MAX).contains(&limit), "limit out of range");
        let text = |text: &str| ensure(text.len() <= TEXT_MAX && !text.contains('\0'), "text too long or with NUL");
        match self {
            Self::Stat { path, .. }
            | Self::Walk { path }
            | Self::Type { path }
            | Self::Mkdir { path, .. }
            | Self::Remove { path, .. }
            | Self::Chmod { path, .. }
            | Self::ReadLink { path }
            | Self::Touch { path, .. }
            | Self::Checksum { path, .. }
            | Self::DiskUse { path } => path.check(),
            Self::List { path, after, limit } => path.check().and(after.check()).and(counted(*limit)),
            Self::Rename { from, to, .. } | Self::Copy { from, to, .. } | Self::Unpack { from, to, .. } => {
                from.check().and(to.check())
            }
            Self::Chown { path, user, group, .. } => {
                path.check()?;
                [user, group].into_iter().flatten().try_for_each(|name| text(name))
            }
            Self::Symlink { path, target } => {
                ensure(!target.0.is_empty(), "a link says something")?;
                path.check().and(target.check())
            }
            Self::Search { path, pattern, limit } | Self::Grep { path, pattern, limit, .. } => {
                path.check().and(text(pattern)).and(counted(*limit))
            }
            Self::Pack { from, to, format, .. } => {
                ensure((1..=FILE_SOURCES_MAX).contains(&from.len()), "number of sources out of range")?;
                ensure(*format != ArchiveFormat::Gzip || from.len() == 1, "gzip takes one file")?;
                to.check()?;
                from.iter().try_for_each(FilePath::check)
            }
        }
    }
}

impl Message for FromFile {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Entries(entries) => entries.iter().try_for_each(Entry::check),
            Self::Lines(lines) => lines.iter().try_for_each(|line| line.name.check()),
            Self::Target(target) => target.check(),
            Self::Hash(hash) => ensure(hash.len() <= 64, "hash too long"),
            Self::Type { mime, .. } => ensure(mime.len() <= TEXT_MAX, "type too long"),
            Self::Failed { message, .. } => ensure(message.len() <= TEXT_MAX, "message too long"),
            Self::Done(_) => Ok(()),
        }
    }
}

impl Entry {
    fn check(&self) -> Result<(), Invalid> {
        self.name.check()?;
        self.target.as_ref().map_or(Ok(()), FileName::check)?;
        ensure(self.user.as_ref().is_none_or(|name| name.len() <= TEXT_MAX), "the owner's name is too long")
    }
}
