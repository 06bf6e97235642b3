//! Sessions of people as rows: begun by a login, found by the hash of a cookie, ended one by one or all at once.

use sqlx::any::AnyRow;

use super::{
    super::{
        Sha256, Store, StoreError,
        audit::AuditEntry,
        sql::{Columns, Sql},
    },
    Operator, OperatorSession, operator,
};

/// Sessions of one person at once; the oldest go.
const SESSIONS_MAX: i64 = 50;

/// The sessions of people of a [`Store`].
#[derive(Clone, Copy)]
pub struct OperatorSessions<'a>(pub(in super::super) &'a Store);

impl OperatorSessions<'_> {
    /// Session and audit row in one transaction. False if the person was removed meanwhile.
    pub async fn begin(&self, session: &OperatorSession, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("operator_sessions.begin").await?;
        let sql = Sql::new("UPDATE operators SET last_login_at_ms = $1 WHERE id = $2");
        if write.execute(sql.bind(session.created_at_ms).bind(&session.operator_id)).await? == 0 {
            return Ok(false);
        }
        let sql = Sql::new(
            "DELETE FROM operator_sessions WHERE operator_id = $1 AND id NOT IN
             (SELECT id FROM operator_sessions WHERE operator_id = $2 ORDER BY created_at_ms DESC, id DESC LIMIT $3)",
        );
        write.execute(sql.bind(&session.operator_id).bind(&session.operator_id).bind(SESSIONS_MAX - 1)).await?;
        let sql = Sql::new(
            "INSERT INTO operator_sessions (id, operator_id, secret_sha256, socket, source, user_agent, created_at_ms,
             seen_at_ms, proved_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        );
        let sql = sql.bind(&session.id).bind(&session.operator_id).bind(&session.sha256).bind(&session.socket);
        let sql = sql.bind(&session.source).bind(&session.user_agent).bind(session.created_at_ms);
        let sql = sql.bind(session.seen_at_ms).bind(session.proved_at_ms).bind(session.expires_at_ms);
        write.execute(sql).await?;
        write.commit_audited(audit).await.map(|()| true)
    }

    /// By the hash of what a cookie held, with its person; ended by time or not.
    pub async fn by_sha256(&self, sha256: &Sha256) -> Result<Option<(OperatorSession, Operator)>, StoreError> {
        let sql = Sql::new("SELECT * FROM operator_sessions WHERE secret_sha256 = $1").bind(sha256);
        self.with_person("operator_sessions.by_sha256", sql).await
    }

    pub async fn find(&self, id: &str) -> Result<Option<(OperatorSession, Operator)>, StoreError> {
        let sql = Sql::new("SELECT * FROM operator_sessions WHERE id = $1").bind(id);
        self.with_person("operator_sessions.find", sql).await
    }

    async fn with_person(
        &self,
        operation: &'static str,
        sql: Sql,
    ) -> Result<Option<(OperatorSession, Operator)>, StoreError> {
        let mut read = self.0.read(operation).await?;
        let Some(row) = read.row(sql).await? else { return Ok(None) };
        let session = session(&row)?;
        let sql = Sql::new("SELECT * FROM operators WHERE id = $1").bind(&session.operator_id);
        let person = read.row(sql).await?.as_ref().map(operator).transpose()?;
        Ok(person.map(|person| (session, person)))
    }

    /// Those of one person, newest first; at most [`SESSIONS_MAX`].
    pub async fn list(&self, operator_id: &str) -> Result<Vec<OperatorSession>, StoreError> {
        let mut read = self.0.read("operator_sessions.list").await?;
        let sql =
            Sql::new("SELECT * FROM operator_sessions WHERE operator_id = $1 ORDER BY created_at_ms DESC, id DESC");
        read.rows(sql.bind(operator_id)).await?.iter().map(session).collect()
    }

    /// It was used. A power cut may forget that.
    pub async fn seen(&self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        let mut write = self.0.background("operator_sessions.seen").await?;
        let sql = Sql::new("UPDATE operator_sessions SET seen_at_ms = $1 WHERE id = $2");
        write.execute(sql.bind(now_ms).bind(id)).await?;
        write.commit().await
    }

    /// The person proved again to be one. False if the session is gone.
    pub async fn proved(&self, id: &str, now_ms: i64, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("operator_sessions.proved").await?;
        let sql = Sql::new("UPDATE operator_sessions SET proved_at_ms = $1, seen_at_ms = $2 WHERE id = $3");
        if write.execute(sql.bind(now_ms).bind(now_ms).bind(id)).await? == 0 {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }

    /// False if that person has no such session.
    pub async fn end(&self, operator_id: &str, id: &str, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("operator_sessions.end").await?;
        let sql = Sql::new("DELETE FROM operator_sessions WHERE operator_id = $1 AND id = $2");
        if write.execute(sql.bind(operator_id).bind(id)).await? == 0 {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }
}

fn session(row: &AnyRow) -> Result<OperatorSession, StoreError> {
    let columns = Columns(row);
    Ok(OperatorSession {
        id: columns.text("id")?,
        operator_id: columns.text("operator_id")?,
        sha256: columns.hash_opt("secret_sha256")?.unwrap_or_default(),
        socket: columns.text("socket")?,
        source: columns.text_opt("source")?,
        user_agent: columns.text_opt("user_agent")?,
        created_at_ms: columns.int("created_at_ms")?,
        seen_at_ms: columns.int("seen_at_ms")?,
        proved_at_ms: columns.int("proved_at_ms")?,
        expires_at_ms: columns.int("expires_at_ms")?,
    })
}
