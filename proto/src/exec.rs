//! One command line on the agent: what to run, and the frames that follow `Opened`. The run belongs to the agent: it goes on
//! when a stream is lost, and whoever comes back names the exec and the byte of output where to go on.

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

/// Where to go on with an exec that runs, or ended a while ago. Its id is the request id of the stream that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAttach {
    pub exec: ExecId,
    /// Bytes of output, stdout and stderr together in the order of delivery, that the caller has: what comes begins
    /// there, and a stream that read before is superseded. `None` takes no output: to ask, to feed, to cancel.
    pub offset: Option<u64>,
}

/// Master → agent. Input on the stream that started it begins at its first byte, on one that attached at the byte that
/// [`Attached::stdin`] told; what the agent got from another stream meanwhile is left out. A clean end of this direction
/// says nothing about the program's input.
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

/// Agent → master. `Started` or `Attached` first; `Ended` last, then the stream finishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromExec {
    Started {
        pid: u32,
    },
    Stdout(#[serde(with = "wire::bytes")] Vec<u8>),
    Stderr(#[serde(with = "wire::bytes")] Vec<u8>),
    Ended(Outcome),
    /// First on a stream that attached.
    Attached(Attached),
    /// On a stream that fed input: the program has taken, or will never take, what lies before this byte.
    StdinTaken {
        offset: u64,
    },
}

/// How an exec stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub pid: u32,
    /// The first byte of output that is still kept.
    pub kept_from: u64,
    /// Bytes of output so far.
    pub output: u64,
    /// Bytes of input that arrived; the next piece goes on here.
    pub stdin: u64,
    /// Of these, the ones that the program has taken, or will never take.
    pub stdin_taken: u64,
    /// Whether more input may come: it was asked for, has not been ended, and the program still runs.
    pub stdin_open: bool,
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: End,
    /// True if output is missing: what was beyond `output_max`, or what a killed program left unread in its pipe.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Exited(i32),
    Signalled(i32),
    /// Killed by the agent: `TIMED_OUT`, `CANCELLED`, `UNREAD`, `SHUTDOWN`, or why the master lets the agent go.
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
            Self::Started { .. } | Self::Ended(_) | Self::Attached(_) | Self::StdinTaken { .. } => Ok(()),
        }
    }
}
