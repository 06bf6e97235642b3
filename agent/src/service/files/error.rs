//! What an operation on files fails with. The one place where an error of the system becomes a numbered code.

use std::io;

use proto::code::Code;
use rustix::io::Errno;

/// A failure with its code, and a text for people that names no more than the caller named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    pub code: Code,
    pub message: String,
}

impl FileError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// With what it happened to in front.
    #[must_use]
    pub fn at(mut self, what: &std::path::Path) -> Self {
        self.message = format!("{}: {}", what.display(), self.message);
        self
    }
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        // A library that wraps one of ours hands it back.
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return own.clone();
        }
        let code = Errno::from_io_error(&error).map_or(Code::IO_FAILED, code_of);
        let message = if code == Code::IO_FAILED { error.to_string() } else { text_of(code, &error) };
        Self { code, message }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::other(error)
    }
}

fn code_of(errno: Errno) -> Code {
    match errno {
        Errno::NOENT => Code::NOT_FOUND,
        Errno::EXIST => Code::EXISTS,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Code::NO_ACCESS,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MLINK => Code::NO_SPACE,
        Errno::NOTEMPTY => Code::NOT_EMPTY,
        Errno::NOTDIR => Code::NOT_A_FOLDER,
        // A link where none was a moment ago, a pipe without a reader, a device without a driver, a source that waits.
        Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::AGAIN => Code::NOT_A_FILE,
        Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => Code::INVALID,
        Errno::XDEV => Code::INVALID,
        _ => Code::IO_FAILED,
    }
}

fn text_of(code: Code, error: &io::Error) -> String {
    match code {
        Code::NOT_FOUND => "no such file or folder".into(),
        Code::EXISTS => "something is there already".into(),
        Code::NOT_A_FILE => format!("not a plain file ({error})"),
        Code::NOT_A_FOLDER => "not a folder".into(),
        Code::NOT_EMPTY => "the folder is not empty".into(),
        Code::NO_SPACE => format!("no room for it ({error})"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_system_has_its_code() {
        for (errno, code) in [
            (Errno::NOENT, Code::NOT_FOUND),
            (Errno::NOSPC, Code::NO_SPACE),
            (Errno::DQUOT, Code::NO_SPACE),
            (Errno::FBIG, Code::NO_SPACE),
            (Errno::ACCESS, Code::NO_ACCESS),
            (Errno::ROFS, Code::NO_ACCESS),
            (Errno::LOOP, Code::NOT_A_FILE),
            (Errno::NAMETOOLONG, Code::INVALID),
            (Errno::IO, Code::IO_FAILED),
        ] {
            assert_eq!(FileError::from(errno).code, code, "{errno:?}");
        }
        let own = FileError::new(Code::TOO_LARGE, "own");
        assert_eq!(FileError::from(io::Error::from(own.clone())), own, "through a library and back");
    }
}
