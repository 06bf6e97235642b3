//! Enrolment and renewal: consuming a secret and issuing its certificate are one transaction (SECURITY R1).

use std::{error::Error, time::Duration};

use proto::id::AgentId;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{
    ENROLMENT_WITHIN, Sha256, Store, StoreError, Write,
    agents::{self, AgentStatus, NewSecret},
    audit::AuditEntry,
    sql::{Columns, Sql},
};

/// A certificate as the authority made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub der: Vec<u8>,
    pub not_after_ms: i64,
}

/// What came of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    pub certificate_der: Vec<u8>,
    /// True when the same secret and key came before and the same certificate was given again.
    pub repeated: bool,
}

/// The key that a renewal comes with, and the one it is for.
#[derive(Debug, Clone, Copy)]
pub struct RenewedKeys {
    pub presented: Sha256,
    pub requested: Sha256,
}

/// What came of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    pub certificate: Certificate,
    /// True when the key was an offered one until now: the one before it is worth nothing any more.
    pub first_use: bool,
}

/// Who asks, with what.
#[derive(Debug, Clone)]
pub struct EnrolAttempt<'a> {
    pub agent_id: &'a AgentId,
    pub secret_sha256: Sha256,
    /// SHA-256 of the public key in the request.
    pub key_sha256: Sha256,
    pub now_ms: i64,
    /// How long a used secret still answers the key that used it.
    pub idempotent: Duration,
}

pub type IssueFailure = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Unknown agent, wrong, used or expired secret: told apart for nobody.
    #[error("unknown agent id, or wrong, used or expired secret")]
    Refused,
    /// Only ever told to someone who knows the right secret.
    #[error("the agent is suspended")]
    Suspended,
    #[error("the certificate could not be issued")]
    Issue(#[source] IssueFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No such agent, or not its key.
    #[error("the certificate belongs to no agent, or its key is not the one on record")]
    UnknownIdentity,
    #[error("the agent is suspended")]
    Suspended,
    #[error("the certificate could not be issued")]
    Issue(#[source] IssueFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The enrolments of a [`Store`].
#[derive(Clone, Copy)]
pub struct Enrolments<'a>(pub(super) &'a Store);

/// One secret of an agent.
struct Secret {
    id: String,
    sha256: Sha256,
    expires_at_ms: i64,
    used_at_ms: Option<i64>,
    key_sha256: Option<Sha256>,
    certificate: Option<Vec<u8>>,
}

impl Enrolments<'_> {
    /// Consumes the secret, records the key and returns the certificate `issue` made for this generation: all or nothing.
    /// `issue` runs inside the transaction and must be quick. Takes up to 5 s when many come at once.
    pub async fn enrol(
        &self,
        attempt: EnrolAttempt<'_>,
        issue: impl FnOnce(u64) -> Result<Certificate, IssueFailure>,
        audit: &AuditEntry,
    ) -> Result<Enrolled, EnrolError> {
        let mut write = self.0.begin(&self.0.pools.write, "enrolments.enrol", ENROLMENT_WITHIN).await?;
        let identity = agents::lock(&mut write, attempt.agent_id).await?;
        let secret = find_secret(&mut write, &attempt).await?;
        let (Some(identity), Some(secret)) = (identity, secret) else { return Err(EnrolError::Refused) };
        if let Some(used_at_ms) = secret.used_at_ms {
            let same_key = secret.key_sha256 == Some(attempt.key_sha256) && identity.key_sha256 == secret.key_sha256;
            let recent = attempt.now_ms.saturating_sub(used_at_ms) <= crate::clock::millis(attempt.idempotent);
            return match secret.certificate.filter(|_| same_key && recent) {
                Some(_) if identity.status == AgentStatus::Suspended => Err(EnrolError::Suspended),
                Some(certificate_der) => Ok(Enrolled { certificate_der, repeated: true }),
                None => Err(EnrolError::Refused),
            };
        }
        if attempt.now_ms >= secret.expires_at_ms {
            return Err(EnrolError::Refused);
        }
        if identity.status == AgentStatus::Suspended {
            return Err(EnrolError::Suspended);
        }
        let certificate = issue(identity.generation + 1).map_err(EnrolError::Issue)?;
        consume(&mut write, &attempt, &secret.id, &certificate).await?;
        record(&mut write, attempt.agent_id, &attempt.key_sha256, &certificate).await?;
        write.commit_audited(audit).await?;
        Ok(Enrolled { certificate_der: certificate.der, repeated: false })
    }

    /// A new certificate for the key on record, even when the old one ran out. One for another key is an offer: that key
    /// takes the place of the one on record when it is itself the one that is presented. An agent that renews the old key
    /// did not take the offer.
    pub async fn renew(
        &self,
        agent_id: &AgentId,
        keys: RenewedKeys,
        issue: impl FnOnce(u64) -> Result<Certificate, IssueFailure>,
        audit: &AuditEntry,
    ) -> Result<Renewed, RenewError> {
        let mut write = self.0.begin(&self.0.pools.write, "enrolments.renew", ENROLMENT_WITHIN).await?;
        let identity = agents::lock(&mut write, agent_id).await?.ok_or(RenewError::UnknownIdentity)?;
        let on_record = identity.key_sha256 == Some(keys.presented);
        let first_use = identity.next_key_sha256 == Some(keys.presented);
        let offer = keys.requested != keys.presented;
        if !on_record && (offer || !first_use) {
            return Err(RenewError::UnknownIdentity);
        }
        if identity.status == AgentStatus::Suspended {
            return Err(RenewError::Suspended);
        }
        let certificate = issue(identity.generation + 1).map_err(RenewError::Issue)?;
        if offer {
            let sql = Sql::new("UPDATE agents SET next_key_sha256 = $1 WHERE id = $2");
            write.execute(sql.bind(&keys.requested).bind(agent_id)).await?;
        } else {
            record(&mut write, agent_id, &keys.requested, &certificate).await?;
        }
        write.commit_audited(audit).await?;
        Ok(Renewed { certificate, first_use })
    }

    /// The offered key comes into use with a line of its own. False if it is not the one that was offered.
    pub async fn take_offered(
        &self,
        agent_id: &AgentId,
        key_sha256: &Sha256,
        not_after_ms: i64,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut write = self.0.begin(&self.0.pools.write, "enrolments.take_offered", ENROLMENT_WITHIN).await?;
        let identity = agents::lock(&mut write, agent_id).await?;
        if identity.and_then(|identity| identity.next_key_sha256) != Some(*key_sha256) {
            return Ok(false);
        }
        record(&mut write, agent_id, key_sha256, &Certificate { der: Vec::new(), not_after_ms }).await?;
        write.commit_audited(audit).await?;
        Ok(true)
    }
}

