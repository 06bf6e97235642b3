//! The audit chain on disk. Each row's hash covers the one before it, so that a changed, removed or inserted row shows.
//! Rows are written by the transaction whose effect they tell of, or before it (SECURITY R62). This file owns entries and
//! how they enter the chain; reading and verifying have files of their own.

mod read;
mod verify;

use proto::id::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

use super::{
    Store, StoreError, Write,
    sql::{Columns, Sql},
};

pub use read::{AuditFilter, AuditRow, Outcome};
pub use verify::Verdict;

/// Rows looked at per query where all of them are.
const BATCH: i64 = 1_000;

/// What stands in the columns of a row whose body cannot be read.
const UNREADABLE: &str = "unreadable";

/// Who did what, on which agent, from where, with which result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at_ms: i64,
    /// `token:<id>`, `agent:<id>`, `local` or `master`.
    pub actor: String,
    /// A dotted word: `agent.suspend`, `tunnel.open`, `exec.start`, …
    pub action: String,
    pub agent_id: Option<AgentId>,
    /// The id of what it was done to, where that is not the agent.
    pub object: Option<String>,
    /// The peer's address.
    pub source: Option<String>,
    /// `ok`, or the word of a code.
    pub result: String,
    /// Further facts: an object, or null. Never a secret.
    pub detail: Value,
}

impl AuditEntry {
    pub fn new(at_ms: i64, actor: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            at_ms,
            actor: actor.into(),
            action: action.into(),
            agent_id: None,
            object: None,
            source: None,
            result: "ok".to_owned(),
            detail: Value::Null,
        }
    }

    pub fn agent(mut self, id: &AgentId) -> Self {
        self.agent_id = Some(id.clone());
        self
    }

    pub fn object(mut self, id: impl ToString) -> Self {
        self.object = Some(id.to_string());
        self
    }

    pub fn source(mut self, address: impl ToString) -> Self {
        self.source = Some(address.to_string());
        self
    }

    pub fn result(mut self, word: impl ToString) -> Self {
        self.result = word.to_string();
        self
    }

    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An API caller, by token id.
    Token(String),
    /// A person, by operator id.
    Operator(String),
    Agent(AgentId),
    /// Someone on the master's own host.
    Local,
    /// The master itself: a deadline, a restart.
    Master,
    /// Nobody the master knows: a failed login.
    Anonymous,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Local => f.write_str("local"),
            Self::Master => f.write_str("master"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

impl Actor {
    /// Begins an entry at the wall clock's time.
    pub fn did(&self, action: &'static str) -> AuditEntry {
        AuditEntry::new(crate::clock::unix_ms(), self.to_string(), action)
    }
}

impl Store {
    /// Writes one entry durably, for an effect outside the database: call it before the effect.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.write("audit.append").await?.commit_audited(entry).await
    }
}

/// Adds the entry to the chain. The head's row lock puts all transactions in one order until they commit.
pub(super) async fn append(write: &mut Write, entry: &AuditEntry) -> Result<(), StoreError> {
    let sql = Sql::new("UPDATE audit_head SET seq = seq + 1 WHERE id = 1 RETURNING seq, hash");
    let Some(head) = write.row(sql).await? else {
        return Err(StoreError::Corrupt("the head of the audit chain is gone".to_owned()));
    };
    let (seq, previous) = (Columns(&head).int("seq")?, Columns(&head).text("hash")?);
    // The row holds what PostgreSQL can hold, and the hash covers what the row holds: JSON escapes NUL by itself.
    let body = canonical(entry);
    let hash = chain(&previous, &body);
    let sql = Sql::new(
        "INSERT INTO audit (seq, at_ms, agent_id, body, previous, hash, actor, action, result)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    let sql = sql.bind(seq).bind(entry.at_ms).bind(&entry.agent_id).bind(body).bind(previous).bind(&hash);
    write.execute(sql.bind(&entry.actor).bind(&entry.action).bind(&entry.result)).await?;
    write.execute(Sql::new("UPDATE audit_head SET hash = $1 WHERE id = 1").bind(hash)).await?;
    Ok(())
}

/// JSON with every object sorted by key. The hash covers this text as it is stored, so no reader has to make it again.
fn canonical(entry: &AuditEntry) -> String {
    // An entry holds strings, integers and a `Value`: it always serialises.
    serde_json::to_value(entry).map(|value| value.to_string()).unwrap_or_default()
}

fn chain(previous: &str, body: &str) -> String {
    hex::encode(Sha256::new().chain_update(previous).chain_update("\n").chain_update(body).finalize())
}

/// Fills the columns that are copies of the body, for rows written before there were such columns. Part of migrating.
pub(super) async fn fill(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mut last = 0;
    loop {
        let sql = Sql::new("SELECT seq, body FROM audit WHERE actor = '' AND seq > $1 ORDER BY seq LIMIT $2");
        let sql = sql.bind(last).bind(BATCH);
        let rows = sql.query().fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let (seq, body) = (row.try_get::<i64, _>("seq")?, row.try_get::<String, _>("body")?);
            let entry = serde_json::from_str::<AuditEntry>(&body);
            // A body nobody can read is for verification to report, not for the start to fail on.
            let unreadable = |_| AuditEntry::new(0, UNREADABLE, UNREADABLE).result(UNREADABLE);
            let entry = entry.unwrap_or_else(unreadable);
            let sql = Sql::new("UPDATE audit SET actor = $1, action = $2, result = $3 WHERE seq = $4");
            let sql = sql.bind(&entry.actor).bind(&entry.action).bind(&entry.result).bind(seq);
            sql.query().execute(&mut *connection).await?;
            last = seq;
        }
    }
}
