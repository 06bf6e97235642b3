//! A typed command: service and action with a JSON payload in, JSON out. The JSON is text: its shape is the action's.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    limits::{COMMAND_JSON_MAX, TEXT_MAX},
    wire::{Invalid, Message, ensure},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// `[A-Za-z0-9_-]{1,64}`; the same for `action`.
    pub service: String,
    pub action: String,
    /// JSON text; empty for none.
    pub payload: String,
    pub timeout_ms: u32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// `data` is JSON text.
    Success {
        data: String,
    },
    Failure {
        code: Code,
        message: String,
    },
}

/// Whether `text` may name a service or an action. No dots or slashes: it also names a file in `actions.d/`.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl Command {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        ensure(is_name(&self.service) && is_name(&self.action), "service and action are 1 to 64 of A-Z a-z 0-9 _ -")?;
        ensure(self.payload.len() <= COMMAND_JSON_MAX, "payload too large")
    }
}

impl Message for Reply {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Success { data } => ensure(data.len() <= COMMAND_JSON_MAX, "data too large"),
            Self::Failure { message, .. } => ensure(message.len() <= TEXT_MAX, "message too long"),
        }
    }
}
