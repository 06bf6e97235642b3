//! What an agent is in the store, and how a row becomes one.

use proto::id::AgentId;
use sqlx::any::AnyRow;

use crate::store::{
    Sha256, StoreError,
    labels::{Labels, Selector},
    sql::Columns,
    words,
};

words! {
    /// Registration status. Never mixed with presence.
    AgentStatus {
        /// Registered, not yet seen.
        Unknown = "unknown",
        Active = "active",
        Suspended = "suspended",
    }
}

words! {
    ConnectionType {
        /// Through its line.
        Tunnel = "tunnel",
        /// Reached directly; comes later.
        Standard = "standard",
    }
}

/// One registered agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub id: AgentId,
    pub status: AgentStatus,
    /// The integer by which a panel knows it; unique.
    pub external_id: Option<i64>,
    pub labels: Labels,
    pub created_at_ms: i64,
    /// SHA-256 of the public key on record; `None` before enrolment and after a new secret was used by nobody.
    pub key_sha256: Option<Sha256>,
    /// Counts issued certificates.
    pub generation: u64,
    pub certificate_not_after_ms: Option<i64>,
    /// When the unused enrolment secret runs out; `None` without one.
    pub secret_expires_at_ms: Option<i64>,
    pub connection_type: ConnectionType,
    pub connected_at_ms: Option<i64>,
    pub last_seen_ms: Option<i64>,
    pub disconnected_at_ms: Option<i64>,
    /// The code word of why the last line ended; `None` while the last thing known is that it connected.
    pub disconnect_reason: Option<String>,
    pub carrier: Option<String>,
    pub agent_version: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub hostname: Option<String>,
    /// The effective policy as the agent told it, TOML text.
    pub policy: Option<String>,
}

/// A new agent and its enrolment secret.
#[derive(Debug, Clone)]
pub struct NewAgent {
    pub id: AgentId,
    pub external_id: Option<i64>,
    pub labels: Labels,
    pub secret: NewSecret,
    pub now_ms: i64,
}

/// An enrolment secret: only its hash comes here.
#[derive(Debug, Clone, Copy)]
pub struct NewSecret {
    pub sha256: Sha256,
    pub expires_at_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AddAgentError {
    #[error("an agent with this id exists already")]
    Exists,
    #[error("another agent has this external_id")]
    ExternalIdTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    pub labels: Option<Labels>,
    /// `Some(None)` takes the external id away.
    pub external_id: Option<Option<i64>>,
    /// `Active` resumes: an agent never seen becomes `unknown` again.
    pub status: Option<AgentStatus>,
}

#[derive(Debug, thiserror::Error)]
pub enum PatchAgentError {
    #[error("no such agent")]
    NotFound,
    #[error("another agent has this external_id")]
    ExternalIdTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which agents a list shows.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// The caller's scope and its question, joined by [`Selector::and`].
    pub selector: Selector,
    pub status: Option<AgentStatus>,
    /// Part of the id or hostname, any case.
    pub search: Option<String>,
}

/// What is checked at every Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub status: AgentStatus,
    pub key_sha256: Option<Sha256>,
    /// Offered in its place, and not used yet.
    pub next_key_sha256: Option<Sha256>,
    pub generation: u64,
}

/// What an agent told of itself in Hello.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub carrier: String,
    pub agent_version: String,
    pub os: String,
    pub arch: String,
    pub hostname: String,
}

pub(super) fn identity(row: &AnyRow) -> Result<Identity, StoreError> {
    let columns = Columns(row);
    let (status, key_sha256) = (columns.parsed("status")?, columns.hash_opt("key_sha256")?);
    let next_key_sha256 = columns.hash_opt("next_key_sha256")?;
    Ok(Identity { status, key_sha256, next_key_sha256, generation: columns.unsigned("generation")? })
}

pub(super) fn agent(row: &AnyRow) -> Result<Agent, StoreError> {
    let columns = Columns(row);
    Ok(Agent {
        id: columns.parsed("id")?,
        status: columns.parsed("status")?,
        external_id: columns.int_opt("external_id")?,
        labels: Labels::default(),
        created_at_ms: columns.int("created_at_ms")?,
        key_sha256: columns.hash_opt("key_sha256")?,
        generation: columns.unsigned("generation")?,
        certificate_not_after_ms: columns.int_opt("certificate_not_after_ms")?,
        secret_expires_at_ms: columns.int_opt("secret_expires_at_ms")?,
        connection_type: columns.parsed("connection_type")?,
        connected_at_ms: columns.int_opt("connected_at_ms")?,
        last_seen_ms: columns.int_opt("last_seen_ms")?,
        disconnected_at_ms: columns.int_opt("disconnected_at_ms")?,
        disconnect_reason: columns.text_opt("disconnect_reason")?,
        carrier: columns.text_opt("carrier")?,
        agent_version: columns.text_opt("agent_version")?,
        os: columns.text_opt("os")?,
        arch: columns.text_opt("arch")?,
        hostname: columns.text_opt("hostname")?,
        policy: columns.text_opt("policy")?,
    })
}
