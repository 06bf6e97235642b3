//! What an enrolment key is in the store, and what comes of using one.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use proto::id::AgentId;
use sqlx::any::AnyRow;

use super::WaitingAgent;
use crate::store::{Sha256, StoreError, enrolments::IssueFailure, labels::Labels, sql::Columns};

/// One enrolment key. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentKey {
    /// Random.
    pub id: String,
    pub name: String,
    pub sha256: Sha256,
    pub uses: u32,
    pub uses_left: u32,
    /// Given to each agent it makes.
    pub labels: Labels,
    /// An operator says yes to each machine first.
    pub approval: bool,
    /// What the printed command lets the master do there; the owner has the last word.
    pub operations: Vec<String>,
    pub created_by: String,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
}

/// A machine that wants to be an agent.
#[derive(Debug, Clone, Copy)]
pub struct KeyAttempt<'a> {
    /// The name it proposes.
    pub name: &'a AgentId,
    pub secret_sha256: Sha256,
    /// SHA-256 of the public key in the request.
    pub key_sha256: Sha256,
    pub address: IpAddr,
    pub now_ms: i64,
    /// How long the same key and secret get the same certificate again.
    pub idempotent: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOutcome {
    Issued {
        certificate_der: Vec<u8>,
        repeated: bool,
    },
    /// On the list of those an operator has to approve. `new` the first time.
    Waits {
        row: WaitingAgent,
        new: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Unknown, used up, expired or revoked: told apart for nobody.
    #[error("unknown, used up, expired or revoked enrolment key")]
    Refused,
    /// Only ever told to someone with a good key.
    #[error("an agent of this name exists already")]
    NameTaken,
    #[error("an operator rejected this machine")]
    Rejected,
    #[error("the agent is suspended")]
    Suspended,
    #[error("too many machines wait for approval")]
    Full,
    #[error("the certificate could not be issued")]
    Issue(#[source] IssueFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn key(row: &AnyRow) -> Result<EnrolmentKey, StoreError> {
    let columns = Columns(row);
    Ok(EnrolmentKey {
        id: columns.text("id")?,
        name: columns.text("name")?,
        sha256: columns.hash_opt("secret_sha256")?.unwrap_or_default(),
        uses: columns.unsigned("uses")?,
        uses_left: columns.unsigned("uses_left")?,
        labels: labels(&columns)?,
        approval: columns.flag("approval")?,
        operations: serde_json::from_value(columns.json("operations")?)
            .map_err(|error| StoreError::Corrupt(format!("operations: {error}")))?,
        created_by: columns.text("created_by")?,
        created_at_ms: columns.int("created_at_ms")?,
        expires_at_ms: columns.int("expires_at_ms")?,
        revoked_at_ms: columns.int_opt("revoked_at_ms")?,
    })
}

pub(super) fn labels(columns: &Columns<'_>) -> Result<Labels, StoreError> {
    let map: Result<BTreeMap<String, String>, _> = serde_json::from_value(columns.json("labels")?);
    let corrupt = |error: String| StoreError::Corrupt(format!("labels: {error}"));
    Labels::try_from(map.map_err(|error| corrupt(error.to_string()))?).map_err(|error| corrupt(error.to_string()))
}
