//! Agents: registration, labels, what was last known of each. Presence is not here: it is the fleet's.

mod types;

use std::collections::BTreeMap;

use proto::id::AgentId;
use sqlx::any::AnyRow;

pub use types::{
    AddAgentError, Agent, AgentFilter, AgentPatch, AgentStatus, ConnectionType, Facts, Identity, NewAgent, NewSecret,
    PatchAgentError,
};

use super::{
    Page, Paged, Store, StoreError, Write,
    audit::AuditEntry,
    labels::{Labels, Selector},
    sql::{Columns, Sql},
};
use types::{agent, identity};

/// The agents of a [`Store`].
#[derive(Clone, Copy)]
pub struct Agents<'a>(pub(super) &'a Store);

const SELECT: &str = "SELECT a.*, (SELECT MAX(e.expires_at_ms) FROM enrolments e
    WHERE e.agent_id = a.id AND e.used_at_ms IS NULL) AS secret_expires_at_ms FROM agents a ";

impl Agents<'_> {
    pub async fn add(&self, new: NewAgent, audit: &AuditEntry) -> Result<(), AddAgentError> {
        let mut write = self.0.write("agents.add").await?;
        let sql = Sql::new(
            "INSERT INTO agents (id, status, external_id, created_at_ms, generation, connection_type)
             VALUES ($1, $2, $3, $4, 0, $5) ON CONFLICT (id) DO NOTHING",
        );
        let sql = sql.bind(&new.id).bind(AgentStatus::Unknown.word()).bind(new.external_id).bind(new.now_ms);
        match write.execute(sql.bind(ConnectionType::Tunnel.word())).await {
            Ok(0) => return Err(AddAgentError::Exists),
            Ok(_) => {}
            Err(StoreError::Exists) => return Err(AddAgentError::ExternalIdTaken),
            Err(error) => return Err(error.into()),
        }
        set_labels(&mut write, &new.id, &new.labels).await?;
        super::enrolments::set_secret(&mut write, &new.id, new.secret, new.now_ms).await?;
        Ok(write.commit_audited(audit).await?)
    }

    pub async fn find(&self, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        let mut agents = self.select("agents.find", Sql::new(SELECT).push("WHERE a.id = ").push_bind(id)).await?;
        Ok(agents.pop())
    }

    pub async fn by_external_id(&self, external_id: i64) -> Result<Option<Agent>, StoreError> {
        let sql = Sql::new(SELECT).push("WHERE a.external_id = ").push_bind(external_id);
        Ok(self.select("agents.by_external_id", sql).await?.pop())
    }

    pub async fn labels(&self, id: &AgentId) -> Result<Option<Labels>, StoreError> {
        Ok(self.find(id).await?.map(|agent| agent.labels))
    }

    /// Status and key, for the handshake.
    pub async fn identity(&self, id: &AgentId) -> Result<Option<Identity>, StoreError> {
        let mut read = self.0.read("agents.identity").await?;
        let sql = Sql::new("SELECT status, key_sha256, next_key_sha256, generation FROM agents WHERE id = $1").bind(id);
        read.row(sql).await?.as_ref().map(identity).transpose()
    }

    /// Ordered by id.
    pub async fn list(&self, filter: &AgentFilter, page: &Page) -> Result<Paged<Agent>, StoreError> {
        let mut sql = Sql::new(SELECT).push("WHERE 1 = 1");
        if let Some((_, id)) = page.after()? {
            sql = sql.push(" AND a.id > ").push_bind(id);
        }
        if let Some(status) = filter.status {
            sql = sql.push(" AND a.status = ").push_bind(status.word());
        }
        if let Some(search) = &filter.search {
            let pattern = like(search);
            sql = sql.push(" AND (a.id LIKE ").push_bind(pattern.clone()).push(" ESCAPE '!'");
            sql = sql.push(" OR LOWER(a.hostname) LIKE ").push_bind(pattern).push(" ESCAPE '!')");
        }
        sql = select_labels(sql, "a.id", &filter.selector).push(" ORDER BY a.id LIMIT ").push_bind(page.rows() + 1);
        let agents = self.select("agents.list", sql).await?;
        Ok(Paged::cut(agents, page, |agent| (0, agent.id.to_string())))
    }

    pub async fn patch(&self, id: &AgentId, patch: &AgentPatch, audit: &AuditEntry) -> Result<(), PatchAgentError> {
        let mut write = self.0.write("agents.patch").await?;
        if lock(&mut write, id).await?.is_none() {
            return Err(PatchAgentError::NotFound);
        }
        if let Some(external_id) = patch.external_id {
            let sql = Sql::new("UPDATE agents SET external_id = $1 WHERE id = $2").bind(external_id).bind(id);
            write.execute(sql).await.map_err(|error| match error {
                StoreError::Exists => PatchAgentError::ExternalIdTaken,
                other => other.into(),
            })?;
        }
        if let Some(labels) = &patch.labels {
            set_labels(&mut write, id, labels).await?;
        }
        if let Some(status) = patch.status {
            set_status(&mut write, id, status).await?;
        }
        Ok(write.commit_audited(audit).await?)
    }

    /// Suspends or resumes. False if there is no such agent.
    pub async fn set_status(&self, id: &AgentId, status: AgentStatus, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("agents.set_status").await?;
        if !set_status(&mut write, id, status).await? {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }

    /// Forgets the agent, its labels, secrets and key. Its tunnels' rows and its events stay. False if there was none.
    pub async fn remove(&self, id: &AgentId, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("agents.remove").await?;
        if write.execute(Sql::new("DELETE FROM agents WHERE id = $1").bind(id)).await? == 0 {
            return Ok(false);
        }
        write.execute(Sql::new("DELETE FROM agent_labels WHERE agent_id = $1").bind(id)).await?;
        write.execute(Sql::new("DELETE FROM enrolments WHERE agent_id = $1").bind(id)).await?;
        write.execute(Sql::new("DELETE FROM target_pins WHERE agent_id = $1").bind(id)).await?;
        write.commit_audited(audit).await.map(|()| true)
    }

    /// Replaces every secret of the agent, used or not. The key on record stays until the new secret is used. False if
    /// there is no such agent.
    pub async fn set_secret(
        &self,
        id: &AgentId,
        secret: NewSecret,
        now_ms: i64,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut write = self.0.write("agents.set_secret").await?;
        if lock(&mut write, id).await?.is_none() {
            return Ok(false);
        }
        super::enrolments::set_secret(&mut write, id, secret, now_ms).await?;
        write.commit_audited(audit).await.map(|()| true)
    }

    /// The line is up: `unknown` becomes `active`, the facts are kept. Returns the status after it, `None` for no such agent.
    pub async fn connected(&self, id: &AgentId, facts: &Facts, now_ms: i64) -> Result<Option<AgentStatus>, StoreError> {
        let mut write = self.0.background("agents.connected").await?;
        let sql = Sql::new(
            "UPDATE agents SET status = CASE WHEN status = 'unknown' THEN 'active' ELSE status END,
             connected_at_ms = $1, last_seen_ms = $2, disconnected_at_ms = NULL, disconnect_reason = NULL,
             carrier = $3, agent_version = $4, os = $5, arch = $6, hostname = $7 WHERE id = $8 RETURNING status",
        );
        let sql = sql.bind(now_ms).bind(now_ms).bind(&facts.carrier).bind(&facts.agent_version).bind(&facts.os);
        let sql = sql.bind(&facts.arch).bind(&facts.hostname).bind(id);
        let status = write.row(sql).await?.map(|row| Columns(&row).parsed("status")).transpose()?;
        write.commit().await?;
        Ok(status)
    }

    /// The line is gone, `reason` being the word of a code.
    pub async fn disconnected(&self, id: &AgentId, reason: &str, now_ms: i64) -> Result<(), StoreError> {
        let mut write = self.0.background("agents.disconnected").await?;
        let sql = Sql::new(
            "UPDATE agents SET disconnected_at_ms = $1, disconnect_reason = $2, last_seen_ms = $3 WHERE id = $4",
        );
        write.execute(sql.bind(now_ms).bind(reason).bind(now_ms).bind(id)).await?;
        write.commit().await
    }

    /// The effective policy as the agent told it.
    pub async fn set_policy(&self, id: &AgentId, policy: &str) -> Result<(), StoreError> {
        let mut write = self.0.background("agents.set_policy").await?;
        write.execute(Sql::new("UPDATE agents SET policy = $1 WHERE id = $2").bind(policy).bind(id)).await?;
        write.commit().await
    }

    /// Flushes last-seen times, one transaction for the batch. At most a few thousand at a time.
    pub async fn touch_last_seen(&self, batch: &[(AgentId, i64)]) -> Result<(), StoreError> {
        let mut write = self.0.background("agents.touch_last_seen").await?;
        for (id, seen_ms) in batch {
            let sql = Sql::new("UPDATE agents SET last_seen_ms = $1 WHERE id = $2 AND COALESCE(last_seen_ms, 0) < $3");
            write.execute(sql.bind(*seen_ms).bind(id).bind(*seen_ms)).await?;
        }
        write.commit().await
    }

    /// Runs an agent query, and one more for the labels of all it found.
    async fn select(&self, operation: &'static str, sql: Sql) -> Result<Vec<Agent>, StoreError> {
        let mut read = self.0.read(operation).await?;
        let mut agents = read.rows(sql).await?.iter().map(agent).collect::<Result<Vec<_>, _>>()?;
        if agents.is_empty() {
            return Ok(agents);
        }
        let mut sql = Sql::new("SELECT agent_id, key, value FROM agent_labels WHERE agent_id IN (");
        for (index, agent) in agents.iter().enumerate() {
            sql = sql.push(if index == 0 { "" } else { ", " }).push_bind(&agent.id);
        }
        let mut labels = labels(&read.rows(sql.push(")")).await?)?;
        for agent in &mut agents {
            agent.labels = labels.remove(agent.id.as_str()).unwrap_or_default();
        }
        Ok(agents)
    }
}

