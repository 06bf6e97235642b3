//! Enrolment keys and waiting machines as the API shows and takes them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Labels, Time, agent::LabelsSchema};

/// What a master may do on a machine, where its owner says yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    Shell,
    Exec,
    Files,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For people: whose machines these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub name: Option<String>,
    /// How many machines may enrol with it; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub uses: Option<u32>,
    /// Seconds until it expires; a day when absent, 90 days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 7776000)]
    pub ttl_s: Option<u32>,
    /// Given to each agent it makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LabelsSchema>)]
    pub labels: Option<Labels>,
    /// Each machine waits until an operator approves it.
    #[serde(default)]
    pub approval: bool,
    /// What the printed commands ask the machine's owner to allow beyond forwards and `system.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 3)]
    pub allow: Vec<Grant>,
    /// The printed commands install the agent as root: for administering the whole machine.
    #[serde(default)]
    pub as_root: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentKey {
    pub id: String,
    pub name: String,
    pub uses: u32,
    pub uses_left: u32,
    pub labels: Labels,
    pub approval: bool,
    pub allow: Vec<Grant>,
    pub as_root: bool,
    /// The actor: `token:ID` or `operator:ID`.
    pub created_by: String,
    pub created_at: Time,
    pub expires_at: Time,
    pub revoked_at: Option<Time>,
}

/// A key with its secret, shown once, and how to use it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    pub info: EnrolmentKey,
    /// To be pasted into `landline-agent enrol -` or `install --token-file -`.
    pub key: String,
    pub commands: Commands,
    pub platforms: Vec<Platform>,
}

/// One line for a machine's shell, each complete; they hold the key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Commands {
    /// With curl, which verifies the master before anything is taken.
    pub curl: String,
    /// With wget or fetch: the script's hash is compared before it runs.
    pub plain: String,
}

/// Whether this master can hand out the agent for a platform.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub available: bool,
    /// Where it is absent: the command that builds it and puts it in place.
    pub how: Option<String>,
}

/// A machine that waits for approval.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaitingAgent {
    pub id: String,
    /// The enrolment key it came with.
    pub key_id: String,
    /// The name it proposes.
    pub agent_id: String,
    pub labels: Labels,
    /// The address it came from.
    pub address: String,
    pub created_at: Time,
    /// Forgotten then, unless somebody decides.
    pub expires_at: Time,
}
