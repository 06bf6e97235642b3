//! Proving again to be the person of a session: step-up, a new password, TOTP on and off. Failures count as those of a
//! login do.

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{
    BadPassword, HashError, People, Sender,
    login::identity,
    password::{LENGTH_MAX, check_password},
    totp,
};
use crate::{
    access::{Principal, Session, TooMany},
    store::{
        StoreError,
        audit::AuditEntry,
        operators::{ChangeOperatorError, Operator, OperatorChange},
    },
};

/// What is shown.
pub enum Proof {
    Password(SecretString),
    Code(SecretString),
}

/// A TOTP secret that is not in force yet.
pub struct TotpOffer {
    /// Base32.
    pub secret: String,
    /// `otpauth://…`
    pub uri: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The session or its person is gone.
    #[error("the session is over")]
    Over,
    #[error("the password is wrong")]
    WrongPassword,
    #[error("the code is wrong, too old, or was used before; wait for the next one")]
    WrongCode,
    #[error("TOTP is on; turn it off first")]
    TotpOn,
    #[error("TOTP is off; ask for a secret first")]
    TotpOff,
    #[error(transparent)]
    NewPassword(#[from] BadPassword),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl People {
    /// The person proves again to be there: what takes a fresh proof is open again.
    pub async fn step_up(
        &self,
        caller: &Principal,
        proof: Proof,
        sender: &Sender,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<(), ProofError> {
        let (person, session) = self.person(caller).await?;
        self.prove(&person, proof, sender, now_ms).await?;
        let proved = self.store.operator_sessions().proved(&session.id, now_ms, &audit.object(&person.id)).await;
        self.access.forget_all();
        if proved? { Ok(()) } else { Err(ProofError::Over) }
    }

    /// A new password: every other session of the person ends.
    pub async fn change_password(
        &self,
        caller: &Principal,
        current: SecretString,
        new: SecretString,
        sender: &Sender,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<(), ProofError> {
        check_password(new.expose_secret())?;
        let (person, session) = self.person(caller).await?;
        self.prove(&person, Proof::Password(current), sender, now_ms).await?;
        let change = OperatorChange { password: Some(self.hasher.hash(new).await?), ..OperatorChange::default() };
        self.apply(&person, &change, &session.id, audit).await
    }

    /// A secret for an authenticator app; in force once a code of it was shown.
    pub async fn offer_totp(&self, caller: &Principal) -> Result<TotpOffer, ProofError> {
        let (person, _) = self.person(caller).await?;
        let secret = totp::new_secret();
        let uri = totp::uri(&secret, &person.name).ok_or(ProofError::Over)?;
        if !self.store.operators().offer_totp(&person.id, &secret).await? {
            return Err(ProofError::TotpOn);
        }
        Ok(TotpOffer { secret, uri })
    }

    pub async fn turn_totp_on(
        &self,
        caller: &Principal,
        code: SecretString,
        sender: &Sender,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<(), ProofError> {
        let (person, _) = self.person(caller).await?;
        let Some(secret) = &person.totp_pending else {
            return Err(if person.totp_secret.is_some() { ProofError::TotpOn } else { ProofError::TotpOff });
        };
        let Some(step) = totp::step_of(secret, code.expose_secret(), now_ms) else {
            self.slow(None, sender).await;
            return Err(ProofError::WrongCode);
        };
        let on = self.store.operators().turn_totp_on(&person.id, secret, step, &audit.object(&person.id)).await?;
        if on { Ok(()) } else { Err(ProofError::TotpOff) }
    }

    pub async fn turn_totp_off(
        &self,
        caller: &Principal,
        password: SecretString,
        sender: &Sender,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<(), ProofError> {
        let (person, session) = self.person(caller).await?;
        self.prove(&person, Proof::Password(password), sender, now_ms).await?;
        let change = OperatorChange { totp_off: true, ..OperatorChange::default() };
        self.apply(&person, &change, &session.id, audit).await
    }

    async fn apply(
        &self,
        person: &Operator,
        change: &OperatorChange,
        kept: &str,
        audit: AuditEntry,
    ) -> Result<(), ProofError> {
        let changed = self.store.operators().change(&person.id, change, Some(kept), &audit.object(&person.id)).await;
        self.access.forget_all();
        changed.map_err(|error| match error {
            ChangeOperatorError::Store(error) => error.into(),
            // No role was changed: only that the person is gone is left.
            ChangeOperatorError::Unknown | ChangeOperatorError::LastAdmin => ProofError::Over,
        })
    }

    async fn prove(&self, person: &Operator, proof: Proof, sender: &Sender, now_ms: i64) -> Result<(), ProofError> {
        let identity = identity(&person.name);
        self.limiter.check(&identity, Instant::now())?;
        let (right, word, wrong) = match proof {
            Proof::Password(password) => {
                let plausible = password.expose_secret().len() <= LENGTH_MAX;
                let right = plausible && self.hasher.verify(password, Some(person.password.clone())).await?;
                (right, "wrong_password", ProofError::WrongPassword)
            }
            Proof::Code(code) => {
                let secret = person.totp_secret.as_ref().ok_or(ProofError::TotpOff)?;
                let right = self.takes_code(&person.id, secret, &code, now_ms).await?;
                (right, "wrong_code", ProofError::WrongCode)
            }
        };
        if !right {
            self.failed(Some(&identity), Some(person), word, sender).await;
            return Err(wrong);
        }
        self.limiter.succeeded(&identity);
        Ok(())
    }

    async fn person(&self, caller: &Principal) -> Result<(Operator, Session), ProofError> {
        let session = caller.session().ok_or(ProofError::Over)?.clone();
        let person = self.store.operators().find(caller.id()).await?.ok_or(ProofError::Over)?;
        Ok((person, session))
    }
}
