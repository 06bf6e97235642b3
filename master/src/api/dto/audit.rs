//! The audit trail as the API shows it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Time;

/// Who did what, on which agent, from where, with which result.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Its place in the chain, from 1, without gaps.
    pub seq: u64,
    pub at: Time,
    /// `token:<id>`, `operator:<id>`, `agent:<id>`, `local` (somebody on the master's host) or `master`.
    pub actor: String,
    /// Its name, where it still has one.
    pub actor_name: Option<String>,
    /// A dotted word such as `agent.suspend` or `tunnel.open`.
    pub action: String,
    pub agent_id: Option<String>,
    /// The id of what it was done to, where that is not the agent.
    pub object: Option<String>,
    /// The address it came from.
    pub source: Option<String>,
    /// `ok`, or the word of a code.
    pub result: String,
    /// More about it: an object whose fields depend on `action`, or null.
    #[schema(value_type = Option<Object>)]
    pub detail: Value,
    /// Hex SHA-256 over the row before it and this one; docs/API.md says how.
    pub hash: String,
}

/// What verifying the chain found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdict {
    /// Whether every row from `first` to `last` continues the one before it.
    pub whole: bool,
    /// The oldest row that is kept; null where the chain is broken.
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// Of the last row. Noted elsewhere, it shows later that nothing up to that row was changed since.
    pub hash: Option<String>,
    /// The first row that does not continue the chain.
    pub broken: Option<AuditFault>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditFault {
    pub seq: u64,
    /// What is wrong with it, for people.
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditFormat {
    /// JSON Lines of `seq`, `previous`, `hash` and `body`: what it takes to verify the chain elsewhere.
    Jsonl,
    /// For spreadsheets.
    Csv,
}

/// Which rows. Each narrows further.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Items per page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[A-Za-z0-9_-]{1,256}$")]
    pub cursor: Option<String>,
    /// Rows behind this `seq`, oldest first, in place of pages; read on with the `seq` of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 9007199254740991u64)]
    pub after: Option<u64>,
    /// About this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub agent: Option<String>,
    /// By `token:<id>`, `operator:<id>`, `agent:<id>`, `local` or `master`; a kind of them (`token`); or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 200)]
    pub actor: Option<String>,
    /// An action, or the first word of several: `tunnel.open`, `tunnel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[a-z0-9_.-]{1,64}$")]
    pub action: Option<String>,
    /// `ok`, the word of a code, or `!ok` for all that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^(!ok|[a-z0-9_]{1,64})$")]
    pub result: Option<String>,
    /// At or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub since: Option<String>,
    /// Before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub until: Option<String>,
}

/// Which rows, and as what.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditExportQuery {
    /// JSON Lines without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub format: Option<AuditFormat>,
    /// About this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub agent: Option<String>,
    /// By whom, as in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 200)]
    pub actor: Option<String>,
    /// An action, or the first word of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[a-z0-9_.-]{1,64}$")]
    pub action: Option<String>,
    /// `ok`, the word of a code, or `!ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^(!ok|[a-z0-9_]{1,64})$")]
    pub result: Option<String>,
    /// At or after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub since: Option<String>,
    /// Before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub until: Option<String>,
}

/// One line of an export.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    pub seq: u64,
    /// The hash of the row before it.
    pub previous: String,
    /// Hex SHA-256 over `previous`, a newline, and `body`.
    pub hash: String,
    /// The row's JSON as the very text that was hashed.
    pub body: String,
}
