//! Shell sessions and execs as rows: who started what where, and how it ended. What they print is not here.

use proto::id::AgentId;
use serde_json::Value;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{
    Page, Paged, Store, StoreError,
    audit::AuditEntry,
    sql::{Columns, Sql},
    words,
};

words! {
    /// What kind of session a row is.
    SessionKind {
        Shell = "shell",
        Exec = "exec",
    }
}

/// One session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    pub id: Uuid,
    pub kind: SessionKind,
    pub agent_id: AgentId,
    /// The actor that opened it, as the audit trail names it.
    pub owner: String,
    pub created_at_ms: i64,
    /// `None` while it runs, as far as this master knows.
    pub ended_at_ms: Option<i64>,
    /// A word: `exited`, `signalled`, or that of a code.
    pub end_reason: Option<String>,
    /// What the kind has to say: program, size, exit code, recording.
    pub detail: Value,
}

/// Which sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    pub kind: Option<SessionKind>,
    pub agent_id: Option<AgentId>,
    /// Only those that run, or only those that ended.
    pub running: Option<bool>,
}

/// The sessions of a [`Store`].
#[derive(Clone, Copy)]
pub struct Sessions<'a>(pub(super) &'a Store);

impl Sessions<'_> {
    /// Row and audit entry in one transaction, before the agent hears of it.
    pub async fn begin(&self, row: &SessionRow, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut write = self.0.write("sessions.begin").await?;
        let sql = Sql::new(
            "INSERT INTO sessions (id, kind, agent_id, owner, created_at_ms, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let sql = sql.bind(row.id.to_string()).bind(row.kind.word()).bind(&row.agent_id).bind(&row.owner);
        write.execute(sql.bind(row.created_at_ms).bind(row.detail.to_string())).await?;
        write.commit_audited(audit).await
    }

    /// False if it is not there or ended before: the first end counts. Few are written at once, whatever ends together;
    /// the others wait, and are told within two seconds that the store is busy.
    pub async fn end(
        &self,
        id: Uuid,
        at_ms: i64,
        reason: &str,
        detail: &Value,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let _place = self.0.ending().await?;
        let mut write = self.0.write("sessions.end").await?;
        let sql = Sql::new(
            "UPDATE sessions SET ended_at_ms = $1, end_reason = $2, detail = $3 WHERE id = $4 AND ended_at_ms IS NULL",
        );
        if write.execute(sql.bind(at_ms).bind(reason).bind(detail.to_string()).bind(id.to_string())).await? == 0 {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }

    pub async fn find(&self, id: Uuid) -> Result<Option<SessionRow>, StoreError> {
        let mut read = self.0.read("sessions.find").await?;
        let sql = Sql::new("SELECT * FROM sessions WHERE id = $1").bind(id.to_string());
        read.row(sql).await?.as_ref().map(session).transpose()
    }

    /// Those that no end was written for, oldest first: what a restarted master looks after.
    pub async fn open(&self) -> Result<Vec<SessionRow>, StoreError> {
        let mut read = self.0.read("sessions.open").await?;
        let sql = Sql::new("SELECT * FROM sessions WHERE ended_at_ms IS NULL ORDER BY created_at_ms, id");
        read.rows(sql).await?.iter().map(session).collect()
    }

    /// Newest first.
    pub async fn list(&self, filter: &SessionFilter, page: &Page) -> Result<Paged<SessionRow>, StoreError> {
        let mut sql = Sql::new("SELECT * FROM sessions WHERE 1 = 1");
        if let Some(kind) = filter.kind {
            sql = sql.push(" AND kind = ").push_bind(kind.word());
        }
        if let Some(agent) = &filter.agent_id {
            sql = sql.push(" AND agent_id = ").push_bind(agent);
        }
        match filter.running {
            Some(true) => sql = sql.push(" AND ended_at_ms IS NULL"),
            Some(false) => sql = sql.push(" AND ended_at_ms IS NOT NULL"),
            None => {}
        }
        if let Some((at_ms, id)) = page.after()? {
            sql = sql.push(" AND (created_at_ms < ").push_bind(at_ms).push(" OR (created_at_ms = ").push_bind(at_ms);
            sql = sql.push(" AND id < ").push_bind(id).push("))");
        }
        sql = sql.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(page.rows() + 1);
        let mut read = self.0.read("sessions.list").await?;
        let rows = read.rows(sql).await?.iter().map(session).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(rows, page, |row| (row.created_at_ms, row.id.to_string())))
    }
}

fn session(row: &AnyRow) -> Result<SessionRow, StoreError> {
    let columns = Columns(row);
    Ok(SessionRow {
        id: columns.parsed("id")?,
        kind: columns.parsed("kind")?,
        agent_id: columns.parsed("agent_id")?,
        owner: columns.text("owner")?,
        created_at_ms: columns.int("created_at_ms")?,
        ended_at_ms: columns.int_opt("ended_at_ms")?,
        end_reason: columns.text_opt("end_reason")?,
        detail: columns.json("detail")?,
    })
}