/// Locks the agent's row for the rest of the transaction (`FOR UPDATE` in words both engines know) and reads its identity.
pub(super) async fn lock(write: &mut Write, id: &AgentId) -> Result<Option<Identity>, StoreError> {
    let returning = "UPDATE agents SET id = id WHERE id = $1 RETURNING status, key_sha256, next_key_sha256, generation";
    let sql = Sql::new(returning).bind(id);
    write.row(sql).await?.as_ref().map(identity).transpose()
}

/// Adds `AND` conditions so that only rows whose agent matches the selector remain. `column` holds the agent's id.
pub(super) fn select_labels(mut sql: Sql, column: &'static str, selector: &Selector) -> Sql {
    for term in selector.terms() {
        sql = sql.push(if term.equal { " AND EXISTS (" } else { " AND NOT EXISTS (" });
        sql = sql.push("SELECT 1 FROM agent_labels l WHERE l.agent_id = ").push(column);
        sql = sql.push(" AND l.key = ").push_bind(&term.key).push(" AND l.value = ").push_bind(&term.value).push(")");
    }
    sql
}

async fn set_status(write: &mut Write, id: &AgentId, status: AgentStatus) -> Result<bool, StoreError> {
    let sql = match status {
        AgentStatus::Suspended => Sql::new("UPDATE agents SET status = 'suspended' WHERE id = $1"),
        AgentStatus::Active | AgentStatus::Unknown => Sql::new(
            "UPDATE agents SET status = CASE WHEN connected_at_ms IS NULL THEN 'unknown' ELSE 'active' END WHERE id = $1",
        ),
    };
    Ok(write.execute(sql.bind(id)).await? > 0)
}

