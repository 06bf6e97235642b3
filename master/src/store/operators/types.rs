//! What the rows of people hold, and why a change of them is refused.

use std::fmt;

use super::super::{Sha256, StoreError};

/// One person.
#[derive(Clone, PartialEq, Eq)]
pub struct Operator {
    /// Random.
    pub id: String,
    /// Unique, lower case.
    pub name: String,
    /// A word of `access::Role`.
    pub role: String,
    /// Text of a selector; empty for every agent.
    pub selector: String,
    /// argon2id, PHC form.
    pub password: String,
    /// Base32; in force.
    pub totp_secret: Option<String>,
    /// Base32; offered, not in force.
    pub totp_pending: Option<String>,
    pub created_at_ms: i64,
    pub last_login_at_ms: Option<i64>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// How a person came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// By the one-time link: only ever the first admin.
    BySetup,
    /// By someone who may.
    ByCaller,
}

/// What to change; `None` leaves it.
#[derive(Clone, Default)]
pub struct OperatorChange {
    pub role: Option<String>,
    pub selector: Option<String>,
    /// argon2id, PHC form.
    pub password: Option<String>,
    pub totp_off: bool,
}

/// One session of a person. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSession {
    /// Random, and no secret.
    pub id: String,
    pub operator_id: String,
    pub sha256: Sha256,
    /// The socket it was made on, and is good for: `internal` or `public`.
    pub socket: String,
    /// The address it was made from.
    pub source: Option<String>,
    pub user_agent: Option<String>,
    pub created_at_ms: i64,
    /// The last call, to the minute.
    pub seen_at_ms: i64,
    pub proved_at_ms: i64,
    pub expires_at_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AddOperatorError {
    #[error("someone has this name already")]
    Exists,
    #[error("the first admin was made already")]
    SetupOver,
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AddOperatorError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Exists) { Self::Exists } else { Self::Store(error) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeOperatorError {
    #[error("nobody has this id")]
    Unknown,
    #[error("this is the last admin of the whole fleet")]
    LastAdmin,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveOperatorError {
    #[error("nobody has this id")]
    Unknown,
    #[error("this is the last admin of the whole fleet")]
    LastAdmin,
    #[error(transparent)]
    Store(#[from] StoreError),
}
