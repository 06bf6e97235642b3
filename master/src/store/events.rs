//! Events on disk: the timeline of each agent and tunnel, and what a late reader of the bus resumes from.

use std::sync::Arc;

use proto::id::{AgentId, TunnelId};
use sqlx::any::AnyRow;

use super::{
    Store, StoreError,
    agents::select_labels,
    labels::Selector,
    sql::{Columns, Sql},
};
use crate::events::Event;

/// Rows of one INSERT: seven placeholders each, far below either engine's bound.
const ROWS_PER_INSERT: usize = 100;

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub agent_id: Option<AgentId>,
    pub tunnel_id: Option<TunnelId>,
    /// Over the labels of the event's agent; events without an agent pass only the empty selector.
    pub selector: Selector,
}

/// The events of a [`Store`].
#[derive(Clone, Copy)]
pub struct StoredEvents<'a>(pub(super) &'a Store);

impl StoredEvents<'_> {
    /// Appends a batch in one transaction. Ids that exist already are left alone, so that a batch may be tried again.
    pub async fn append(&self, batch: &[Arc<Event>]) -> Result<(), StoreError> {
        let mut write = self.0.background("events.append").await?;
        for chunk in batch.chunks(ROWS_PER_INSERT) {
            write.execute(insert(chunk)).await?;
        }
        write.commit().await
    }

    /// The highest id stored; 0 without any.
    pub async fn last_id(&self) -> Result<u64, StoreError> {
        let mut read = self.0.read("events.last_id").await?;
        let row = read.row(Sql::new("SELECT COALESCE(MAX(id), 0) AS last_id FROM events")).await?;
        row.map_or(Ok(0), |row| Columns(&row).unsigned("last_id"))
    }

    /// Events above `cursor`, oldest first.
    pub async fn after(&self, cursor: u64, filter: &EventFilter, limit: u32) -> Result<Vec<Event>, StoreError> {
        let sql = Sql::new("SELECT * FROM events WHERE id > ").push_bind(cursor);
        let sql = filtered(sql, filter).push(" ORDER BY id LIMIT ").push_bind(i64::from(limit));
        self.select("events.after", sql).await
    }

    /// Events below `before` (`None`: the newest), newest first: a timeline read backwards.
    pub async fn before(
        &self,
        before: Option<u64>,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let sql = Sql::new("SELECT * FROM events WHERE id < ").push_bind(before.unwrap_or(u64::MAX));
        let sql = filtered(sql, filter).push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
        self.select("events.before", sql).await
    }

    async fn select(&self, operation: &'static str, sql: Sql) -> Result<Vec<Event>, StoreError> {
        let mut read = self.0.read(operation).await?;
        read.rows(sql).await?.iter().map(event).collect()
    }
}

fn insert(chunk: &[Arc<Event>]) -> Sql {
    let mut sql = Sql::new("INSERT INTO events (id, at_ms, kind, agent_id, tunnel_id, reason, detail) VALUES ");
    for (index, event) in chunk.iter().enumerate() {
        sql = sql.push(if index == 0 { "(" } else { ", (" }).push_bind(event.id).push(", ").push_bind(event.at_ms);
        sql = sql.push(", ").push_bind(&event.kind).push(", ").push_bind(&event.agent_id).push(", ");
        sql = sql.push_bind(event.tunnel_id).push(", ").push_bind(&event.reason).push(", ");
        sql = sql.push_bind(event.detail.to_string()).push(")");
    }
    sql.push(" ON CONFLICT (id) DO NOTHING")
}

fn filtered(mut sql: Sql, filter: &EventFilter) -> Sql {
    if let Some(agent_id) = &filter.agent_id {
        sql = sql.push(" AND agent_id = ").push_bind(agent_id);
    }
    if let Some(tunnel_id) = filter.tunnel_id {
        sql = sql.push(" AND tunnel_id = ").push_bind(tunnel_id);
    }
    if !filter.selector.is_everything() {
        sql = sql.push(" AND agent_id IS NOT NULL");
    }
    select_labels(sql, "events.agent_id", &filter.selector)
}

fn event(row: &AnyRow) -> Result<Event, StoreError> {
    let columns = Columns(row);
    Ok(Event {
        id: columns.unsigned("id")?,
        at_ms: columns.int("at_ms")?,
        kind: columns.text("kind")?,
        agent_id: columns.parsed_opt("agent_id")?,
        tunnel_id: columns.parsed_opt("tunnel_id")?,
        reason: columns.text_opt("reason")?,
        detail: columns.json("detail")?,
    })
}
