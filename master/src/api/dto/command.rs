//! The command call, in the shapes of the original panel.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One typed command. `type` is `GET_STATS`, where `service` and `action` may be absent, or any other word with both.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandCall {
    /// The caller's id of this request; a repeated one is refused.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._:-]+$")]
    pub id: String,
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$", examples("COMMAND", "GET_STATS"))]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    pub action: Option<String>,
    /// Unix seconds; from 10¹² on, milliseconds. At most 30 s from the master's clock.
    #[schema(minimum = 0)]
    pub timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub payload: Option<Value>,
    /// How long the agent may work on it, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 600)]
    pub timeout_s: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommandStatus {
    Success,
    Error,
}

/// What came of it. A failure at the agent is `status: "error"`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CommandReply {
    #[serde(rename = "requestId")]
    pub request_id: String,
    pub status: CommandStatus,
    /// The action's answer; null on error.
    #[schema(value_type = Option<Value>)]
    pub data: Value,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// The same for programs: a code word such as `unknown_action`.
    pub code: Option<String>,
}
