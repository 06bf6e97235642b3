//! Shell sessions: a terminal on the agent that outlives the stream it was opened on. Whoever comes back names the session
//! and the byte of output where it wants to go on.

use serde::{Deserialize, Serialize};

use crate::{
    exec::{End, Program},
    id::ShellId,
    limits::{EXEC_ITEMS_MAX, EXEC_PIECE_MAX, TERM_MAX},
    wire::{self, Invalid, Message, at_most, ensure},
};

/// What to open. The session's id is the request id of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellSpec {
    /// `None` is the login shell of the policy's user; anything else is judged as an exec is.
    pub program: Option<Program>,
    pub size: Size,
    /// `TERM` of the caller's terminal.
    pub term: String,
    /// Working directory; `None` is the user's home.
    pub cwd: Option<String>,
    /// Added to the agent's minimal environment, where its policy allows the names.
    #[serde(deserialize_with = "at_most::<EXEC_ITEMS_MAX, _, _>")]
    pub env: Vec<(String, String)>,
    /// Ends when nothing was typed for this long; 0 is never.
    pub idle_ms: u64,
}

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// Where to go on in a session that runs, or ended a while ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellAttach {
    pub session: ShellId,
    /// Bytes of output that the caller has.
    pub offset: u64,
}

/// Master → agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShell {
    Input(#[serde(with = "wire::bytes")] Vec<u8>),
    Resize(Size),
    /// Output up to this byte has been taken and need not be kept.
    Ack {
        offset: u64,
    },
    /// End the session: hang up, then kill.
    Close,
}

/// Agent → master. `Attached` first; `Ended` last, then the stream finishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShell {
    /// Output begins at `offset`. Between it and what was asked for, `lost` bytes are gone. `input` bytes have been typed
    /// so far: whoever has more on its way goes on from there.
    Attached {
        pid: u32,
        offset: u64,
        lost: u64,
        input: u64,
        size: Size,
    },
    Output(#[serde(with = "wire::bytes")] Vec<u8>),
    /// So many bytes were dropped here, because nobody took them.
    Lost {
        bytes: u64,
    },
    Ended(End),
    /// The program has been handed this many bytes of input, counted over the whole session. At most
    /// `SHELL_INPUT_WINDOW` bytes more may be sent.
    Taken {
        input: u64,
    },
}

impl Size {
    /// Neither 0×0 nor what no screen has: programs allocate by it.
    pub fn check(self) -> Result<(), Invalid> {
        let sane = |n: u16| (1..=crate::limits::TERMINAL_SIDE_MAX).contains(&n);
        ensure(sane(self.cols) && sane(self.rows), "a terminal has 1 to 2000 columns and rows")
    }
}

impl ShellSpec {
    /// Checks shape only: whether it may run is the policy's question.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(program) = &self.program {
            program.check()?;
        }
        self.size.check()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        ensure(self.term.len() <= TERM_MAX && self.term.chars().all(plain), "not the name of a terminal")?;
        crate::exec::check_env(&self.env)?;
        ensure(self.cwd.as_ref().is_none_or(|cwd| !cwd.contains('\0')), "the working directory holds a NUL byte")
    }
}

impl Message for ToShell {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Input(piece) => ensure(piece.len() <= EXEC_PIECE_MAX, "piece too large"),
            Self::Resize(size) => size.check(),
            Self::Ack { .. } | Self::Close => Ok(()),
        }
    }
}

impl Message for FromShell {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Output(piece) => ensure(piece.len() <= EXEC_PIECE_MAX, "piece too large"),
            Self::Attached { .. } | Self::Lost { .. } | Self::Ended(_) | Self::Taken { .. } => Ok(()),
        }
    }
}
