//! Tunnels as rows. The lifecycle is not here: it decides, this file keeps. A final row never opens again.

mod types;

use proto::id::{AgentId, TunnelId};
use sqlx::any::AnyRow;

pub use types::{
    Counters, Health, InsertTunnelError, ListenKind, Reconciled, Scheme, Tunnel, TunnelFilter, TunnelStatus,
    TunnelTarget,
};

use super::{Page, Paged, Store, StoreError, Write, agents::select_labels, audit::AuditEntry, sql::Sql};
use types::tunnel;

/// The tunnels of a [`Store`].
#[derive(Clone, Copy)]
pub struct Tunnels<'a>(pub(super) &'a Store);

const SELECT: &str = "SELECT t.* FROM tunnels t ";
const OPEN: &str = "t.status IN ('pending', 'active')";

impl Tunnels<'_> {
    pub async fn insert(&self, tunnel: &Tunnel, audit: &AuditEntry) -> Result<(), InsertTunnelError> {
        let mut write = self.0.write("tunnels.insert").await?;
        let sql = Sql::new(
            "INSERT INTO tunnels (id, agent_id, owner, target_host, target_port, target_scheme, standing, created_at_ms,
             idempotency_key, listen_kind, listen, port, heartbeat, ttl_ms, status, health, health_since_ms,
             health_reason, closed_reason, tunnel_pid, tunnel_port, started_at_ms, last_heartbeat_ms, expires_at_ms,
             closed_at_ms, bytes_in, bytes_out, probe)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
             $22, $23, $24, $25, $26, $27, $28)",
        );
        let target = &tunnel.target;
        let sql = sql.bind(tunnel.id).bind(&tunnel.agent_id).bind(&tunnel.owner).bind(&target.host).bind(target.port);
        let sql = sql.bind(target.scheme.word()).bind(tunnel.standing).bind(tunnel.created_at_ms);
        let sql = bind_changing(sql.bind(&tunnel.idempotency_key), tunnel);
        let sql = sql.bind(tunnel.bytes_in).bind(tunnel.bytes_out).bind(tunnel.probe.to_string());
        write.execute(sql).await.map_err(|error| match error {
            StoreError::Exists => InsertTunnelError::Exists,
            other => other.into(),
        })?;
        Ok(write.commit_audited(audit).await?)
    }

    /// Writes every column that may change. False, and nothing written, if the row is final already or absent. With an
    /// audit entry both are one transaction; a final state is always durable when this returns.
    pub async fn update(&self, tunnel: &Tunnel, audit: Option<&AuditEntry>) -> Result<bool, StoreError> {
        let mut write = self.0.write("tunnels.update").await?;
        if !update(&mut write, tunnel).await? {
            return Ok(false);
        }
        match audit {
            Some(entry) => write.commit_audited(entry).await?,
            None => write.commit().await?,
        }
        Ok(true)
    }

    pub async fn find(&self, id: TunnelId) -> Result<Option<Tunnel>, StoreError> {
        let sql = Sql::new(SELECT).push("WHERE t.id = ").push_bind(id);
        Ok(self.select("tunnels.find", sql).await?.pop())
    }

    /// Newest first.
    pub async fn list(&self, filter: &TunnelFilter, page: &Page) -> Result<Paged<Tunnel>, StoreError> {
        let mut sql = Sql::new(SELECT).push("WHERE 1 = 1");
        if let Some((at_ms, id)) = page.after()? {
            sql =
                sql.push(" AND (t.created_at_ms < ").push_bind(at_ms).push(" OR (t.created_at_ms = ").push_bind(at_ms);
            sql = sql.push(" AND t.id < ").push_bind(id).push("))");
        }
        if let Some(agent_id) = &filter.agent_id {
            sql = sql.push(" AND t.agent_id = ").push_bind(agent_id);
        }
        if let Some(status) = filter.status {
            sql = sql.push(" AND t.status = ").push_bind(status.word());
        }
        if filter.open {
            sql = sql.push(" AND ").push(OPEN);
        }
        if let Some(owner) = &filter.owner {
            sql = sql.push(" AND t.owner = ").push_bind(owner);
        }
        sql = select_labels(sql, "t.agent_id", &filter.selector);
        sql = sql.push(" ORDER BY t.created_at_ms DESC, t.id DESC LIMIT ").push_bind(page.rows() + 1);
        let tunnels = self.select("tunnels.list", sql).await?;
        Ok(Paged::cut(tunnels, page, |tunnel| (tunnel.created_at_ms, tunnel.id.to_string())))
    }

    /// The open tunnel of this owner to this very target, if there is one.
    pub async fn open_for(
        &self,
        agent_id: &AgentId,
        target: &TunnelTarget,
        owner: &str,
    ) -> Result<Option<Tunnel>, StoreError> {
        let sql = for_target(Sql::new(SELECT).push("WHERE ").push(OPEN), agent_id, target);
        let sql = sql.push(" AND t.target_scheme = ").push_bind(target.scheme.word());
        let sql = sql.push(" AND t.owner = ").push_bind(owner).push(" ORDER BY t.created_at_ms DESC LIMIT 1");
        Ok(self.select("tunnels.open_for", sql).await?.pop())
    }

    /// Whatever state it is in.
    pub async fn by_idempotency_key(&self, owner: &str, key: &str) -> Result<Option<Tunnel>, StoreError> {
        let sql = Sql::new(SELECT).push("WHERE t.owner = ").push_bind(owner);
        let sql = sql.push(" AND t.idempotency_key = ").push_bind(key);
        Ok(self.select("tunnels.by_idempotency_key", sql).await?.pop())
    }

    /// The port the newest tunnel to this agent and target had.
    pub async fn sticky_port(&self, agent_id: &AgentId, target: &TunnelTarget) -> Result<Option<u16>, StoreError> {
        let sql = for_target(Sql::new(SELECT).push("WHERE t.port IS NOT NULL"), agent_id, target);
        let sql = sql.push(" ORDER BY t.created_at_ms DESC LIMIT 1");
        Ok(self.select("tunnels.sticky_port", sql).await?.pop().and_then(|tunnel| tunnel.port))
    }

    /// Standing tunnels that are pending or active, oldest first.
    pub async fn standing(&self) -> Result<Vec<Tunnel>, StoreError> {
        let sql = Sql::new(SELECT).push("WHERE t.standing = 1 AND ").push(OPEN).push(" ORDER BY t.created_at_ms");
        self.select("tunnels.standing", sql).await
    }

    /// At start, before the first answer: what a dead master left open becomes final, what stands becomes pending.
    pub async fn close_stale(&self, now_ms: i64, audit: &AuditEntry) -> Result<Reconciled, StoreError> {
        let mut write = self.0.begin(&self.0.pools.write, "tunnels.close_stale", super::MAINTENANCE_WITHIN).await?;
        let sql = Sql::new(
            "UPDATE tunnels SET status = 'disconnected', closed_reason = 'master_restarted', closed_at_ms = $1
             WHERE standing = 0 AND status IN ('pending', 'active') RETURNING *",
        );
        let closed = write.rows(sql.bind(now_ms)).await?;
        let sql = Sql::new(
            "UPDATE tunnels SET status = 'pending', health = 'unknown', health_since_ms = NULL, health_reason = NULL
             WHERE standing = 1 AND status IN ('pending', 'active') RETURNING *",
        );
        let standing = write.rows(sql).await?;
        let read = |rows: Vec<AnyRow>| rows.iter().map(tunnel).collect::<Result<Vec<_>, _>>();
        let reconciled = Reconciled { closed: read(closed)?, standing: read(standing)? };
        if reconciled == Reconciled::default() {
            return Ok(reconciled);
        }
        write.commit_audited(audit).await?;
        Ok(reconciled)
    }

    /// Flushes byte totals, one transaction for the batch. Final rows take them too: the last bytes come with the end.
    pub async fn set_counters(&self, batch: &[Counters]) -> Result<(), StoreError> {
        let mut write = self.0.background("tunnels.set_counters").await?;
        for counters in batch {
            let sql = Sql::new("UPDATE tunnels SET bytes_in = $1, bytes_out = $2 WHERE id = $3");
            write.execute(sql.bind(counters.bytes_in).bind(counters.bytes_out).bind(counters.id)).await?;
        }
        write.commit().await
    }

    /// Notes the caller's heartbeat.
    pub async fn set_heartbeat(&self, id: TunnelId, now_ms: i64) -> Result<(), StoreError> {
        let mut write = self.0.background("tunnels.set_heartbeat").await?;
        write
            .execute(Sql::new("UPDATE tunnels SET last_heartbeat_ms = $1 WHERE id = $2").bind(now_ms).bind(id))
            .await?;
        write.commit().await
    }

    /// Notes what a panel reported. `None` leaves a value as it is.
    pub async fn set_reported(&self, id: TunnelId, pid: Option<i64>, port: Option<i64>) -> Result<(), StoreError> {
        let mut write = self.0.write("tunnels.set_reported").await?;
        let sql = Sql::new(
            "UPDATE tunnels SET tunnel_pid = COALESCE($1, tunnel_pid), tunnel_port = COALESCE($2, tunnel_port)
             WHERE id = $3",
        );
        write.execute(sql.bind(pid).bind(port).bind(id)).await?;
        write.commit().await
    }

    async fn select(&self, operation: &'static str, sql: Sql) -> Result<Vec<Tunnel>, StoreError> {
        let mut read = self.0.read(operation).await?;
        read.rows(sql).await?.iter().map(tunnel).collect()
    }
}

