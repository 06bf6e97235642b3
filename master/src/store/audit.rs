//! The audit chain on disk. Each row's hash covers the one before it, so that a changed, removed or inserted row shows.
//! Rows are written by the transaction whose effect they tell of, or before it (SECURITY R62).

use proto::id::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    MAINTENANCE_WITHIN, Page, Paged, Store, StoreError, Write,
    sql::{Columns, Sql},
};

/// Rows verified per query.
const VERIFY_BATCH: i64 = 1_000;

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
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Operator(id) => write!(f, "operator:{id}"),
            Self::Agent(id) => write!(f, "agent:{id}"),
            Self::Local => f.write_str("local"),
            Self::Master => f.write_str("master"),
        }
    }
}

impl Actor {
    /// Begins an entry at the wall clock's time.
    pub fn did(&self, action: &'static str) -> AuditEntry {
        AuditEntry::new(crate::clock::unix_ms(), self.to_string(), action)
    }
}

/// One row of the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    pub seq: u64,
    pub entry: AuditEntry,
    pub hash: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every row from `first` to `last` holds. `last` is 0 for an empty chain.
    Whole { first: u64, last: u64 },
    /// The first row that does not.
    Broken { seq: u64, why: &'static str },
}

impl Store {
    /// Writes one entry durably, for an effect outside the database: call it before the effect.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.write("audit.append").await?.commit_audited(entry).await
    }

    /// The chain, newest first.
    pub async fn audit_rows(&self, agent_id: Option<&AgentId>, page: &Page) -> Result<Paged<AuditRow>, StoreError> {
        let before = page.after()?.map_or(i64::MAX, |(seq, _)| seq);
        let mut sql = Sql::new("SELECT seq, body, hash FROM audit WHERE seq < ").push_bind(before);
        if let Some(agent_id) = agent_id {
            sql = sql.push(" AND agent_id = ").push_bind(agent_id);
        }
        sql = sql.push(" ORDER BY seq DESC LIMIT ").push_bind(page.rows() + 1);
        let mut read = self.read("audit.rows").await?;
        let rows = read.rows(sql).await?.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(rows, page, |row| (i64::try_from(row.seq).unwrap_or(i64::MAX), String::new())))
    }

    /// Recomputes the whole chain.
    pub async fn verify_audit(&self) -> Result<Verdict, StoreError> {
        let mut read = self.read_within("audit.verify", MAINTENANCE_WITHIN).await?;
        let Some(head) = read.row(Sql::new("SELECT * FROM audit_head WHERE id = 1")).await? else {
            return Ok(Verdict::Broken { seq: 0, why: "the head row is gone" });
        };
        let head = Columns(&head);
        // The head may move on while rows are read: what is checked is the chain up to it.
        let (end, end_hash) = (head.int("seq")?, head.text("hash")?);
        let (floor, mut previous) = (head.int("floor_seq")?, head.text("floor_hash")?);
        let mut seq = floor;
        while seq < end {
            let sql = Sql::new("SELECT * FROM audit WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3");
            let batch = read.rows(sql.bind(seq).bind(end).bind(VERIFY_BATCH)).await?;
            if batch.is_empty() {
                return Ok(broken(seq + 1, "rows are missing at the end"));
            }
            for row in &batch {
                seq += 1;
                if let Some(why) = fault(&Columns(row), seq, &previous)? {
                    return Ok(broken(seq, why));
                }
                previous = Columns(row).text("hash")?;
            }
        }
        if previous != end_hash {
            return Ok(broken(end, "the head does not match the last row"));
        }
        Ok(Verdict::Whole { first: unsigned(floor + 1), last: unsigned(end) })
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
    let sql =
        Sql::new("INSERT INTO audit (seq, at_ms, agent_id, body, previous, hash) VALUES ($1, $2, $3, $4, $5, $6)");
    let sql = sql.bind(seq).bind(entry.at_ms).bind(&entry.agent_id).bind(body).bind(previous).bind(&hash);
    write.execute(sql).await?;
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

/// Why this row does not continue the chain.
fn fault(row: &Columns<'_>, seq: i64, previous: &str) -> Result<Option<&'static str>, StoreError> {
    let body = row.text("body")?;
    let Ok(entry) = serde_json::from_str::<AuditEntry>(&body) else {
        return Ok(Some("its body is unreadable"));
    };
    let beside = entry.at_ms == row.int("at_ms")? && entry.agent_id == row.parsed_opt("agent_id")?;
    let fault = if row.int("seq")? != seq {
        Some("a row before it is missing")
    } else if row.text("previous")? != previous {
        Some("it does not follow the row before it")
    } else if row.text("hash")? != chain(previous, &body) {
        Some("its body was changed")
    } else if !beside {
        Some("its columns differ from its body")
    } else {
        None
    };
    Ok(fault)
}

fn row(row: &sqlx::any::AnyRow) -> Result<AuditRow, StoreError> {
    let columns = Columns(row);
    let entry = serde_json::from_value(columns.json("body")?);
    let entry = entry.map_err(|_| StoreError::Corrupt("an audit row is unreadable".to_owned()))?;
    Ok(AuditRow { seq: columns.unsigned("seq")?, entry, hash: columns.text("hash")? })
}

fn broken(seq: i64, why: &'static str) -> Verdict {
    Verdict::Broken { seq: unsigned(seq), why }
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
