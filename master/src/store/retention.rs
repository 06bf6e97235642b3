//! Retention: everything that grows has an end. Deletes in bounded bites, so that no writer waits long for it.

use std::time::Duration;

use super::{
    MAINTENANCE_WITHIN, Store, StoreError,
    sql::{Columns, Sql},
};
use crate::clock::millis;

/// Rows of one bite.
const BITE: i64 = 2_000;

/// How long each kind of row is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub events: Duration,
    pub audit: Duration,
    /// Final tunnels.
    pub tunnels: Duration,
    /// Ended shells and execs.
    pub sessions: Duration,
    /// Answers kept for `Idempotency-Key`.
    pub idempotency: Duration,
    /// Revoked and expired tokens, used or expired enrolment secrets, and sessions of people past their end.
    pub credentials: Duration,
}

/// How long an `Idempotency-Key` is remembered, and how long a dead credential.
const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(86_400);
const CREDENTIALS_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl From<&crate::config::Retention> for Retention {
    fn from(config: &crate::config::Retention) -> Self {
        let (idempotency, credentials) = (IDEMPOTENCY_KEPT, CREDENTIALS_KEPT);
        Self {
            events: config.events,
            audit: config.audit,
            tunnels: config.tunnels,
            sessions: config.events,
            idempotency,
            credentials,
        }
    }
}

/// Rows removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub events: u64,
    pub audit: u64,
    pub tunnels: u64,
    pub sessions: u64,
    pub idempotency: u64,
    pub credentials: u64,
}

const EVENTS: &str = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)";
const TUNNELS: &str = "DELETE FROM tunnels WHERE id IN (SELECT id FROM tunnels WHERE closed_at_ms < $1
    AND status NOT IN ('pending', 'active') LIMIT $2)";
const SESSIONS: &str = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE ended_at_ms < $1 LIMIT $2)";
const IDEMPOTENCY: &str = "DELETE FROM idempotency WHERE (owner, key) IN
    (SELECT owner, key FROM idempotency WHERE created_at_ms < $1 LIMIT $2)";
const TOKENS: &str = "DELETE FROM tokens WHERE id IN
    (SELECT id FROM tokens WHERE COALESCE(revoked_at_ms, expires_at_ms) < $1 LIMIT $2)";
const ENROLMENTS: &str = "DELETE FROM enrolments WHERE id IN
    (SELECT id FROM enrolments WHERE COALESCE(used_at_ms, expires_at_ms) < $1 LIMIT $2)";

const KEYS: &str = "DELETE FROM enrolment_keys WHERE id IN
    (SELECT id FROM enrolment_keys WHERE COALESCE(revoked_at_ms, expires_at_ms) < $1 LIMIT $2)";
const OPERATOR_SESSIONS: &str = "DELETE FROM operator_sessions WHERE id IN
    (SELECT id FROM operator_sessions WHERE expires_at_ms < $1 LIMIT $2)";

impl Store {
    /// Removes what is older than it may be.
    pub async fn prune(&self, retention: &Retention, now_ms: i64) -> Result<Pruned, StoreError> {
        let before = |age: Duration| now_ms.saturating_sub(millis(age));
        let credentials = before(retention.credentials);
        self.keys().tidy(now_ms).await?;
        Ok(Pruned {
            events: self.bite("events.prune", EVENTS, before(retention.events)).await?,
            audit: self.prune_audit(before(retention.audit)).await?,
            tunnels: self.bite("tunnels.prune", TUNNELS, before(retention.tunnels)).await?,
            sessions: self.bite("sessions.prune", SESSIONS, before(retention.sessions)).await?,
            idempotency: self.bite("idempotency.prune", IDEMPOTENCY, before(retention.idempotency)).await?,
            credentials: self.bite("tokens.prune", TOKENS, credentials).await?
                + self.bite("enrolments.prune", ENROLMENTS, credentials).await?
                + self.bite("keys.prune", KEYS, credentials).await?
                + self.bite("operator_sessions.prune", OPERATOR_SESSIONS, now_ms).await?,
        })
    }

    /// Repeats a bounded delete until it finds nothing.
    async fn bite(&self, operation: &'static str, delete: &'static str, before_ms: i64) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let mut write = self.background(operation).await?;
            let rows = write.execute(Sql::new(delete).bind(before_ms).bind(BITE)).await?;
            write.commit().await?;
            removed += rows;
            if rows == 0 {
                return Ok(removed);
            }
        }
    }

    /// Cuts the oldest part of the chain off and notes where, so that the rest still verifies. Only a whole head part
    /// goes: rows are written in order, but a clock may step back between them.
    async fn prune_audit(&self, before_ms: i64) -> Result<u64, StoreError> {
        let mut write = self.begin(&self.pools.write, "audit.prune", MAINTENANCE_WITHIN).await?;
        let keep = Sql::new("SELECT MIN(seq) AS seq FROM audit WHERE at_ms >= $1").bind(before_ms);
        let last = match write.row(keep).await? {
            Some(row) => Columns(&row).int_opt("seq")?,
            None => None,
        };
        let sql = Sql::new("SELECT seq, hash FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT 1");
        let Some(floor) = write.row(sql.bind(last.unwrap_or(i64::MAX))).await? else { return Ok(0) };
        let (seq, hash) = (Columns(&floor).int("seq")?, Columns(&floor).text("hash")?);
        let sql = Sql::new("UPDATE audit_head SET floor_seq = $1, floor_hash = $2 WHERE id = 1");
        write.execute(sql.bind(seq).bind(hash)).await?;
        let removed = write.execute(Sql::new("DELETE FROM audit WHERE seq <= $1").bind(seq)).await?;
        write.commit().await?;
        Ok(removed)
    }
}
