//! Operations on files: one shape for all requests, of which each operation takes its own members, and one for all answers.

use base64::{Engine, engine::general_purpose::STANDARD};
use proto::file::{ArchiveFormat, Entry, FileDone, FileKind, FileName, FilePath, GrepLine, HashAlgorithm};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Invalid, content::file_path, exec::Piece};

/// What to do. Members that the operation does not take are refused.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileCall {
    /// Absolute path on the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub path: Option<String>,
    /// The same as base64, for a path that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// More sources, for archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 256)]
    pub paths: Option<Vec<String>>,
    /// Where it goes: rename, copy, archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_base64: Option<String>,
    /// With everything below it: remove, copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Replace what is there already: rename, copy, archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<bool>,
    /// Make what is missing above it too: mkdir.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<bool>,
    /// Tell of, or change, what a link leads to: stat, chown. True unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Permission bits, octal: mkdir, chmod, write.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[0-7]{3,4}$", example = "644")]
    pub mode: Option<String>,
    /// Name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What a new link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_base64: Option<String>,
    /// Nanoseconds since 1970: touch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Names with `*`, `?` and `[…]` (search), or a regular expression (grep).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_case: Option<bool>,
    /// Most entries or lines; 1,000 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub limit: Option<u32>,
    /// List from behind this name: the last of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_base64: Option<String>,
    /// Text to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Bytes to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Where to read from, or where a chunk belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Bytes to read, at most 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1048576)]
    pub length: Option<u64>,
    /// Bytes of the whole file that comes in chunks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    #[default]
    Blake3,
    Sha256,
    Sha512,
    Md5,
}

/// What came of it; each operation fills its own members.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileAnswer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<FileEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<FileLine>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// What a link says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
    /// Content as text where it is UTF-8, else as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Piece>,
    /// Bytes of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the next chunk belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The file stands in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Files and folders it was done to.
    pub files: u64,
    /// Bytes they hold, or take on the disk.
    pub bytes: u64,
    /// What could not be read or is of no kind that can be carried.
    pub skipped: u64,
    /// There is more than was asked for.
    pub more: bool,
}

/// A name: text, or base64 where it is none.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Name {
    /// With what is no text replaced.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    Device,
}

/// One thing in a folder, or below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileEntry {
    #[serde(flatten)]
    pub name: Name,
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Permission bits, octal.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Nanoseconds since 1970.
    pub modified_ns: i64,
    /// What a link says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileLine {
    /// Relative to where the search began; empty if that is the file itself.
    #[serde(flatten)]
    pub name: Name,
    /// From 1.
    pub number: u64,
    /// What is no text is replaced.
    pub text: String,
}

/// One line of a tree. `done` or `failed` is the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TreeLine {
    Entry(FileEntry),
    Done(FileAnswer),
    Failed { code: String, message: String },
}

impl Name {
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(name) => Self { name, name_base64: None },
            Err(error) => {
                let bytes = error.into_bytes();
                let name = String::from_utf8_lossy(&bytes).into_owned();
                Self { name, name_base64: Some(STANDARD.encode(bytes)) }
            }
        }
    }

    /// `None` if what stands for base64 is none.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match &self.name_base64 {
            None => Some(self.name.clone().into_bytes()),
            Some(encoded) => STANDARD.decode(encoded).ok(),
        }
    }
}

impl From<Entry> for FileEntry {
    fn from(entry: Entry) -> Self {
        Self {
            name: Name::of(entry.name.0),
            kind: entry.kind.into(),
            size: entry.size,
            mode: format!("{:03o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user,
            modified_ns: entry.modified_ns,
            target: entry.target.map(|target| Name::of(target.0)),
        }
    }
}

impl From<FileKind> for Kind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::File,
            FileKind::Folder => Self::Folder,
            FileKind::Link => Self::Link,
            FileKind::Pipe => Self::Pipe,
            FileKind::Socket => Self::Socket,
            FileKind::Device => Self::Device,
        }
    }
}

impl From<GrepLine> for FileLine {
    fn from(line: GrepLine) -> Self {
        let text = String::from_utf8_lossy(&line.text).into_owned();
        Self { name: Name::of(line.name.0), number: line.number, text }
    }
}

