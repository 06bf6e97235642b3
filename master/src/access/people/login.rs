//! Logging in: name and password, then a code where TOTP is on. One answer for unknown names and wrong passwords, in the
//! same time; failures limit the name and slow the address (SECURITY R12, R54).

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use uuid::Uuid;

use super::{HashError, People, normal_name, password, setup::Believed, totp};
use crate::{
    access::{Socket, TooMany, sessions, tokens::hash},
    clock::millis,
    store::{
        StoreError,
        audit::{Actor, AuditEntry},
        operators::{Operator, OperatorSession},
    },
};

/// Longest user agent kept, bytes.
const USER_AGENT_MAX: usize = 200;
const SECRET_BYTES: usize = 32;
/// Audit rows about failed logins a minute: anyone may cause them. The rest is counted in the metrics.
const FAILURE_ROWS: NonZeroU32 = NonZeroU32::new(60).expect("not zero");

/// Where a call comes from.
#[derive(Debug, Clone)]
pub struct Sender {
    /// `None` on a unix socket.
    pub address: Option<IpAddr>,
    pub socket: Socket,
    pub user_agent: Option<String>,
}

/// What is shown to log in.
pub struct Login {
    pub name: String,
    pub password: SecretString,
    pub code: Option<SecretString>,
}

/// A session that began. The secret is in the cookie and nowhere else.
#[derive(Debug)]
pub struct LoggedIn {
    pub secret: SecretString,
    pub principal: Believed,
    pub person: Operator,
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("the name or the password is wrong")]
    Wrong,
    #[error("the password is right; the code of the authenticator app is needed too")]
    CodeMissing,
    #[error("the code is wrong, too old, or was used before; wait for the next one")]
    CodeWrong,
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Bounds the audit rows that strangers cause.
pub(super) struct FailureRows(DefaultDirectRateLimiter);

impl FailureRows {
    pub(super) fn new() -> Self {
        Self(RateLimiter::direct(Quota::per_minute(FAILURE_ROWS)))
    }
}

impl Sender {
    /// The entry with the address it came from.
    pub fn stamp(&self, entry: AuditEntry) -> AuditEntry {
        match self.address {
            Some(address) => entry.source(address),
            None => entry,
        }
    }
}

impl People {
    pub async fn log_in(&self, login: Login, sender: &Sender, now_ms: i64) -> Result<LoggedIn, LoginError> {
        // A password that none can have costs no hashing.
        let name = normal_name(&login.name).filter(|_| login.password.expose_secret().len() <= password::LENGTH_MAX);
        let Some(name) = name else {
            self.failed(None, None, "no such name", sender).await;
            return Err(LoginError::Wrong);
        };
        let identity = identity(&name);
        self.limiter.check(&identity, Instant::now())?;
        let person = self.store.operators().by_name(&name).await?;
        let hash = person.as_ref().map(|person| person.password.clone());
        let right = self.hasher.verify(login.password, hash).await?;
        let person = match person {
            Some(person) if right => person,
            known => {
                self.failed(Some(&identity), known.as_ref(), "wrong_password", sender).await;
                return Err(LoginError::Wrong);
            }
        };
        if let Some(secret) = &person.totp_secret {
            let Some(code) = &login.code else { return Err(LoginError::CodeMissing) };
            if !self.takes_code(&person.id, secret, code, now_ms).await? {
                self.failed(Some(&identity), Some(&person), "wrong_code", sender).await;
                return Err(LoginError::CodeWrong);
            }
        }
        self.limiter.succeeded(&identity);
        self.begin(person, sender, now_ms).await
    }

    /// Begins a session of someone who proved to be this person.
    pub(super) async fn begin(&self, person: Operator, sender: &Sender, now_ms: i64) -> Result<LoggedIn, LoginError> {
        let bytes: [u8; SECRET_BYTES] = rand::random();
        let secret = SecretString::from(format!("{}{}", sessions::PREFIX, URL_SAFE_NO_PAD.encode(bytes)));
        let session = OperatorSession {
            id: Uuid::new_v4().to_string(),
            operator_id: person.id.clone(),
            sha256: hash(secret.expose_secret()),
            socket: sender.socket.word().to_owned(),
            source: sender.address.map(|address| address.to_string()),
            user_agent: sender.user_agent.as_deref().map(|text| text.chars().take(USER_AGENT_MAX).collect()),
            created_at_ms: now_ms,
            seen_at_ms: now_ms,
            proved_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(millis(self.access.settings.session)),
        };
        let entry = sender.stamp(Actor::Operator(person.id.clone()).did("operator.login")).object(&person.id);
        let entry = entry.detail(serde_json::json!({ "name": person.name, "session": session.id }));
        if !self.store.operator_sessions().begin(&session, &entry).await? {
            return Err(LoginError::Wrong);
        }
        let principal = sessions::recognise(&session, &person, &self.access.settings, now_ms);
        let principal = principal.map_err(|error| match error {
            super::super::AuthError::Store(error) => LoginError::Store(error),
            super::super::AuthError::Invalid => LoginError::Wrong,
        })?;
        Ok(LoggedIn { secret, principal: principal.into(), person })
    }

    /// Whether the code is right and none of its step was taken before.
    pub(super) async fn takes_code(
        &self,
        person: &str,
        secret: &str,
        code: &SecretString,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        match totp::step_of(secret, code.expose_secret(), now_ms) {
            Some(step) => self.store.operators().take_step(person, step).await,
            None => Ok(false),
        }
    }

    /// A proof failed: audited, counted, and slower each time.
    pub(super) async fn failed(&self, identity: Option<&str>, known: Option<&Operator>, why: &str, sender: &Sender) {
        if self.failures.0.check().is_ok() {
            let entry = sender.stamp(Actor::Anonymous.did("operator.login_failed")).result(why);
            // A name nobody has may be a password in the wrong field: it is not written down.
            let entry = match known {
                Some(person) => entry.object(&person.id).detail(serde_json::json!({ "name": person.name })),
                None => entry,
            };
            if let Err(error) = self.store.audit(&entry).await {
                tracing::warn!(%error, "a failed login could not be audited");
            }
        }
        self.slow(identity, sender).await;
    }

    /// Counts a failure and waits as long as it must.
    pub(super) async fn slow(&self, identity: Option<&str>, sender: &Sender) {
        let address = sender.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        tokio::time::sleep(self.limiter.failed(identity, address, Instant::now())).await;
    }
}

/// The name of a person as the limiter knows it.
pub(super) fn identity(name: &str) -> String {
    format!("operator:{name}")
}
