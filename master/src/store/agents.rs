//! Agents: registration, labels, what was last known of each. Presence is not here: it is the fleet's.

use proto::id::AgentId;
use sqlx::any::AnyRow;

use super::{
    Page, Paged, Sha256, Store, StoreError, Write,
    audit::AuditEntry,
    labels::{Labels, Selector},
    sql::{Columns, Sql},
    words,
};

words! {
    /// Registration status. Never mixed with presence.
    AgentStatus {
        /// Registered, not yet seen.
        Unknown = "unknown",
        Active = "active",
        Suspended = "suspended",
    }
}

words! {
    ConnectionType {
        /// Through its line.
        Tunnel = "tunnel",
        /// Reached directly; comes later.
        Standard = "standard",
    }
}

/// One registered agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub id: AgentId,
    pub status: AgentStatus,
    /// The integer by which a panel knows it; unique.
    pub external_id: Option<i64>,
    pub labels: Labels,
    pub created_at_ms: i64,
    /// SHA-256 of the public key on record; `None` before enrolment and after a new secret was used by nobody.
    pub key_sha256: Option<Sha256>,
    /// Counts issued certificates.
    pub generation: u64,
    pub certificate_not_after_ms: Option<i64>,
    /// When the unused enrolment secret runs out; `None` without one.
    pub secret_expires_at_ms: Option<i64>,
    pub connection_type: ConnectionType,
    pub connected_at_ms: Option<i64>,
    pub last_seen_ms: Option<i64>,
    pub disconnected_at_ms: Option<i64>,
    /// The code word of why the last line ended; `None` while the last thing known is that it connected.
    pub disconnect_reason: Option<String>,
    pub carrier: Option<String>,
    pub agent_version: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub hostname: Option<String>,
    /// The effective policy as the agent told it, TOML text.
    pub policy: Option<String>,
}

/// A new agent and its enrolment secret.
#[derive(Debug, Clone)]
pub struct NewAgent {
    pub id: AgentId,
    pub external_id: Option<i64>,
    pub labels: Labels,
    pub secret: NewSecret,
    pub now_ms: i64,
}

/// An enrolment secret: only its hash comes here.
#[derive(Debug, Clone, Copy)]
pub struct NewSecret {
    pub sha256: Sha256,
    pub expires_at_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AddAgentError {
    #[error("an agent with this id exists already")]
    Exists,
    #[error("another agent has this external_id")]
    ExternalIdTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    pub labels: Option<Labels>,
    /// `Some(None)` takes the external id away.
    pub external_id: Option<Option<i64>>,
    /// `Active` resumes: an agent never seen becomes `unknown` again.
    pub status: Option<AgentStatus>,
}

#[derive(Debug, thiserror::Error)]
pub enum PatchAgentError {
    #[error("no such agent")]
    NotFound,
    #[error("another agent has this external_id")]
    ExternalIdTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which agents a list shows.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    /// The caller's scope and its question, joined by [`Selector::and`].
    pub selector: Selector,
    pub status: Option<AgentStatus>,
    /// Part of the id or hostname, any case.
    pub search: Option<String>,
}

/// What is checked at every Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub status: AgentStatus,
    pub key_sha256: Option<Sha256>,
    pub generation: u64,
}

/// What an agent told of itself in Hello.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub carrier: String,
    pub agent_version: String,
    pub os: String,
    pub arch: String,
    pub hostname: String,
}

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
        let sql = Sql::new("SELECT status, key_sha256, generation FROM agents WHERE id = $1").bind(id);
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

    /// Runs an agent query and adds each agent's labels.
    async fn select(&self, operation: &'static str, sql: Sql) -> Result<Vec<Agent>, StoreError> {
        let mut read = self.0.read(operation).await?;
        let mut agents = read.rows(sql).await?.iter().map(agent).collect::<Result<Vec<_>, _>>()?;
        for agent in &mut agents {
            let sql = Sql::new("SELECT key, value FROM agent_labels WHERE agent_id = $1").bind(&agent.id);
            agent.labels = labels(&read.rows(sql).await?)?;
        }
        Ok(agents)
    }
}

/// Locks the agent's row for the rest of the transaction (`FOR UPDATE` in words both engines know) and reads its identity.
pub(super) async fn lock(write: &mut Write, id: &AgentId) -> Result<Option<Identity>, StoreError> {
    let sql = Sql::new("UPDATE agents SET id = id WHERE id = $1 RETURNING status, key_sha256, generation").bind(id);
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

async fn set_labels(write: &mut Write, id: &AgentId, labels: &Labels) -> Result<(), StoreError> {
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

fn identity(row: &AnyRow) -> Result<Identity, StoreError> {
    let columns = Columns(row);
    let (status, key_sha256) = (columns.parsed("status")?, columns.hash_opt("key_sha256")?);
    Ok(Identity { status, key_sha256, generation: columns.unsigned("generation")? })
}

fn labels(rows: &[AnyRow]) -> Result<Labels, StoreError> {
    let pair = |row| Ok((Columns(row).text("key")?, Columns(row).text("value")?));
    let map = rows.iter().map(pair).collect::<Result<std::collections::BTreeMap<_, _>, StoreError>>()?;
    Labels::try_from(map).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn agent(row: &AnyRow) -> Result<Agent, StoreError> {
    let columns = Columns(row);
    Ok(Agent {
        id: columns.parsed("id")?,
        status: columns.parsed("status")?,
        external_id: columns.int_opt("external_id")?,
        labels: Labels::default(),
        created_at_ms: columns.int("created_at_ms")?,
        key_sha256: columns.hash_opt("key_sha256")?,
        generation: columns.unsigned("generation")?,
        certificate_not_after_ms: columns.int_opt("certificate_not_after_ms")?,
        secret_expires_at_ms: columns.int_opt("secret_expires_at_ms")?,
        connection_type: columns.parsed("connection_type")?,
        connected_at_ms: columns.int_opt("connected_at_ms")?,
        last_seen_ms: columns.int_opt("last_seen_ms")?,
        disconnected_at_ms: columns.int_opt("disconnected_at_ms")?,
        disconnect_reason: columns.text_opt("disconnect_reason")?,
        carrier: columns.text_opt("carrier")?,
        agent_version: columns.text_opt("agent_version")?,
        os: columns.text_opt("os")?,
        arch: columns.text_opt("arch")?,
        hostname: columns.text_opt("hostname")?,
        policy: columns.text_opt("policy")?,
    })
}