fn for_target(sql: Sql, agent_id: &AgentId, target: &TunnelTarget) -> Sql {
    let sql = sql.push(" AND t.agent_id = ").push_bind(agent_id).push(" AND t.target_host = ").push_bind(&target.host);
    sql.push(" AND t.target_port = ").push_bind(target.port)
}

async fn update(write: &mut Write, tunnel: &Tunnel) -> Result<bool, StoreError> {
    let sql = Sql::new(
        "UPDATE tunnels SET listen_kind = $1, listen = $2, port = $3, heartbeat = $4, ttl_ms = $5, status = $6,
         health = $7, health_since_ms = $8, health_reason = $9, closed_reason = $10, tunnel_pid = $11, tunnel_port = $12,
         started_at_ms = $13, last_heartbeat_ms = $14, expires_at_ms = $15, closed_at_ms = $16, bytes_in = $17,
         bytes_out = $18, probe = $19 WHERE id = $20 AND status IN ('pending', 'active')",
    );
    let sql = bind_changing(sql, tunnel).bind(tunnel.bytes_in).bind(tunnel.bytes_out);
    Ok(write.execute(sql.bind(tunnel.probe.to_string()).bind(tunnel.id)).await? > 0)
}

/// Binds, in the order both statements name them, `listen_kind` to `closed_at_ms`.
fn bind_changing(sql: Sql, tunnel: &Tunnel) -> Sql {
    let sql = sql.bind(tunnel.listen_kind.word()).bind(&tunnel.listen).bind(tunnel.port).bind(tunnel.heartbeat);
    let sql = sql.bind(tunnel.ttl_ms).bind(tunnel.status.word()).bind(tunnel.health.word());
    let sql = sql.bind(tunnel.health_since_ms).bind(&tunnel.health_reason).bind(&tunnel.closed_reason);
    let sql = sql.bind(tunnel.tunnel_pid).bind(tunnel.tunnel_port).bind(tunnel.started_at_ms);
    sql.bind(tunnel.last_heartbeat_ms).bind(tunnel.expires_at_ms).bind(tunnel.closed_at_ms)
}
