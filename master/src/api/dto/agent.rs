//! Agents as the API shows and takes them.

use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::{Invalid, Labels, Time, ensure};

const LABELS_MAX: usize = 32;
/// As `store::labels` checks it.
const LABEL_WORD: &str = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$";

/// Whether the master lets the agent in. Says nothing about whether it is connected: that is `presence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// Registered, not yet seen.
    Unknown,
    Active,
    Suspended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    Online,
    /// Holds no standing line and looked in lately: a request waits for its next visit, about `visits_every_s` at most.
    Reachable,
    Offline,
}

/// Whether the agent holds its line all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionMode {
    Persistent,
    /// It looks in now and then, and stays while something needs it.
    OnDemand,
}

/// How the master reaches the agent: `standard`, directly, comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionType {
    Tunnel,
    Standard,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// The name its operator chose.
    pub id: String,
    pub status: AgentStatus,
    pub presence: Presence,
    pub connection_type: ConnectionType,
    /// As the agent said when it was last here; `null` where it was not since the master started.
    pub connection_mode: Option<ConnectionMode>,
    /// How often an on-demand agent looks in, seconds.
    pub visits_every_s: Option<f64>,
    /// `udp` or `wss` while online.
    pub carrier: Option<String>,
    /// Since when it is on that carrier, through lines that came and went on it.
    pub carrier_since: Option<Time>,
    /// Why it changed to that carrier, where it did.
    pub carrier_reason: Option<CarrierReason>,
    /// Round trip of the line, milliseconds, while online.
    pub rtt_ms: Option<f64>,
    pub last_seen: Option<Time>,
    /// When the present line came up.
    pub connected_at: Option<Time>,
    /// Why the last line ended: a code word such as `heartbeat_lost`.
    pub disconnect_reason: Option<String>,
    pub labels: Labels,
    /// The id the hosting panel knows this agent by.
    pub external_id: Option<i64>,
    pub stats: Option<Stats>,
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub agent_version: Option<String>,
    /// The effective policy as the agent told it: TOML.
    pub policy: Option<String>,
    pub created_at: Time,
}

/// What the agent says about its carrier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CarrierReason {
    /// `carrier_silent`: UDP does not get through. `carrier_broken`: it loses too much. `carrier_back`: it gets through again.
    pub code: String,
    pub message: String,
}

/// The last sample the agent sent with a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Whole machine, 0–100.
    pub cpu_percent: f32,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub swap_used_bytes: u64,
    pub swap_total_bytes: u64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Vec<f32>,
    pub uptime_s: u64,
    pub processes: u32,
    pub disks: Vec<Disk>,
    pub networks: Vec<Network>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    pub mount: String,
    pub used_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    pub interface: String,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl From<&proto::stats::Stats> for Stats {
    fn from(stats: &proto::stats::Stats) -> Self {
        let disks = stats.disks.iter().map(|disk| Disk {
            mount: disk.mount.clone(),
            used_bytes: disk.used_bytes,
            total_bytes: disk.total_bytes,
        });
        let networks = stats.networks.iter().map(|network| Network {
            interface: network.interface.clone(),
            received_bytes: network.received_bytes,
            sent_bytes: network.sent_bytes,
        });
        Self {
            cpu_percent: stats.cpu_percent,
            memory_used_bytes: stats.memory_used_bytes,
            memory_total_bytes: stats.memory_total_bytes,
            swap_used_bytes: stats.swap_used_bytes,
            swap_total_bytes: stats.swap_total_bytes,
            load: stats.load.to_vec(),
            uptime_s: stats.uptime_s,
            processes: stats.processes,
            disks: disks.collect(),
            networks: networks.collect(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", min_length = 1, max_length = 63)]
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LabelsSchema>)]
    pub labels: Option<Labels>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub external_id: Option<i64>,
}

/// The schema of [`Labels`] with its bounds, which a plain map cannot express.
pub struct LabelsSchema;

impl utoipa::PartialSchema for LabelsSchema {
    fn schema() -> RefOr<Schema> {
        let text = |pattern: &str, max: usize| {
            ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).max_length(Some(max))
        };
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Labels: name to value."))
            .property_names(Some(text(LABEL_WORD, 63).build()))
            .additional_properties(Some(text(LABEL_WORD, 63)))
            .max_properties(Some(LABELS_MAX))
            .into()
    }
}

impl ToSchema for LabelsSchema {}

/// What to change; what is absent stays. `null` for `external_id` removes it.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    /// `suspended` cuts the agent off at once; `active` lets it in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WantedStatus>,
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LabelsSchema>)]
    pub labels: Option<Labels>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    pub external_id: Option<Option<i64>>,
}

/// Tells `null` from absent.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WantedStatus {
    Active,
    Suspended,
}

/// What an agent needs to enrol. Shown once: the master keeps only a hash of the secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Credentials {
    #[serde(flatten)]
    pub agent: Agent,
    pub secret: String,
    /// Address, pin, id and secret in one pasteable text.
    pub join_token: String,
    /// Anchor of the master's private CA: `sha256:` and 64 hex digits.
    pub pin: String,
    pub master_url: String,
    /// Lines for the agent's `.env`, ready to paste.
    pub env: String,
    /// The secret can be used until then.
    pub secret_expires_at: Time,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AgentFilter {
    /// Items per page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[A-Za-z0-9_-]{1,256}$")]
    pub cursor: Option<String>,
    /// Labels that must match: `site=berlin,role=fw`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(
        max_length = 1024,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(,[A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62}){0,7})?$"
    )]
    pub selector: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub status: Option<AgentStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub presence: Option<Presence>,
    /// Part of the id or host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(max_length = 63)]
    pub q: Option<String>,
}

/// An external id is the panel's own row number.
pub fn check_external_id(id: i64) -> Result<(), Invalid> {
    ensure(id >= 0, "external_id", "must not be negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_null_from_absent() {
        let absent: AgentChange = serde_json::from_str("{}").unwrap();
        let null: AgentChange = serde_json::from_str(r#"{"external_id":null}"#).unwrap();
        assert_eq!((absent.external_id, null.external_id), (None, Some(None)));
        assert!(serde_json::from_str::<AgentChange>(r#"{"name":"x"}"#).is_err());
    }
}
