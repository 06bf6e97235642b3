//! API tokens as the API shows and takes them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For people: whose token it is, and what for.
    #[schema(min_length = 1, max_length = 100, pattern = "^[ -~]+$")]
    pub name: String,
    /// What it may do; never more than its creator's.
    #[schema(min_items = 1, max_items = 32)]
    pub permissions: Vec<String>,
    /// Only agents with these labels: `site=berlin,role=fw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    pub selector: Option<String>,
    /// Seconds until it expires; 90 days when absent, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 7776000)]
    pub expires_in_s: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub permissions: Vec<String>,
    pub selector: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub last_used_at: Option<Time>,
}

/// A token with its secret, shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    pub secret: String,
}
