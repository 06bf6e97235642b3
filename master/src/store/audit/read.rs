//! The audit trail as it is looked at: filtered in SQL, newest first by page, or oldest first from a place on. Must not
//! judge the chain: a row that was tampered with is shown as well as it can be, and `verify` says what is wrong with it.

use std::collections::{BTreeSet, HashMap};

use proto::id::AgentId;
use sqlx::any::AnyRow;

use super::{AuditEntry, UNREADABLE};
use crate::store::{
    Page, Paged, Store, StoreError,
    agents::select_labels,
    labels::Selector,
    sql::{Columns, Sql},
};

/// The kinds of actors that have names, as they stand before the id, and where the names are.
const NAMED: [(&str, &str); 2] =
    [("token:", "SELECT id, name FROM tokens"), ("operator:", "SELECT id, name FROM operators")];
/// Ids asked for by name in one query: far below either engine's bound of placeholders.
const NAMES_PER_QUERY: usize = 200;
const COLUMNS: &str = "SELECT seq, at_ms, agent_id, body, previous, hash, actor, action, result FROM audit WHERE seq";

/// One row of the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    pub seq: u64,
    pub entry: AuditEntry,
    /// The very text that the hash covers.
    pub body: String,
    /// The hash of the row before it.
    pub previous: String,
    pub hash: String,
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub agent_id: Option<AgentId>,
    /// Over the present labels of the row's agent; rows without an agent, or of one that was removed, pass only the
    /// empty selector.
    pub selector: Selector,
    /// An actor as it stands in the rows (`token:<id>`, `master`), a kind of actor (`token`), or a name of one.
    pub actor: Option<String>,
    /// An action (`tunnel.open`), or the first word of several (`tunnel`).
    pub action: Option<String>,
    pub outcome: Option<Outcome>,
    /// At or after.
    pub since_ms: Option<i64>,
    /// Before.
    pub until_ms: Option<i64>,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Anything but `ok`.
    Failed,
    Word(String),
}

impl Store {
    /// Newest first.
    pub async fn audit_rows(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, StoreError> {
        let before = page.after()?.map_or(i64::MAX, |(seq, _)| seq);
        let sql = Sql::new(COLUMNS).push(" < ").push_bind(before);
        let sql = filtered(sql, filter).push(" ORDER BY seq DESC LIMIT ").push_bind(page.rows() + 1);
        let rows = self.select_audit("audit.rows", sql).await?;
        Ok(Paged::cut(rows, page, |row| (i64::try_from(row.seq).unwrap_or(i64::MAX), String::new())))
    }

    /// Those above `after`, oldest first: what an export reads, and a follower.
    pub async fn audit_after(&self, after: u64, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let sql = Sql::new(COLUMNS).push(" > ").push_bind(after);
        let sql = filtered(sql, filter).push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit));
        self.select_audit("audit.after", sql).await
    }

    async fn select_audit(&self, operation: &'static str, sql: Sql) -> Result<Vec<AuditRow>, StoreError> {
        let mut read = self.read(operation).await?;
        read.rows(sql).await?.iter().map(row).collect()
    }

    /// Names of these actors, where they still have one: a token that retention took has none, nor has a removed account.
    pub async fn actor_names<'a>(
        &self,
        actors: impl Iterator<Item = &'a str>,
    ) -> Result<HashMap<String, String>, StoreError> {
        let actors: BTreeSet<_> = actors.collect();
        let mut names = HashMap::new();
        for (kind, select) in NAMED {
            let ids: Vec<_> = actors.iter().filter_map(|actor| actor.strip_prefix(kind)).collect();
            for chunk in ids.chunks(NAMES_PER_QUERY) {
                let mut sql = Sql::new(select).push(" WHERE id IN (");
                for (index, id) in chunk.iter().enumerate() {
                    sql = sql.push(if index == 0 { "" } else { ", " }).push_bind(*id);
                }
                let mut read = self.read("audit.names").await?;
                for row in read.rows(sql.push(")")).await? {
                    let columns = Columns(&row);
                    names.insert(format!("{kind}{}", columns.text("id")?), columns.text("name")?);
                }
            }
        }
        Ok(names)
    }
}

fn filtered(mut sql: Sql, filter: &AuditFilter) -> Sql {
    if let Some(agent_id) = &filter.agent_id {
        sql = sql.push(" AND agent_id = ").push_bind(agent_id);
    }
    if let Some(actor) = &filter.actor {
        sql = of_actor(sql, actor);
    }
    if let Some(action) = &filter.action {
        sql = sql.push(" AND (action = ").push_bind(action);
        sql = starting(sql.push(" OR "), "action", format!("{action}.")).push(")");
    }
    match &filter.outcome {
        Some(Outcome::Failed) => sql = sql.push(" AND result <> 'ok'"),
        Some(Outcome::Word(word)) => sql = sql.push(" AND result = ").push_bind(word),
        None => {}
    }
    if let Some(since_ms) = filter.since_ms {
        sql = sql.push(" AND at_ms >= ").push_bind(since_ms);
    }
    if let Some(until_ms) = filter.until_ms {
        sql = sql.push(" AND at_ms < ").push_bind(until_ms);
    }
    if !filter.selector.is_everything() {
        sql = sql.push(" AND agent_id IS NOT NULL AND EXISTS (SELECT 1 FROM agents a WHERE a.id = audit.agent_id)");
    }
    select_labels(sql, "audit.agent_id", &filter.selector)
}

fn of_actor(sql: Sql, actor: &str) -> Sql {
    match actor {
        "token" | "agent" | "operator" => starting(sql.push(" AND "), "actor", format!("{actor}:")),
        "local" | "master" => sql.push(" AND actor = ").push_bind(actor),
        full if full.contains(':') => sql.push(" AND actor = ").push_bind(full),
        name => {
            let sql = sql.push(" AND (actor = ").push_bind(format!("agent:{name}"));
            let sql = sql.push(" OR actor IN (SELECT 'token:' || id FROM tokens WHERE name = ").push_bind(name);
            let sql = sql.push(") OR actor IN (SELECT 'operator:' || id FROM operators WHERE name = ");
            sql.push_bind(name.to_lowercase()).push("))")
        }
    }
}

/// A comparison of beginnings that no collation bends.
fn starting(sql: Sql, column: &'static str, prefix: String) -> Sql {
    let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
    let sql = sql.push("SUBSTR(").push(column).push(", 1, CAST(").push_bind(length);
    sql.push(" AS INTEGER)) = ").push_bind(prefix)
}

fn row(row: &AnyRow) -> Result<AuditRow, StoreError> {
    let columns = Columns(row);
    let body = columns.text("body")?;
    let entry = serde_json::from_str(&body).or_else(|_| beside(&columns))?;
    let (previous, hash) = (columns.text("previous")?, columns.text("hash")?);
    Ok(AuditRow { seq: columns.unsigned("seq")?, entry, body, previous, hash })
}

/// What the columns still tell of a row whose body cannot be read.
fn beside(columns: &Columns<'_>) -> Result<AuditEntry, StoreError> {
    let entry = AuditEntry::new(columns.int("at_ms")?, columns.text("actor")?, columns.text("action")?);
    let agent_id = columns.text_opt("agent_id")?.and_then(|id| id.parse().ok());
    Ok(AuditEntry { agent_id, ..entry.result(UNREADABLE) })
}