pub(super) async fn set_labels(write: &mut Write, id: &AgentId, labels: &Labels) -> Result<(), StoreError> {
    write.execute(Sql::new("DELETE FROM agent_labels WHERE agent_id = $1").bind(id)).await?;
    for (key, value) in labels.iter() {
        let sql = Sql::new("INSERT INTO agent_labels (agent_id, key, value) VALUES ($1, $2, $3)");
        write.execute(sql.bind(id).bind(key).bind(value)).await?;
    }
    Ok(())
}

/// `%text%` in lower case with LIKE's own characters escaped by `!`.
fn like(search: &str) -> String {
    let mut pattern = String::from("%");
    for character in search.to_lowercase().chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

/// The labels in the rows, by agent.
fn labels(rows: &[AnyRow]) -> Result<BTreeMap<String, Labels>, StoreError> {
    let mut pairs: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in rows {
        let columns = Columns(row);
        pairs.entry(columns.text("agent_id")?).or_default().insert(columns.text("key")?, columns.text("value")?);
    }
    let checked = |map: BTreeMap<_, _>| Labels::try_from(map).map_err(|error| StoreError::Corrupt(error.to_string()));
    pairs.into_iter().map(|(agent_id, map)| Ok((agent_id, checked(map)?))).collect()
}
