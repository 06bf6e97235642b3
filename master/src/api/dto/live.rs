//! What `/live` says, and the samples that charts begin with. Rows are as small as a list of thousands needs them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Labels, Time,
    agent::{Agent, AgentStatus, Presence, Stats},
    event::Event,
};
use crate::fleet;

/// One message of `/live`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum LiveMessage {
    /// Agents that are new or changed, whole.
    Rows { rows: Vec<FleetRow> },
    /// Every agent there is has been told; from now on only changes.
    Ready,
    /// What heartbeats said. Sent every 5 s at least, empty if need be: silence means a lost connection.
    Pulse { pulses: Vec<Pulse> },
    /// Agents that are gone, or that the caller may not see any more.
    Gone { ids: Vec<String> },
    /// As `/events` has them, if the caller may read those.
    Events { events: Vec<Event> },
}

/// An agent in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FleetRow {
    pub id: String,
    pub status: AgentStatus,
    pub presence: Presence,
    /// Online, but nothing was heard for a while.
    pub suspect: bool,
    pub carrier: Option<String>,
    pub rtt_ms: Option<f64>,
    pub last_seen: Option<Time>,
    pub disconnect_reason: Option<String>,
    pub labels: Labels,
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub agent_version: Option<String>,
    pub cpu_percent: Option<f32>,
    pub memory_percent: Option<f32>,
    pub load1: Option<f32>,
}

/// The part of a row that every heartbeat changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pulse {
    pub id: String,
    pub last_seen: Time,
    pub rtt_ms: f64,
    pub cpu_percent: Option<f32>,
    pub memory_percent: Option<f32>,
    pub load1: Option<f32>,
}

impl FleetRow {
    pub fn new(agent: Agent, suspect: bool) -> Self {
        let stats = agent.stats.as_ref();
        Self {
            suspect,
            cpu_percent: stats.map(|stats| stats.cpu_percent),
            memory_percent: stats.map(|stats| percent(stats.memory_used_bytes, stats.memory_total_bytes)),
            load1: stats.and_then(|stats: &Stats| stats.load.first().copied()),
            id: agent.id,
            status: agent.status,
            presence: agent.presence,
            carrier: agent.carrier,
            rtt_ms: agent.rtt_ms,
            last_seen: agent.last_seen,
            disconnect_reason: agent.disconnect_reason,
            labels: agent.labels,
            hostname: agent.hostname,
            os: agent.os,
            arch: agent.arch,
            agent_version: agent.agent_version,
        }
    }
}

/// Used of total; nothing of nothing is 0.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a percentage for people")]
pub fn percent(used: u64, total: u64) -> f32 {
    if total == 0 { 0.0 } else { (used as f64 / total as f64 * 100.0) as f32 }
}

/// The latest samples of an agent, oldest first: half an hour at most, and only since the master started.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Samples {
    pub items: Vec<Sample>,
}

/// What a chart needs of one heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    pub at: Time,
    pub cpu_percent: f32,
    pub memory_used_bytes: u64,
    pub load1: f32,
    /// All interfaces but loopback, since the machine started.
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl From<fleet::Sample> for Sample {
    fn from(sample: fleet::Sample) -> Self {
        Self {
            at: Time::from_ms(sample.at_ms),
            cpu_percent: sample.cpu_percent,
            memory_used_bytes: sample.memory_used_bytes,
            load1: sample.load1,
            received_bytes: sample.received_bytes,
            sent_bytes: sample.sent_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_of_nothing_are_zero() {
        assert!((percent(1, 4) - 25.0).abs() < f32::EPSILON);
        assert!(percent(0, 0).abs() < f32::EPSILON);
    }
}
