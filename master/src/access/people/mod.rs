//! People: their accounts and how they change. Who they are at each call is `sessions`' business, what they may is
//! `authorise`'s; no caller makes or touches an account above its own permissions (SECURITY R17).

mod login;
mod password;
mod proof;
mod setup;
mod totp;

use std::sync::Arc;

use secrecy::SecretString;
use uuid::Uuid;

pub use login::{LoggedIn, Login, LoginError, Sender};
pub use password::{BadPassword, HashError, LENGTH_MAX as PASSWORD_MAX, LENGTH_MIN as PASSWORD_MIN};
pub use proof::{Proof, ProofError, TotpOffer};
pub use setup::SetupError;

use self::{
    password::{Hasher, check_password},
    setup::Setup,
};
use super::{Limiter, Permissions, Principal, Role, Selector, tokens::Access};
use crate::store::{
    Store, StoreError,
    audit::AuditEntry,
    operators::{AddOperatorError, ChangeOperatorError, Made, Operator, OperatorChange, RemoveOperatorError},
};

/// Longest name, bytes.
const NAME_MAX: usize = 64;

/// The people who may call. Shared by everything that lets one in.
pub struct People {
    access: Access,
    store: Store,
    limiter: Arc<Limiter>,
    hasher: Hasher,
    setup: Setup,
    failures: login::FailureRows,
}

/// A new account.
pub struct NewPerson {
    pub name: String,
    pub password: SecretString,
    pub role: Role,
    pub selector: Selector,
}

