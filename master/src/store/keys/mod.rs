//! Enrolment keys: made, listed, revoked, and used. Using one, making the agent and issuing its certificate are one
//! transaction (SECURITY R1).

mod types;
mod waiting;

use proto::id::AgentId;
use uuid::Uuid;

pub use types::{EnrolmentKey, KeyAttempt, KeyError, KeyOutcome};
pub use waiting::{Decision, WAITING_MAX, WaitingAgent, WaitingStatus};

use super::{
    ENROLMENT_WITHIN, Page, Paged, Store, StoreError, Write,
    agents::{self, AgentStatus, ConnectionType},
    audit::AuditEntry,
    enrolments::{Certificate, IssueFailure, record},
    labels::Labels,
    sql::{Columns, Sql},
};
use types::key;

/// The enrolment keys of a [`Store`], and the agents that wait for approval.
#[derive(Clone, Copy)]
pub struct Keys<'a>(pub(super) &'a Store);

impl Keys<'_> {
    pub async fn add(&self, key: &EnrolmentKey, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut write = self.0.write("keys.add").await?;
        let sql = Sql::new(
            "INSERT INTO enrolment_keys (id, name, secret_sha256, uses, uses_left, labels, approval, operations,
             created_by, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        );
        let sql = sql.bind(&key.id).bind(&key.name).bind(&key.sha256).bind(i64::from(key.uses));
        let sql = sql.bind(i64::from(key.uses_left)).bind(json(&key.labels)).bind(key.approval);
        let sql = sql.bind(json(&key.operations)).bind(&key.created_by).bind(key.created_at_ms);
        write.execute(sql.bind(key.expires_at_ms)).await?;
        write.commit_audited(audit).await
    }

    pub async fn find(&self, id: &str) -> Result<Option<EnrolmentKey>, StoreError> {
        let mut read = self.0.read("keys.find").await?;
        read.row(Sql::new("SELECT * FROM enrolment_keys WHERE id = $1").bind(id)).await?.as_ref().map(key).transpose()
    }

    /// Newest first, used, revoked and expired ones included until retention takes them.
    pub async fn list(&self, page: &Page) -> Result<Paged<EnrolmentKey>, StoreError> {
        let sql = newest_first(Sql::new("SELECT * FROM enrolment_keys WHERE 1 = 1"), page)?;
        let mut read = self.0.read("keys.list").await?;
        let keys = read.rows(sql).await?.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(keys, page, |key| (key.created_at_ms, key.id.clone())))
    }

    /// Nobody enrols with it any more, nor does who waits on it. False if there is no such key or it is revoked already.
    pub async fn revoke(&self, id: &str, now_ms: i64, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("keys.revoke").await?;
        let sql = Sql::new("UPDATE enrolment_keys SET revoked_at_ms = $1 WHERE id = $2 AND revoked_at_ms IS NULL");
        if write.execute(sql.bind(now_ms).bind(id)).await? == 0 {
            return Ok(false);
        }
        write.execute(Sql::new("DELETE FROM waiting_agents WHERE key_id = $1").bind(id)).await?;
        write.commit_audited(audit).await.map(|()| true)
    }

    /// Consumes a use and makes agent and certificate, or puts the agent on the list of those that wait: all or nothing.
    /// `issue` runs inside the transaction and must be quick. `issued` and `waits` are the audit rows of either effect.
    pub async fn enrol(
        &self,
        attempt: KeyAttempt<'_>,
        issue: impl FnOnce() -> Result<Certificate, IssueFailure>,
        issued: &AuditEntry,
        waits: &AuditEntry,
    ) -> Result<KeyOutcome, KeyError> {
        let mut write = self.0.begin(&self.0.pools.write, "keys.enrol", ENROLMENT_WITHIN).await?;
        // In words both engines know, this locks the key's row: uses are counted one after the other.
        let sql = Sql::new("UPDATE enrolment_keys SET id = id WHERE secret_sha256 = $1 RETURNING *");
        let row = write.row(sql.bind(&attempt.secret_sha256)).await?.ok_or(KeyError::Refused)?;
        let key = key(&row)?;
        if let Some(certificate_der) = given_before(&mut write, &attempt).await? {
            return Ok(KeyOutcome::Issued { certificate_der, repeated: true });
        }
        if key.revoked_at_ms.is_some() {
            return Err(KeyError::Refused);
        }
        waiting::forget_expired(&mut write, attempt.now_ms).await?;
        let labels = match waiting::find(&mut write, &key.id, &attempt).await? {
            Some(row) => match row.status {
                WaitingStatus::Waiting => return Ok(KeyOutcome::Waits { row, new: false }),
                WaitingStatus::Rejected => return Err(KeyError::Rejected),
                WaitingStatus::Approved => {
                    waiting::forget(&mut write, &row.id).await?;
                    row.labels
                }
            },
            None => {
                use_up(&mut write, &key, &attempt).await?;
                if key.approval {
                    let row = waiting::add(&mut write, &key, &attempt).await?;
                    write.commit_audited(&waits.clone().object(&row.id)).await?;
                    return Ok(KeyOutcome::Waits { row, new: true });
                }
                key.labels.clone()
            }
        };
        let certificate = issue().map_err(KeyError::Issue)?;
        make_agent(&mut write, &attempt, &labels, &certificate).await?;
        write.commit_audited(&issued.clone().object(&key.id)).await?;
        Ok(KeyOutcome::Issued { certificate_der: certificate.der, repeated: false })
    }
}

