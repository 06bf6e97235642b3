//! Shell sessions, and what is said on their WebSockets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Time;

/// What to open: the login shell of the policy's user, or `argv` or `shell` on a terminal.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShell {
    #[schema(minimum = 1, maximum = 2000)]
    pub cols: u16,
    #[schema(minimum = 1, maximum = 2000)]
    pub rows: u16,
    /// `TERM`; `xterm-256color` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9._+-]{1,64}$")]
    pub term: Option<String>,
    /// Program and arguments in place of the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1024)]
    pub argv: Option<Vec<String>>,
    /// A line for `/bin/sh -c` in place of the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub shell: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ends when nothing was typed for so many seconds; 0 is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 31536000)]
    pub idle_s: Option<u32>,
}

/// A shell session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Shell {
    pub id: String,
    pub agent_id: String,
    /// Who opened it, and who alone may type: `token:<id>` or `operator:<id>`.
    pub owner: String,
    /// Their name, where they still have one.
    pub owner_name: Option<String>,
    pub created_at: Time,
    pub ended_at: Option<Time>,
    /// `exited`, `signalled`, or why it was ended: `cancelled`, `idle`, `unattached`, `suspended`, `no_session`, …
    pub end_reason: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cols: u16,
    pub rows: u16,
    /// Who looks at it now.
    pub viewers: u32,
    /// False where its recording has a gap or could not be written.
    pub recorded: bool,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    #[param(minimum = 1, maximum = 1000)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only those that run, or only those that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttachQuery {
    /// Bytes of output the caller has; without it from the oldest that is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub mode: Option<AttachMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// Type as well; only the one who opened it may.
    #[default]
    Write,
    Watch,
}

/// A text message from the one who looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum FromViewer {
    Resize {
        cols: u16,
        rows: u16,
    },
    /// Everything up to this byte was shown.
    Ack {
        offset: u64,
    },
    /// End the session.
    Close,
}

/// A text message to the one who looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToViewer {
    /// The first message: output begins at `offset`; `lost` bytes before it are gone; up to `end` it is of earlier.
    Attached {
        offset: u64,
        lost: u64,
        end: u64,
        writer: bool,
        cols: u16,
        rows: u16,
    },
    /// So many bytes are gone; the next output begins at `offset`.
    Lost {
        bytes: u64,
        offset: u64,
    },
    /// Whether the agent's line is there: `lost` or `back`.
    Line {
        state: LineState,
    },
    Resized {
        cols: u16,
        rows: u16,
    },
    /// The last message. `code` or `signal` where the program ended by itself.
    Exit {
        reason: String,
        code: Option<i32>,
        signal: Option<i32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LineState {
    Lost,
    Back,
}
