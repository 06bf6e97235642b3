//! How a session ended, in words and numbers that rows, events and callers share.

use proto::{code::Code, exec::End};

/// A word, and the exit code or the signal where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `exited`, `signalled`, or that of a code.
    pub reason: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl From<Code> for Ended {
    fn from(code: Code) -> Self {
        Self { reason: code.to_string(), code: None, signal: None }
    }
}

impl From<&End> for Ended {
    fn from(end: &End) -> Self {
        match end {
            End::Exited(code) => Self { reason: "exited".into(), code: Some(*code), signal: None },
            End::Signalled(signal) => Self { reason: "signalled".into(), code: None, signal: Some(*signal) },
            End::Killed(code) => (*code).into(),
        }
    }
}
