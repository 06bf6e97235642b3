//! Work streams: opened by the master with one [`Open`], answered with one [`OpenReply`], then the operation's own bytes.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    command::Command,
    exec::{ExecAttach, ExecSpec},
    file::FileRequest,
    id::RequestId,
    limits::{HOST_MAX, TEXT_MAX},
    shell::{ShellAttach, ShellSpec},
    transfer::{ReadSpec, WriteSpec},
    wire::{Invalid, Message, ensure},
};

/// The header of a work stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    pub request_id: RequestId,
    /// The master's clock when it sent this, Unix milliseconds.
    pub issued_at_ms: i64,
    /// W3C trace id of the call that caused it, or zeros.
    pub trace_id: [u8; 16],
    pub operation: Operation,
}

/// What the stream is for. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Dial `target` and carry raw bytes. The opener may send bytes right behind the header.
    Forward(Target),
    /// Run one command line; then frames of `exec`.
    Exec(ExecSpec),
    /// One typed service/action; the reply is one `command::Reply` frame.
    Command(Command),
    /// Go on reading an exec that was started on another stream; frames of `exec`.
    ExecAttach(ExecAttach),
    /// Open a terminal; then frames of `shell`.
    Shell(ShellSpec),
    /// Go on with a terminal that was opened on another stream; frames of `shell`.
    ShellAttach(ShellAttach),
    /// One operation on files; frames of `file`.
    File(FileRequest),
    /// Bytes of a file.
    FileRead(ReadSpec),
    /// Bytes for a file.
    FileWrite(WriteSpec),
}

/// The part of [`Open`] that every build can read: the operation as its number only. Tells an operation of a newer
/// peer from bytes that are no header at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenHead {
    pub request_id: RequestId,
    pub issued_at_ms: i64,
    pub trace_id: [u8; 16],
    pub operation: u32,
}

/// How many operations this build knows; their numbers are 0 up to this.
pub const OPERATIONS: u32 = 9;

/// Where a forward ends, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// A name or an address without brackets. Resolved once, on the agent.
    pub host: String,
    /// 1–65535.
    pub port: u16,
}

/// The agent's answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenReply {
    Opened(Opened),
    Refused(Refused),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// For a forward: the address that was dialled.
    pub peer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub code: Code,
    pub message: String,
}

impl Operation {
    /// The word used in policies, metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Exec(_) | Self::ExecAttach(_) => "exec",
            Self::Command(_) => "command",
            Self::Shell(_) | Self::ShellAttach(_) => "shell",
            Self::File(_) | Self::FileRead(_) | Self::FileWrite(_) => "files",
        }
    }
}

impl Message for Open {
    fn check(&self) -> Result<(), Invalid> {
        match &self.operation {
            Operation::Forward(target) => target.check(),
            Operation::Exec(spec) => spec.check(),
            Operation::Command(command) => command.check(),
            Operation::ExecAttach(_) | Operation::ShellAttach(_) => Ok(()),
            Operation::Shell(spec) => spec.check(),
            Operation::File(request) => request.check(),
            Operation::FileRead(spec) => spec.check(),
            Operation::FileWrite(spec) => spec.check(),
        }
    }
}

impl Target {
    /// Checks shape only: whether it may be dialled is the policy's question.
    pub fn check(&self) -> Result<(), Invalid> {
        ensure(self.port != 0, "port 0")?;
        ensure(!self.host.is_empty() && self.host.len() <= HOST_MAX, "length of the host out of range")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        ensure(self.host.chars().all(plain), "the host holds a character that no name or address has")
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Message for OpenHead {}

impl Message for OpenReply {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Opened(opened) => {
                ensure(opened.peer.as_ref().is_none_or(|peer| peer.len() <= HOST_MAX), "peer too long")
            }
            Self::Refused(refused) => ensure(refused.message.len() <= TEXT_MAX, "message too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn the_head_of_every_operation_can_be_read_and_their_number_is_right() {
        let path = crate::file::FilePath(b"/a".to_vec());
        let last =
            WriteSpec { path, offset: 0, size: 0, blake3: None, key: None, mode: None, modified_ns: None, ask: false };
        let open = Open {
            request_id: RequestId::random(),
            issued_at_ms: -5,
            trace_id: [7; 16],
            operation: Operation::FileWrite(last),
        };
        let head: OpenHead = wire::decode(&wire::encode(&open)).unwrap();
        assert_eq!((head.request_id, head.issued_at_ms), (open.request_id, -5));
        assert_eq!(head.operation, OPERATIONS - 1, "the last operation");
    }
}
