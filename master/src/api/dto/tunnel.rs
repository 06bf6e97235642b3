//! Tunnels as the API shows and takes them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelStatus {
    Pending,
    Active,
    /// Closed; `closed_reason` says why.
    Disconnected,
    /// Not established in time.
    Timeout,
    /// Its time ran out.
    Expired,
}

impl TunnelStatus {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Active => false,
            Self::Disconnected | Self::Timeout | Self::Expired => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Https,
    Http,
    #[default]
    Tcp,
}

/// Where a tunnel ends, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A name or an address without brackets.
    #[schema(min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._:%-]+$")]
    pub host: String,
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// What is spoken there; decides how the tunnel is probed.
    #[serde(default)]
    pub scheme: Scheme,
}

/// A listener on the master mapped to a target behind an agent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    pub id: String,
    pub agent_id: String,
    pub target: Target,
    pub status: TunnelStatus,
    /// Whether the target answers.
    pub health: Health,
    pub health_since: Option<Time>,
    /// Why, while failing: a word such as `target_refused`.
    pub health_reason: Option<String>,
    /// Why it ended, once it did: a code word.
    pub closed_reason: Option<String>,
    /// `127.0.0.1:PORT`, or the path of a unix socket.
    pub listen: String,
    pub standing: bool,
    /// As a panel reported it with `tunnel_status`.
    pub tunnel_pid: Option<i64>,
    /// As a panel reported it with `tunnel_status`.
    pub tunnel_port: Option<i64>,
    pub created_at: Time,
    pub tunnel_started_at: Option<Time>,
    pub last_heartbeat: Option<Time>,
    /// Null for a standing tunnel.
    pub expires_at: Option<Time>,
    pub closed_at: Option<Time>,
    pub connections_open: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// What the last probe through the tunnel found: an object, or null.
    #[schema(value_type = Option<Object>)]
    pub probe: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not probed yet.
    Unknown,
    Ok,
    Failing,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTunnel {
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$", min_length = 1, max_length = 63)]
    pub agent_id: String,
    pub target: Target,
    /// A permanent mapping: bound with its agent and after restarts, until removed.
    #[serde(default)]
    pub standing: bool,
    /// Seconds until it expires; the master's limit otherwise. Not for standing tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31536000)]
    pub ttl_s: Option<u32>,
    /// False: nobody will beat; it lives until it expires or is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<bool>,
    /// What to listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Listen {
    /// A loopback port from the configured range.
    Tcp,
    /// A unix socket with mode 0600.
    Unix,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TunnelFilter {
    /// Items per page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[A-Za-z0-9_-]{1,256}$")]
    pub cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub status: Option<TunnelStatus>,
    /// True: only pending and active ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Answer when the tunnel is active or final, at the latest after this long: `30s`, at most `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(pattern = "^([0-9]|[1-5][0-9]|60)s$")]
    pub wait: Option<String>,
}

/// The answer to a beat.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeepAlive {
    /// False: the tunnel is over; stop beating.
    pub keep_alive: bool,
}

/// A way into the tunnel's pages, for one browser.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// Open it in a browser, once, before it runs out.
    pub url: String,
    pub expires_at: Time,
}

/// The certificate of a tunnel's target.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// SHA-256 of the certificate that is taken for right, in hex; null before it was first seen.
    pub sha256: Option<String>,
    pub pinned_at: Option<Time>,
    /// Another one that it showed since, and that nobody has trusted.
    pub offered_sha256: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPin {
    /// The certificate to trust from now on: `offered_sha256` of the pin.
    #[schema(pattern = "^[0-9a-f]{64}$", min_length = 64, max_length = 64)]
    pub sha256: String,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// New time to live, seconds from now; capped by configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31536000)]
    pub ttl_s: Option<u32>,
}