/// The certificate that this public key got with this secret a moment ago: its reply was lost.
async fn given_before(write: &mut Write, attempt: &KeyAttempt<'_>) -> Result<Option<Vec<u8>>, KeyError> {
    let sql = Sql::new(
        "SELECT e.certificate, a.status FROM enrolments e JOIN agents a ON a.id = e.agent_id
         WHERE e.agent_id = $1 AND e.secret_sha256 = $2 AND e.key_sha256 = $3 AND a.key_sha256 = $4
         AND e.used_at_ms >= $5",
    );
    let since = attempt.now_ms.saturating_sub(crate::clock::millis(attempt.idempotent));
    let sql = sql.bind(attempt.name).bind(&attempt.secret_sha256).bind(&attempt.key_sha256).bind(&attempt.key_sha256);
    let Some(row) = write.row(sql.bind(since)).await? else { return Ok(None) };
    let columns = Columns(&row);
    match columns.parsed("status")? {
        AgentStatus::Suspended => Err(KeyError::Suspended),
        AgentStatus::Unknown | AgentStatus::Active => Ok(columns.bytes_opt("certificate")?),
    }
}

/// Takes one use of a good key for a name that is free.
async fn use_up(write: &mut Write, key: &EnrolmentKey, attempt: &KeyAttempt<'_>) -> Result<(), KeyError> {
    if attempt.now_ms >= key.expires_at_ms || key.uses_left == 0 {
        return Err(KeyError::Refused);
    }
    let taken = agents::lock(write, attempt.name).await?.is_some();
    if taken || waiting::is_named(write, attempt.name).await? {
        return Err(KeyError::NameTaken);
    }
    let sql = Sql::new("UPDATE enrolment_keys SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0");
    if write.execute(sql.bind(&key.id)).await? == 1 { Ok(()) } else { Err(KeyError::Refused) }
}

async fn make_agent(
    write: &mut Write,
    attempt: &KeyAttempt<'_>,
    labels: &Labels,
    certificate: &Certificate,
) -> Result<(), KeyError> {
    let sql = Sql::new(
        "INSERT INTO agents (id, status, created_at_ms, generation, connection_type) VALUES ($1, $2, $3, 0, $4)
         ON CONFLICT (id) DO NOTHING",
    );
    let sql = sql.bind(attempt.name).bind(AgentStatus::Unknown.word()).bind(attempt.now_ms);
    if write.execute(sql.bind(ConnectionType::Tunnel.word())).await? == 0 {
        return Err(KeyError::NameTaken);
    }
    agents::set_labels(write, attempt.name, labels).await?;
    // As a used secret of its own: whoever lost the reply asks again, and gets the same.
    let sql = Sql::new(
        "INSERT INTO enrolments (id, agent_id, secret_sha256, created_at_ms, expires_at_ms, used_at_ms, key_sha256,
         certificate) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    let sql = sql.bind(Uuid::new_v4().to_string()).bind(attempt.name).bind(&attempt.secret_sha256);
    let sql = sql.bind(attempt.now_ms).bind(attempt.now_ms).bind(attempt.now_ms).bind(&attempt.key_sha256);
    write.execute(sql.bind(hex::encode(&certificate.der))).await?;
    Ok(record(write, attempt.name, &attempt.key_sha256, certificate).await?)
}

/// One page of a table with `created_at_ms` and `id`.
fn newest_first(mut sql: Sql, page: &Page) -> Result<Sql, StoreError> {
    if let Some((at_ms, id)) = page.after()? {
        sql = sql.push(" AND (created_at_ms < ").push_bind(at_ms).push(" OR (created_at_ms = ").push_bind(at_ms);
        sql = sql.push(" AND id < ").push_bind(id).push("))");
    }
    Ok(sql.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(page.rows() + 1))
}

/// Labels and words always have a JSON form.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn name_of(row: &sqlx::any::AnyRow) -> Result<AgentId, StoreError> {
    Columns(row).parsed("agent_id")
}
