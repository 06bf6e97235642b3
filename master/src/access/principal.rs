//! Who calls: an API token or a person's session, with what it may do. Holds facts; decides nothing.

use super::{Permissions, Selector};
use crate::store::audit::Actor;

/// A recognised caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    pub who: Who,
    pub name: String,
    pub permissions: Permissions,
    /// Which agents it may know of.
    pub selector: Selector,
    /// `None` never runs out. A person's session ends by itself ([`Session::expires_at_ms`]); the person does not.
    pub expires_at_ms: Option<i64>,
}

/// What was shown as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Token {
        id: String,
    },
    /// A person, by a session's cookie.
    Operator {
        id: String,
        session: Session,
    },
}

/// A person's session as it was when the caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Random, and no secret.
    pub id: String,
    pub created_at_ms: i64,
    /// The absolute end.
    pub expires_at_ms: i64,
    /// The last time the person proved to be one: login, or step-up.
    pub proved_at_ms: i64,
}

impl Principal {
    /// Of the token, or of the operator.
    pub fn id(&self) -> &str {
        match &self.who {
            Who::Token { id } | Who::Operator { id, .. } => id,
        }
    }

    /// The caller as the audit trail names it.
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::Token { id } => Actor::Token(id.clone()),
            Who::Operator { id, .. } => Actor::Operator(id.clone()),
        }
    }

    /// The caller as rows name their owner: a token by its bare id, as they always did.
    pub fn owner(&self) -> String {
        match &self.who {
            Who::Token { id } => id.clone(),
            Who::Operator { .. } => self.actor().to_string(),
        }
    }

    /// The session of a person; `None` for a token.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::Token { .. } => None,
            Who::Operator { session, .. } => Some(session),
        }
    }
}

#[cfg(test)]
impl Principal {
    pub(crate) fn for_tests(permissions: Permissions, selector: Selector) -> Self {
        let who = Who::Token { id: "t".to_owned() };
        Self { who, name: "test".to_owned(), permissions, selector, expires_at_ms: None }
    }
}
