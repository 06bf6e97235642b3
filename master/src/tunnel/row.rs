//! A tunnel's row: what the store keeps, brought up to date from the lifecycle and the live counters.

use std::sync::Arc;

use proto::id::TunnelId;
use serde_json::json;

use super::{
    lifecycle::{Health, Lifecycle, State},
    path::Path,
    probe::Report,
    service::By,
};
use crate::{
    clock::unix_ms,
    store::{
        audit::AuditEntry,
        tunnels::{Health as HealthWord, Tunnel, TunnelStatus},
    },
};

/// The row of one tunnel. Clones share it until one is brought up to date.
#[derive(Debug, Clone)]
pub(super) struct Row(Arc<Tunnel>);

impl Row {
    pub(super) fn new(stored: Tunnel) -> Self {
        Self(Arc::new(stored))
    }

    pub(super) fn id(&self) -> TunnelId {
        self.0.id
    }

    pub(super) fn stored(&self) -> &Arc<Tunnel> {
        &self.0
    }

    fn change(&mut self) -> &mut Tunnel {
        Arc::make_mut(&mut self.0)
    }

    pub(super) fn refresh(&mut self, lifecycle: &Lifecycle, path: &Path) {
        let row = self.change();
        row.status = match lifecycle.state() {
            State::Pending(_) => TunnelStatus::Pending,
            State::Active(_) => TunnelStatus::Active,
            State::Disconnected(_) => TunnelStatus::Disconnected,
            State::Timeout(_) => TunnelStatus::Timeout,
            State::Expired(_) => TunnelStatus::Expired,
        };
        let ended = lifecycle.state().ended();
        row.closed_reason = ended.map(|ended| ended.reason.word().to_owned());
        row.closed_at_ms = ended.map(|ended| ended.at);
        (row.health, row.health_since_ms, row.health_reason) = match lifecycle.health() {
            Health::Unknown => (HealthWord::Unknown, None, None),
            Health::Ok { since } => (HealthWord::Ok, Some(*since), None),
            Health::Failing { since, failure } => (HealthWord::Failing, Some(*since), Some(failure.word.to_owned())),
        };
        row.started_at_ms = lifecycle.started_at().or(row.started_at_ms);
        row.last_heartbeat_ms = lifecycle.last_heartbeat().or(row.last_heartbeat_ms);
        row.expires_at_ms = lifecycle.expires_at();
        row.bytes_in = path.bytes_in();
        row.bytes_out = path.bytes_out();
    }

    pub(super) fn set_probe(&mut self, report: &Report) {
        self.change().probe = json!(report);
    }

    pub(super) fn report(&mut self, pid: Option<i64>, port: Option<i64>) {
        let row = self.change();
        row.tunnel_pid = pid.or(row.tunnel_pid);
        row.tunnel_port = port.or(row.tunnel_port);
    }

    /// How a standing tunnel's row lies while the master is away.
    pub(super) fn rest(&mut self) {
        self.change().status = TunnelStatus::Pending;
    }
}

/// The audit row of an opening.
pub(super) fn opened(row: &Tunnel, by: &By) -> AuditEntry {
    entry(row, "tunnel.open", Some(by)).detail(json!({
        "target": format!("{}:{}", row.target.host, row.target.port),
        "listen": row.listen,
        "standing": row.standing,
    }))
}

/// The audit row of an end.
pub(super) fn closed(row: &Row, lifecycle: &Lifecycle, by: Option<By>) -> AuditEntry {
    let reason = lifecycle.state().ended().map_or("open", |ended| ended.reason.word());
    entry(&row.0, "tunnel.close", by.as_ref()).detail(json!({
        "status": lifecycle.state().word(),
        "reason": reason,
        "bytes_in": row.0.bytes_in,
        "bytes_out": row.0.bytes_out,
    }))
}

fn entry(row: &Tunnel, action: &str, by: Option<&By>) -> AuditEntry {
    let actor = by.map_or("master", |by| &by.actor);
    let entry = AuditEntry::new(unix_ms(), actor, action).agent(&row.agent_id).object(row.id);
    match by.and_then(|by| by.source.as_ref()) {
        Some(source) => entry.source(source),
        None => entry,
    }
}
