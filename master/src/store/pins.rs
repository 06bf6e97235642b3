//! Certificates of targets as they were first seen: one per agent, host and port (SECURITY R45).

use proto::id::AgentId;

use super::{
    Store, StoreError,
    audit::AuditEntry,
    sql::{Columns, Sha256, Sql},
};

/// The pinned certificate of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Of the certificate, DER.
    pub sha256: Sha256,
    pub pinned_at_ms: i64,
}

/// The pins of a [`Store`].
#[derive(Clone, Copy)]
pub struct Pins<'a>(pub(super) &'a Store);

impl Pins<'_> {
    pub async fn find(&self, agent: &AgentId, host: &str, port: u16) -> Result<Option<Pin>, StoreError> {
        let mut read = self.0.read("pins.find").await?;
        let sql =
            Sql::new("SELECT sha256, pinned_at_ms FROM target_pins WHERE agent_id = $1 AND host = $2 AND port = $3");
        let row = read.row(sql.bind(agent).bind(host).bind(port)).await?;
        let pin = |row| {
            let columns = Columns(row);
            Ok(Pin { sha256: columns.hash("sha256")?, pinned_at_ms: columns.int("pinned_at_ms")? })
        };
        row.as_ref().map(pin).transpose()
    }

    /// Pins what was seen first. False if another certificate was pinned meanwhile: that one stays.
    pub async fn first(&self, agent: &AgentId, host: &str, port: u16, pin: &Pin) -> Result<bool, StoreError> {
        let mut write = self.0.write("pins.first").await?;
        let sql = Sql::new(
            "INSERT INTO target_pins (agent_id, host, port, sha256, pinned_at_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (agent_id, host, port) DO NOTHING",
        );
        let sql = sql.bind(agent).bind(host).bind(port).bind(&pin.sha256).bind(pin.pinned_at_ms);
        let done = write.execute(sql).await? == 1;
        write.commit().await?;
        Ok(done)
    }

    /// Pins what an operator decided to trust, with the audit entry that says so.
    pub async fn trust(
        &self,
        agent: &AgentId,
        host: &str,
        port: u16,
        pin: &Pin,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        let mut write = self.0.write("pins.trust").await?;
        let sql = Sql::new(
            "INSERT INTO target_pins (agent_id, host, port, sha256, pinned_at_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (agent_id, host, port) DO UPDATE SET sha256 = excluded.sha256,
             pinned_at_ms = excluded.pinned_at_ms",
        );
        write.execute(sql.bind(agent).bind(host).bind(port).bind(&pin.sha256).bind(pin.pinned_at_ms)).await?;
        write.commit_audited(audit).await
    }
}