/// What to change of an account; `None` leaves it.
#[derive(Default)]
pub struct PersonChange {
    pub role: Option<Role>,
    pub selector: Option<Selector>,
    pub password: Option<SecretString>,
    /// Takes TOTP off: the phone is lost.
    pub totp_off: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    #[error("nobody has this id")]
    Unknown,
    #[error("a name has 1 to {NAME_MAX} characters: letters, digits and . _ @ + -, beginning with a letter or digit")]
    Name,
    #[error(transparent)]
    Password(#[from] BadPassword),
    #[error("someone has this name already")]
    Exists,
    #[error("the account may do more than the caller: {0}")]
    Above(Permissions),
    #[error("this is the last admin for the whole fleet; make another one first")]
    LastAdmin,
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl People {
    /// Also gives the secret of the one-time setup link while no admin was ever made.
    pub async fn start(
        access: Access,
        store: Store,
        limiter: Arc<Limiter>,
    ) -> Result<(Arc<Self>, Option<SecretString>), StoreError> {
        let (setup, secret) = Setup::start(&store).await?;
        let people = Self { access, store, limiter, hasher: Hasher::new(), setup, failures: login::FailureRows::new() };
        Ok((Arc::new(people), secret))
    }

    /// Makes an account.
    pub async fn add(
        &self,
        by: &Principal,
        new: NewPerson,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<Operator, PersonError> {
        within(by, new.role)?;
        let person = self.account(new, now_ms).await?;
        let audit = audit.object(&person.id).detail(told(&person));
        match self.store.operators().add(&person, Made::ByCaller, &audit).await {
            Ok(()) => {}
            Err(AddOperatorError::Exists) => return Err(PersonError::Exists),
            // Only ever said of `Made::BySetup`.
            Err(AddOperatorError::SetupOver) => return Err(PersonError::LastAdmin),
            Err(AddOperatorError::Store(error)) => return Err(error.into()),
        }
        if new_admin(&person) {
            self.setup.is_over_now();
        }
        Ok(person)
    }

    /// Changes an account. What it loses, its sessions and tokens lose at once.
    pub async fn change(
        &self,
        by: &Principal,
        id: &str,
        change: PersonChange,
        audit: AuditEntry,
    ) -> Result<Operator, PersonError> {
        let before = self.touchable(by, id).await?;
        if let Some(role) = change.role {
            within(by, role)?;
        }
        let detail = serde_json::json!({
            "name": before.name, "role": change.role, "selector": change.selector.as_ref().map(ToString::to_string),
            "password": change.password.is_some(), "totp_off": change.totp_off,
        });
        let password = match change.password {
            Some(password) => Some(self.hashed(password).await?),
            None => None,
        };
        let row = OperatorChange {
            role: change.role.map(|role| role.word().to_owned()),
            selector: change.selector.map(|selector| selector.to_string()),
            password,
            totp_off: change.totp_off,
        };
        // One's own session outlives one's own change.
        let kept = by.session().filter(|_| by.id() == id).map(|session| session.id.as_str());
        let changed = self.store.operators().change(id, &row, kept, &audit.object(id).detail(detail)).await;
        self.access.forget_all();
        changed.map_err(|error| match error {
            ChangeOperatorError::Unknown => PersonError::Unknown,
            ChangeOperatorError::LastAdmin => PersonError::LastAdmin,
            ChangeOperatorError::Store(error) => error.into(),
        })?;
        self.store.operators().find(id).await?.ok_or(PersonError::Unknown)
    }

    /// Removes an account: its sessions and tokens end.
    pub async fn remove(&self, by: &Principal, id: &str, now_ms: i64, audit: AuditEntry) -> Result<(), PersonError> {
        let before = self.touchable(by, id).await?;
        let audit = audit.object(id).detail(told(&before));
        let removed = self.store.operators().remove(id, now_ms, &audit).await;
        self.access.forget_all();
        removed.map_err(|error| match error {
            RemoveOperatorError::Unknown => PersonError::Unknown,
            RemoveOperatorError::LastAdmin => PersonError::LastAdmin,
            RemoveOperatorError::Store(error) => error.into(),
        })
    }

    /// Ends a session. False if that person has no such session.
    pub async fn end_session(&self, person: &str, session: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        let audit = audit.object(person).detail(serde_json::json!({ "session": session }));
        let ended = self.store.operator_sessions().end(person, session, &audit).await;
        self.access.forget_all();
        ended
    }

    /// The account, if it does not stand above the caller: whoever resets a password could log in with it.
    pub async fn touchable(&self, by: &Principal, id: &str) -> Result<Operator, PersonError> {
        let person = self.store.operators().find(id).await?.ok_or(PersonError::Unknown)?;
        if by.id() != id {
            within(by, person.role.parse().map_err(StoreError::Corrupt)?)?;
        }
        Ok(person)
    }

    async fn account(&self, new: NewPerson, now_ms: i64) -> Result<Operator, PersonError> {
        let name = normal_name(&new.name).ok_or(PersonError::Name)?;
        Ok(Operator {
            id: Uuid::new_v4().to_string(),
            name,
            role: new.role.word().to_owned(),
            selector: new.selector.to_string(),
            password: self.hashed(new.password).await?,
            totp_secret: None,
            totp_pending: None,
            created_at_ms: now_ms,
            last_login_at_ms: None,
        })
    }

    async fn hashed(&self, password: SecretString) -> Result<String, PersonError> {
        check_password(secrecy::ExposeSecret::expose_secret(&password))?;
        Ok(self.hasher.hash(password).await?)
    }
}

/// The name as it is kept, if it is one.
fn normal_name(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let good = (1..=NAME_MAX).contains(&name.len())
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b'+' | b'-'));
    good.then_some(name)
}

fn within(by: &Principal, role: Role) -> Result<(), PersonError> {
    let beyond = role.permissions().beyond(&by.permissions);
    if beyond.is_empty() { Ok(()) } else { Err(PersonError::Above(beyond)) }
}

fn new_admin(person: &Operator) -> bool {
    person.role == Role::Admin.word()
}

/// What the audit trail says of an account.
fn told(person: &Operator) -> serde_json::Value {
    serde_json::json!({ "name": person.name, "role": person.role, "selector": person.selector })
}
