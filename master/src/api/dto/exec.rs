//! One command line on an agent, and the lines that stream back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Time, shell::LineState};

/// What to run: `argv` or `shell`, one of the two.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCall {
    /// Program and arguments, no shell between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1024)]
    pub argv: Option<Vec<String>>,
    /// A line for `/bin/sh -c`, where the agent's policy allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub shell: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Input as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Input as base64, for bytes that are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
    pub stdin_base64: Option<String>,
    /// More input comes by `PUT /execs/{id}/stdin`, and the program waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_open: bool,
    /// Killed after this many seconds; 0 is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 86400)]
    pub timeout_s: Option<u32>,
    /// Output kept, stdout and stderr together, bytes; the rest is dropped and flagged. 0 is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub output_max: Option<u64>,
}

/// One line of the stream. `exit` or `error` is the last.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ExecLine {
    Started {
        exec_id: String,
        pid: u32,
    },
    Stdout(Piece),
    Stderr(Piece),
    /// The agent's line was lost or is back. The run goes on, and its output without gap or repeat.
    Line {
        state: LineState,
    },
    Exit(Exit),
    /// The run could not be followed to its end: `code` and `message` say why.
    Error {
        code: String,
        message: String,
    },
}

/// An exec, as its master and, where it answers, its agent know it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Exec {
    pub id: String,
    pub agent_id: String,
    /// Who started it, and who alone may read its output and feed it: `token:<id>`.
    pub owner: String,
    /// What runs: `{"Argv": [...]}` or `{"Shell": "..."}`.
    #[schema(value_type = Object)]
    pub program: serde_json::Value,
    pub created_at: Time,
    /// Absent while it runs, as far as the master knows.
    pub ended_at: Option<Time>,
    /// `exited`, `signalled`, or why it was ended: `cancelled`, `timed_out`, `unread`, `suspended`, `outcome_unknown`, …
    pub end_reason: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// What the agent says of it now; absent where it does not answer or has forgotten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<ExecNow>,
}

/// How an exec stands on its agent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExecNow {
    pub pid: u32,
    /// The first byte of output that is still kept.
    pub kept_from: u64,
    /// Bytes of output so far.
    pub output: u64,
    /// Bytes of input that arrived; the next go on here.
    pub stdin: u64,
    /// Whether it takes more.
    pub stdin_open: bool,
}

/// Where to go on reading.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// Bytes of output that the caller has, stdout and stderr together; without it from the first that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Where input goes on.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InputQuery {
    /// Number of the body's first byte, counted over all input. What the agent has already is left out.
    pub offset: u64,
    /// Nothing follows: the program sees the end of its input.
    #[serde(default)]
    #[param(required = false)]
    pub end: bool,
}

/// Where input goes on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Fed {
    pub offset: u64,
}

/// Output: text where the bytes are UTF-8, else base64.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Piece {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// How it ended: exactly one of `code`, `signal` and `killed`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Killed by the agent: `timed_out`, `cancelled` or `unread`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<String>,
    /// Output beyond `output_max` was dropped.
    pub truncated: bool,
}

impl Piece {
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        use base64::Engine;
        match String::from_utf8(bytes) {
            Ok(text) => Self { data: Some(text), data_base64: None },
            Err(bytes) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes());
                Self { data: None, data_base64: Some(encoded) }
            }
        }
    }

    /// The bytes; `None` if they are neither text nor base64.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        use base64::Engine;
        match (self.data, self.data_base64) {
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(encoded)) => base64::engine::general_purpose::STANDARD.decode(encoded).ok(),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_back_byte_for_byte() {
        for bytes in [b"plain\n".to_vec(), vec![0xff, 0, 0xfe], "käse".into()] {
            assert_eq!(Piece::from_bytes(bytes.clone()).into_bytes(), Some(bytes));
        }
        let line = ExecLine::Stdout(Piece::from_bytes(b"hi".to_vec()));
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"type":"stdout","data":"hi"}"#);
    }
}
