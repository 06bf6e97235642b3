//! Sessions of people: recognising one by its cookie, and forgetting it fast. Beginning one is `people`'s business.

use std::sync::Arc;

use super::{
    AuthError, Permissions, Principal, Role, Selector, Session, Socket, Who,
    tokens::{Access, hash},
};
use crate::{
    clock::millis,
    config,
    store::{
        StoreError,
        operators::{Operator, OperatorSession},
    },
};

/// First characters of every session's secret.
pub(super) const PREFIX: &str = "lls_";
/// How exactly the last use of a session is known, ms: no write for every call.
const SEEN_EVERY_MS: i64 = 60_000;

impl Access {
    /// Who shows this cookie on this socket.
    pub async fn session(&self, secret: &str, socket: Socket, now_ms: i64) -> Result<Arc<Principal>, AuthError> {
        let sha256 = hash(secret);
        let good_here = |principal: &Principal| {
            principal.session().is_some_and(|session| session.socket == socket && now_ms < session.expires_at_ms)
        };
        if let Some(principal) = self.believed_sessions.get(&sha256) {
            return if good_here(&principal) { Ok(principal) } else { Err(AuthError::Invalid) };
        }
        let (session, person) = self.store.operator_sessions().by_sha256(&sha256).await?.ok_or(AuthError::Invalid)?;
        let principal = Arc::new(recognise(&session, &person, &self.settings, now_ms)?);
        if !good_here(&principal) {
            return Err(AuthError::Invalid);
        }
        if now_ms - session.seen_at_ms >= SEEN_EVERY_MS
            && let Err(error) = self.store.operator_sessions().seen(&session.id, now_ms).await
        {
            tracing::debug!(%error, "the use of a session could not be noted");
        }
        self.believed_sessions.insert(sha256, principal.clone());
        Ok(principal)
    }

    /// The person of a session as the store has it now.
    pub(super) async fn session_now(&self, id: &str, now_ms: i64) -> Result<Principal, AuthError> {
        let (session, person) = self.store.operator_sessions().find(id).await?.ok_or(AuthError::Invalid)?;
        recognise(&session, &person, &self.settings, now_ms)
    }
}

/// What a stored session grants now.
pub(super) fn recognise(
    session: &OperatorSession,
    person: &Operator,
    settings: &config::Access,
    now_ms: i64,
) -> Result<Principal, AuthError> {
    let idle_at_ms = session.seen_at_ms.saturating_add(millis(settings.session_idle));
    if now_ms >= session.expires_at_ms || now_ms >= idle_at_ms {
        return Err(AuthError::Invalid);
    }
    let (permissions, selector) = granted(person)?;
    let facts = Session {
        id: session.id.clone(),
        socket: session.socket.parse().map_err(corrupt)?,
        created_at_ms: session.created_at_ms,
        expires_at_ms: session.expires_at_ms,
        proved_at_ms: session.proved_at_ms,
    };
    let who = Who::Operator { id: person.id.clone(), session: facts };
    Ok(Principal { who, name: person.name.clone(), permissions, selector, expires_at_ms: None })
}

/// What a person's role and selector grant.
pub(super) fn granted(person: &Operator) -> Result<(Permissions, Selector), AuthError> {
    let role: Role = person.role.parse().map_err(corrupt)?;
    let selector = person.selector.parse().map_err(|error: super::BadLabels| corrupt(error.to_string()))?;
    Ok((role.permissions(), selector))
}

fn corrupt(what: String) -> AuthError {
    AuthError::Store(StoreError::Corrupt(what))
}
