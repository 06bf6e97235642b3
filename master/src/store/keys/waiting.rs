//! Machines that wait for an operator's yes. Each holds one use of its key, which comes back when it is rejected or its
//! time runs out.

use proto::id::AgentId;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{EnrolmentKey, KeyAttempt, KeyError, Keys, json, name_of, newest_first, types::labels};
use crate::store::{
    Page, Paged, StoreError, Write,
    audit::AuditEntry,
    labels::Labels,
    sql::{Columns, Sql},
    words,
};

/// Machines that may wait at once.
pub const WAITING_MAX: i64 = 1_000;
/// How long one waits, and how long a decision is kept for it, milliseconds: a day.
const KEPT_MS: i64 = 86_400_000;

words! {
    WaitingStatus {
        Waiting = "waiting",
        /// Its certificate is issued when it asks next.
        Approved = "approved",
        Rejected = "rejected",
    }
}

/// One machine on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingAgent {
    /// Random.
    pub id: String,
    pub key_id: String,
    /// The name it proposes.
    pub agent_id: AgentId,
    pub labels: Labels,
    /// Where it came from.
    pub address: String,
    pub status: WaitingStatus,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
}

/// An operator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Approve,
    Reject,
}

impl Keys<'_> {
    /// Gives the uses of those back whose time ran out.
    pub async fn tidy(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut write = self.0.background("keys.tidy").await?;
        forget_expired(&mut write, now_ms).await?;
        write.commit().await
    }

    pub async fn waiting(&self, id: &str, now_ms: i64) -> Result<Option<WaitingAgent>, StoreError> {
        let mut read = self.0.read("keys.waiting").await?;
        let sql = Sql::new("SELECT * FROM waiting_agents WHERE id = $1 AND expires_at_ms > $2").bind(id).bind(now_ms);
        read.row(sql).await?.as_ref().map(waiting).transpose()
    }

    /// Those without an answer, newest first.
    pub async fn list_waiting(&self, now_ms: i64, page: &Page) -> Result<Paged<WaitingAgent>, StoreError> {
        let sql = Sql::new("SELECT * FROM waiting_agents WHERE status = 'waiting' AND expires_at_ms > ");
        let sql = newest_first(sql.push_bind(now_ms), page)?;
        let mut read = self.0.read("keys.list_waiting").await?;
        let rows = read.rows(sql).await?.iter().map(waiting).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(rows, page, |row| (row.created_at_ms, row.id.clone())))
    }

    /// False if it does not wait any more: of two operators the first decides.
    pub async fn decide(
        &self,
        id: &str,
        decision: Decision,
        now_ms: i64,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut write = self.0.write("keys.decide").await?;
        let status = match decision {
            Decision::Approve => WaitingStatus::Approved,
            Decision::Reject => WaitingStatus::Rejected,
        };
        let sql = Sql::new(
            "UPDATE waiting_agents SET status = $1, expires_at_ms = $2 WHERE id = $3 AND status = 'waiting'
             AND expires_at_ms > $4 RETURNING key_id",
        );
        let sql = sql.bind(status.word()).bind(now_ms.saturating_add(KEPT_MS)).bind(id).bind(now_ms);
        let Some(row) = write.row(sql).await? else { return Ok(false) };
        if decision == Decision::Reject {
            give_back(&mut write, &Columns(&row).text("key_id")?, 1).await?;
        }
        write.commit_audited(audit).await.map(|()| true)
    }
}

pub(super) async fn find(
    write: &mut Write,
    key_id: &str,
    attempt: &KeyAttempt<'_>,
) -> Result<Option<WaitingAgent>, StoreError> {
    let sql = Sql::new("SELECT * FROM waiting_agents WHERE key_id = $1 AND agent_id = $2 AND key_sha256 = $3");
    write.row(sql.bind(key_id).bind(attempt.name).bind(&attempt.key_sha256)).await?.as_ref().map(waiting).transpose()
}

/// Whether another machine holds the name. A rejected one does not.
pub(super) async fn is_named(write: &mut Write, name: &AgentId) -> Result<bool, StoreError> {
    let sql = Sql::new("SELECT id FROM waiting_agents WHERE agent_id = $1 AND status <> 'rejected'").bind(name);
    Ok(write.row(sql).await?.is_some())
}

pub(super) async fn add(
    write: &mut Write,
    key: &EnrolmentKey,
    attempt: &KeyAttempt<'_>,
) -> Result<WaitingAgent, KeyError> {
    let rows = write.row(Sql::new("SELECT COUNT(*) AS number FROM waiting_agents")).await?;
    if rows.map(|row| Columns(&row).int("number")).transpose()?.unwrap_or(0) >= WAITING_MAX {
        return Err(KeyError::Full);
    }
    let row = WaitingAgent {
        id: Uuid::new_v4().to_string(),
        key_id: key.id.clone(),
        agent_id: attempt.name.clone(),
        labels: key.labels.clone(),
        address: attempt.address.to_string(),
        status: WaitingStatus::Waiting,
        created_at_ms: attempt.now_ms,
        expires_at_ms: attempt.now_ms.saturating_add(KEPT_MS),
    };
    let sql = Sql::new(
        "INSERT INTO waiting_agents (id, key_id, agent_id, key_sha256, labels, address, status, created_at_ms,
         expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    let sql = sql.bind(&row.id).bind(&row.key_id).bind(&row.agent_id).bind(&attempt.key_sha256);
    let sql = sql.bind(json(&row.labels)).bind(&row.address).bind(row.status.word());
    write.execute(sql.bind(row.created_at_ms).bind(row.expires_at_ms)).await?;
    Ok(row)
}

pub(super) async fn forget(write: &mut Write, id: &str) -> Result<(), StoreError> {
    write.execute(Sql::new("DELETE FROM waiting_agents WHERE id = $1").bind(id)).await.map(drop)
}

/// Gives the uses of those back that nobody answered, or that never came for what they got.
pub(super) async fn forget_expired(write: &mut Write, now_ms: i64) -> Result<(), StoreError> {
    let sql = Sql::new("DELETE FROM waiting_agents WHERE expires_at_ms <= $1 RETURNING key_id, status").bind(now_ms);
    for row in write.rows(sql).await? {
        let columns = Columns(&row);
        if columns.parsed::<WaitingStatus>("status")? != WaitingStatus::Rejected {
            give_back(write, &columns.text("key_id")?, 1).await?;
        }
    }
    Ok(())
}

async fn give_back(write: &mut Write, key_id: &str, uses: i64) -> Result<(), StoreError> {
    let sql = Sql::new("UPDATE enrolment_keys SET uses_left = uses_left + $1 WHERE id = $2");
    write.execute(sql.bind(uses).bind(key_id)).await.map(drop)
}

fn waiting(row: &AnyRow) -> Result<WaitingAgent, StoreError> {
    let columns = Columns(row);
    Ok(WaitingAgent {
        id: columns.text("id")?,
        key_id: columns.text("key_id")?,
        agent_id: name_of(row)?,
        labels: labels(&columns)?,
        address: columns.text("address")?,
        status: columns.parsed("status")?,
        created_at_ms: columns.int("created_at_ms")?,
        expires_at_ms: columns.int("expires_at_ms")?,
    })
}
