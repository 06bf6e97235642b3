//! Events of the fleet and of one agent's timeline.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Time;

/// Something that happened. Ids grow; reading on from one misses nothing that is still kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its place in the stream, and the cursor to read on from.
    pub id: u64,
    pub at: Time,
    /// A word such as `agent.online` or `tunnel.active`.
    pub kind: String,
    pub agent_id: Option<String>,
    pub tunnel_id: Option<String>,
    /// The word of a code, where there is one.
    pub reason: Option<String>,
    /// More about it: an object whose fields depend on `kind`, or null.
    #[schema(value_type = Option<Object>)]
    pub detail: Value,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Begin behind this event; `Last-Event-ID` does the same. Without either the stream begins now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[0-9]{1,15}$")]
    pub cursor: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items per page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[A-Za-z0-9_-]{1,256}$")]
    pub cursor: Option<String>,
}
