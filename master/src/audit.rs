//! The audit trail as the rest of the master sees it: who acts, and how an entry is begun. The chain itself is the store's.

pub use crate::store::audit::{AuditEntry, AuditRow, Verdict};

use proto::id::AgentId;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An API caller, by token id.
    Token(String),
    Agent(AgentId),
    /// Someone on the master's own host.
    Local,
    /// The master itself: a deadline, a restart.
    Master,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Local => f.write_str("local"),
            Self::Master => f.write_str("master"),
        }
    }
}

impl Actor {
    /// Begins an entry at the wall clock's time.
    pub fn did(&self, action: &'static str) -> AuditEntry {
        AuditEntry::new(crate::clock::unix_ms(), self.to_string(), action)
    }
}