/// Replaces every secret of the agent.
pub(super) async fn set_secret(
    write: &mut Write,
    agent_id: &AgentId,
    secret: NewSecret,
    now_ms: i64,
) -> Result<(), StoreError> {
    write.execute(Sql::new("DELETE FROM enrolments WHERE agent_id = $1").bind(agent_id)).await?;
    let sql = Sql::new(
        "INSERT INTO enrolments (id, agent_id, secret_sha256, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5)",
    );
    let sql = sql.bind(Uuid::new_v4().to_string()).bind(agent_id).bind(&secret.sha256).bind(now_ms);
    write.execute(sql.bind(secret.expires_at_ms)).await?;
    Ok(())
}

/// The agent's secret with this hash, compared in constant time; an unknown agent takes the same way.
async fn find_secret(write: &mut Write, attempt: &EnrolAttempt<'_>) -> Result<Option<Secret>, StoreError> {
    let sql = Sql::new("SELECT * FROM enrolments WHERE agent_id = $1").bind(attempt.agent_id);
    let mut found = None;
    for row in write.rows(sql).await? {
        let columns = Columns(&row);
        let secret = Secret {
            id: columns.text("id")?,
            sha256: columns.hash_opt("secret_sha256")?.unwrap_or_default(),
            expires_at_ms: columns.int("expires_at_ms")?,
            used_at_ms: columns.int_opt("used_at_ms")?,
            key_sha256: columns.hash_opt("key_sha256")?,
            certificate: columns.bytes_opt("certificate")?,
        };
        if bool::from(secret.sha256.ct_eq(&attempt.secret_sha256)) {
            found = Some(secret);
        }
    }
    Ok(found)
}

async fn consume(
    write: &mut Write,
    attempt: &EnrolAttempt<'_>,
    secret_id: &str,
    certificate: &Certificate,
) -> Result<(), EnrolError> {
    let sql = Sql::new(
        "UPDATE enrolments SET used_at_ms = $1, key_sha256 = $2, certificate = $3 WHERE id = $4 AND used_at_ms IS NULL",
    );
    let sql = sql.bind(attempt.now_ms).bind(&attempt.key_sha256).bind(hex::encode(&certificate.der)).bind(secret_id);
    // The row lock on the agent makes this true; the condition keeps it true whatever is changed around it.
    if write.execute(sql).await? == 1 { Ok(()) } else { Err(EnrolError::Refused) }
}

pub(super) async fn record(
    write: &mut Write,
    agent_id: &AgentId,
    key_sha256: &Sha256,
    certificate: &Certificate,
) -> Result<(), StoreError> {
    let sql = Sql::new(
        "UPDATE agents SET key_sha256 = $1, next_key_sha256 = NULL, certificate_not_after_ms = $2,
                generation = generation + 1 WHERE id = $3",
    );
    write.execute(sql.bind(key_sha256).bind(certificate.not_after_ms).bind(agent_id)).await?;
    Ok(())
}
