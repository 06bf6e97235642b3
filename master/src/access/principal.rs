//! Who calls: an API token or a person's session, with what it may do. Holds facts; decides nothing.

use super::{Permission, Permissions, Selector};
use crate::store::{audit::Actor, words};

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
        /// The person on whose behalf it was made.
        operator: Option<String>,
    },
    /// A person, by a session's cookie.
    Operator { id: String, session: Session },
}

words! {
    /// The socket that accepted a call. Told apart by that alone, never by a header.
    Socket {
        /// Loopback, or the unix socket: tokens and sessions.
        Internal = "internal",
        /// The public listener: sessions alone.
        Public = "public",
    }
}

/// A person's session as it was when the caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Random, and no secret.
    pub id: String,
    /// The one it was made on: it is good for no other, since cookies of 127.0.0.1 reach every port there.
    pub socket: Socket,
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
            Who::Token { id, .. } | Who::Operator { id, .. } => id,
        }
    }

    /// The caller as the audit trail names it.
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::Token { id, .. } => Actor::Token(id.clone()),
            Who::Operator { id, .. } => Actor::Operator(id.clone()),
        }
    }

    /// The caller as rows name their owner: a token by its bare id, as they always did.
    pub fn owner(&self) -> String {
        match &self.who {
            Who::Token { id, .. } => id.clone(),
            Who::Operator { .. } => self.actor().to_string(),
        }
    }

    /// The person who calls, or on whose behalf the token was made.
    pub fn operator(&self) -> Option<&str> {
        match &self.who {
            Who::Token { operator, .. } => operator.as_deref(),
            Who::Operator { id, .. } => Some(id),
        }
    }

    /// Whose tokens it may see and revoke: everybody's (`None`), or only the person's own.
    pub fn tokens_of(&self) -> Option<&str> {
        let manages = self.permissions.contains(Permission::OperatorsWrite) && self.selector.is_everything();
        self.operator().filter(|_| !manages)
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
        let who = Who::Token { id: "t".to_owned(), operator: None };
        Self { who, name: "test".to_owned(), permissions, selector, expires_at_ms: None }
    }
}