impl From<Algorithm> for HashAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Blake3 => Self::Blake3,
            Algorithm::Sha256 => Self::Sha256,
            Algorithm::Sha512 => Self::Sha512,
            Algorithm::Md5 => Self::Md5,
        }
    }
}

impl From<HashAlgorithm> for Algorithm {
    fn from(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Blake3 => Self::Blake3,
            HashAlgorithm::Sha256 => Self::Sha256,
            HashAlgorithm::Sha512 => Self::Sha512,
            HashAlgorithm::Md5 => Self::Md5,
        }
    }
}

impl FileAnswer {
    pub(in crate::api) fn done(&mut self, done: &FileDone) {
        (self.files, self.bytes, self.skipped, self.more) = (done.files, done.bytes, done.skipped, done.more);
    }
}

impl FileCall {
    pub(in crate::api) fn take_path(&mut self) -> Result<FilePath, Invalid> {
        file_path(self.path.take(), self.path_base64.take())
    }

    pub(in crate::api) fn take_to(&mut self) -> Result<FilePath, Invalid> {
        file_path(self.to.take(), self.to_base64.take()).map_err(|error| Invalid { field: "to", ..error })
    }

    /// `path` and `paths` together: what goes into an archive.
    pub(in crate::api) fn take_sources(&mut self) -> Result<Vec<FilePath>, Invalid> {
        let more = self.paths.take().unwrap_or_default();
        let mut sources = if self.path.is_some() || self.path_base64.is_some() || more.is_empty() {
            vec![self.take_path()?]
        } else {
            Vec::new()
        };
        for path in more {
            sources.push(file_path(Some(path), None)?);
        }
        Ok(sources)
    }

    pub(in crate::api) fn take_mode(&mut self) -> Result<Option<u32>, Invalid> {
        let Some(text) = self.mode.take() else { return Ok(None) };
        let mode = u32::from_str_radix(&text, 8).ok().filter(|_| (3..=4).contains(&text.len()));
        let bad = || Invalid { field: "mode", problem: "three or four octal digits, e.g. 644".into() };
        mode.map(Some).ok_or_else(bad)
    }

    pub(in crate::api) fn take_target(&mut self) -> Result<FileName, Invalid> {
        name("target", self.target.take(), self.target_base64.take())?
            .filter(|target| !target.0.is_empty())
            .ok_or_else(|| Invalid { field: "target", problem: "say what the link shall say".into() })
    }

    pub(in crate::api) fn take_after(&mut self) -> Result<FileName, Invalid> {
        Ok(name("after", self.after.take(), self.after_base64.take())?.unwrap_or_default())
    }

    pub(in crate::api) fn take_content(&mut self) -> Result<Vec<u8>, Invalid> {
        let bytes = name("content", self.content.take(), self.content_base64.take())?;
        let bad = || Invalid { field: "content", problem: "give content or content_base64, one of the two".into() };
        bytes.map(|bytes| bytes.0).ok_or_else(bad)
    }
}

/// Bytes from their two spellings.
fn name(field: &'static str, text: Option<String>, encoded: Option<String>) -> Result<Option<FileName>, Invalid> {
    let bad = |problem: &str| Invalid { field, problem: problem.to_owned() };
    match (text, encoded) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(FileName(text.into_bytes()))),
        (None, Some(encoded)) => {
            let bytes = STANDARD.decode(encoded).map_err(|_| bad("not base64 with padding"))?;
            Ok(Some(FileName(bytes)))
        }
        (Some(_), Some(_)) => Err(bad("give it as text or as base64, not both")),
    }
}

/// The archive's format, by the word of the operation.
pub(in crate::api) fn format(operation: &str, gzip: bool) -> ArchiveFormat {
    match operation {
        "zip" | "unzip" => ArchiveFormat::Zip,
        "gzip" | "gunzip" => ArchiveFormat::Gzip,
        _ if gzip => ArchiveFormat::TarGzip,
        _ => ArchiveFormat::Tar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_come_back() {
        for bytes in [b"plain".to_vec(), b"\xff\n".to_vec(), Vec::new()] {
            let name = Name::of(bytes.clone());
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap().bytes(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn entries_keep_their_name_beside_the_rest() {
        let text = r#"{"name":"f","kind":"file","size":1,"mode":"644","uid":0,"gid":0,"modified_ns":5}"#;
        let entry: FileEntry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
    }
}
