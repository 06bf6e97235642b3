//! What a tunnel is in the store, and how a row becomes one.

use proto::id::{AgentId, TunnelId};
use serde_json::Value;
use sqlx::any::AnyRow;

use crate::store::{StoreError, labels::Selector, sql::Columns, words};

words! {
    /// What the target speaks.
    Scheme {
        Https = "https",
        Http = "http",
        Tcp = "tcp",
    }
}

words! {
    ListenKind {
        /// Loopback TCP.
        Tcp = "tcp",
        /// A unix socket, 0600.
        Unix = "unix",
    }
}

words! {
    TunnelStatus {
        Pending = "pending",
        Active = "active",
        Disconnected = "disconnected",
        Timeout = "timeout",
        Expired = "expired",
    }
}

words! {
    /// Whether the target answers.
    Health {
        /// Not probed yet.
        Unknown = "unknown",
        Ok = "ok",
        Failing = "failing",
    }
}

impl TunnelStatus {
    /// Whether no further state follows.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Active => false,
            Self::Disconnected | Self::Timeout | Self::Expired => true,
        }
    }
}

/// Where a tunnel ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelTarget {
    /// A name or an address without brackets.
    pub host: String,
    pub port: u16,
    pub scheme: Scheme,
}

/// One tunnel, every column.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    pub id: TunnelId,
    pub agent_id: AgentId,
    /// Who opened it: the token's id.
    pub owner: String,
    pub target: TunnelTarget,
    pub listen_kind: ListenKind,
    /// `127.0.0.1:PORT`, or the path of the unix socket.
    pub listen: String,
    /// The port, for loopback TCP. Sticky per agent and target, see [`super::Tunnels::sticky_port`].
    pub port: Option<u16>,
    pub standing: bool,
    /// Whether a missing heartbeat of the caller ends it.
    pub heartbeat: bool,
    pub ttl_ms: Option<i64>,
    pub status: TunnelStatus,
    pub health: Health,
    pub health_since_ms: Option<i64>,
    pub health_reason: Option<String>,
    /// The word of why it ended; set in every final state.
    pub closed_reason: Option<String>,
    /// As a panel reported it.
    pub tunnel_pid: Option<i64>,
    /// As a panel reported it.
    pub tunnel_port: Option<i64>,
    pub created_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub last_heartbeat_ms: Option<i64>,
    pub expires_at_ms: Option<i64>,
    pub closed_at_ms: Option<i64>,
    /// Of connections that ended and of those flushed by [`super::Tunnels::set_counters`].
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// What the probe found: an object, or null.
    pub probe: Value,
    /// The `Idempotency-Key` it was created under; unique per owner.
    pub idempotency_key: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum InsertTunnelError {
    /// The owner has a tunnel with this idempotency key.
    #[error("a tunnel with this idempotency key exists")]
    Exists,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which tunnels a list shows.
#[derive(Debug, Clone, Default)]
pub struct TunnelFilter {
    pub agent_id: Option<AgentId>,
    pub status: Option<TunnelStatus>,
    /// Only pending and active ones.
    pub open: bool,
    pub owner: Option<String>,
    /// Over the labels of the tunnel's agent.
    pub selector: Selector,
}

/// Byte totals of one tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Counters {
    pub id: TunnelId,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What [`super::Tunnels::close_stale`] did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reconciled {
    /// Now `disconnected`, `master_restarted`.
    pub closed: Vec<Tunnel>,
    /// Standing ones, now `pending`: to be bound again.
    pub standing: Vec<Tunnel>,
}

pub(super) fn tunnel(row: &AnyRow) -> Result<Tunnel, StoreError> {
    let columns = Columns(row);
    let target = TunnelTarget {
        host: columns.text("target_host")?,
        port: columns.unsigned("target_port")?,
        scheme: columns.parsed("target_scheme")?,
    };
    Ok(Tunnel {
        id: columns.parsed("id")?,
        agent_id: columns.parsed("agent_id")?,
        owner: columns.text("owner")?,
        target,
        listen_kind: columns.parsed("listen_kind")?,
        listen: columns.text("listen")?,
        port: columns.unsigned_opt("port")?,
        standing: columns.flag("standing")?,
        heartbeat: columns.flag("heartbeat")?,
        ttl_ms: columns.int_opt("ttl_ms")?,
        status: columns.parsed("status")?,
        health: columns.parsed("health")?,
        health_since_ms: columns.int_opt("health_since_ms")?,
        health_reason: columns.text_opt("health_reason")?,
        closed_reason: columns.text_opt("closed_reason")?,
        tunnel_pid: columns.int_opt("tunnel_pid")?,
        tunnel_port: columns.int_opt("tunnel_port")?,
        created_at_ms: columns.int("created_at_ms")?,
        started_at_ms: columns.int_opt("started_at_ms")?,
        last_heartbeat_ms: columns.int_opt("last_heartbeat_ms")?,
        expires_at_ms: columns.int_opt("expires_at_ms")?,
        closed_at_ms: columns.int_opt("closed_at_ms")?,
        bytes_in: columns.unsigned("bytes_in")?,
        bytes_out: columns.unsigned("bytes_out")?,
        probe: columns.json("probe")?,
        idempotency_key: columns.text_opt("idempotency_key")?,
    })
}
