//! One command line on the agent: what to run, and the frames that follow `Opened`.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    id::ExecId,
    limits::{EXEC_ITEMS_MAX, EXEC_PIECE_MAX},
    wire::{self, Invalid, Message, at_most, ensure},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    pub program: Program,
    /// Working directory; `None` is the policy user's home.
    pub cwd: Option<String>,
    /// Added to the agent's minimal environment, where its policy allows the names.
    #[serde(deserialize_with = "at_most::<EXEC_ITEMS_MAX, _, _>")]
    pub env: Vec<(String, String)>,
    /// 0 is none.
    pub timeout_ms: u64,
    /// Whether [`ToExec::Stdin`] will follow; otherwise the program reads an empty input.
    pub stdin: bool,
    /// Stdout and stderr together, bytes; 0 is unlimited. What is beyond is dropped and flagged.
    pub output_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    Argv(#[serde(deserialize_with = "at_most::<EXEC_ITEMS_MAX, _, _>")] Vec<String>),
    /// Handed to `/bin/sh -c`, where the policy allows it.
    Shell(String),
}

/// Where to go on with an exec that runs, or ended a while ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttach {
    pub exec: ExecId,
    /// Bytes of output, stdout and stderr together in the order of delivery, that the caller has.
    pub offset: u64,
}

/// Master → agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToExec {
    Stdin(#[serde(with = "wire::bytes")] Vec<u8>),
    StdinEnd,
    Cancel,
    /// Output up to this byte has been taken and need not be kept.
    Ack {
        offset: u64,
    },
}

/// Agent → master. `Started` first; `Ended` last, then the stream finishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromExec {
    Started {
        pid: u32,
    },
    Stdout(#[serde(with = "wire::bytes")] Vec<u8>),
    Stderr(#[serde(with = "wire::bytes")] Vec<u8>),
    Ended(Outcome),
    /// First on a stream that attached: output begins at this byte.
    Attached {
        pid: u32,
        offset: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: End,
    /// True if output beyond `output_max` was dropped.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Exited(i32),
    Signalled(i32),
    /// Killed by the agent: `TIMED_OUT`, `CANCELLED` or `UNREAD`.
    Killed(Code),
}

impl ExecSpec {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.program.check()?;
        check_env(&self.env)?;
        ensure(self.cwd.as_deref().is_none_or(clean), "the working directory holds a NUL byte")
    }
}

impl Program {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Argv(argv) => {
                ensure(!argv.is_empty() && !argv[0].is_empty(), "argv is empty")?;
                ensure(argv.len() <= EXEC_ITEMS_MAX, "too many arguments")?;
                ensure(argv.iter().all(|argument| clean(argument)), "an argument holds a NUL byte")
            }
            Self::Shell(line) => ensure(!line.is_empty() && clean(line), "the shell line is empty or holds a NUL byte"),
        }
    }
}

pub(crate) fn check_env(env: &[(String, String)]) -> Result<(), Invalid> {
    ensure(env.len() <= EXEC_ITEMS_MAX, "too many variables")?;
    let named =
        |(name, value): &(String, String)| !name.is_empty() && !name.contains('=') && clean(name) && clean(value);
    ensure(env.iter().all(named), "a variable's name is empty or holds '=' or NUL")
}

fn clean(text: &str) -> bool {
    !text.contains('\0')
}

impl Message for ToExec {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Stdin(piece) => ensure(piece.len() <= EXEC_PIECE_MAX, "piece too large"),
            Self::StdinEnd | Self::Cancel | Self::Ack { .. } => Ok(()),
        }
    }
}

impl Message for FromExec {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Stdout(piece) | Self::Stderr(piece) => ensure(piece.len() <= EXEC_PIECE_MAX, "piece too large"),
            Self::Started { .. } | Self::Ended(_) | Self::Attached { .. } => Ok(()),
        }
    }
}
