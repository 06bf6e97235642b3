//! QUIC on either carrier: what an owner or operator may change, the keys of an endpoint, and the windows that the rest
//! of the line counts with. Every value and its reason stands in docs/PROTOCOL.md; where a measurement says otherwise,
//! change it here and there.

mod endpoint;
mod transport;

use std::{net::SocketAddr, time::Duration};

use quinn::crypto::rustls::NoInitialCipherSuite;
use serde::{Deserialize, Serialize};

pub(super) use self::endpoint::rebind;
pub use self::endpoint::{ServerParts, client_endpoint, client_over, server_endpoint};
use crate::{control::Carrier, limits::KEEP_ALIVE};

/// What a stream may hold that its reader has not taken, bytes. Above it a lossy path can exceed 1,024 gaps, and quinn
/// closes the connection.
pub const STREAM_RECEIVE_WINDOW: u64 = 2 << 20;
/// What one line may hold without credit on the master, bytes: 670 Mb/s at 100 ms.
pub const MASTER_RECEIVE_WINDOW: u64 = 8 << 20;
/// What one line may hold without credit on the agent, bytes.
pub const AGENT_RECEIVE_WINDOW: u64 = 16 << 20;
/// Part of what the peer's window takes that bulk leaves free, so that no keystroke waits behind it, bytes.
pub const SEND_RESERVE: u64 = 2 << 20;
/// Of an agent's line over UDP: the master's window less the reserve.
const AGENT_SEND_WINDOW: u64 = MASTER_RECEIVE_WINDOW - SEND_RESERVE;
/// The same on the master.
const MASTER_SEND_WINDOW: u64 = AGENT_RECEIVE_WINDOW - SEND_RESERVE;
/// Work streams an agent allows at first; it raises them with use.
pub const AGENT_STREAMS: u32 = 256;
/// Work streams an agent allows at most.
pub const AGENT_STREAMS_MAX: u32 = 4096;
/// Streams the master allows: control, and one to spare.
const MASTER_STREAMS: u32 = 2;
/// What may be written and not yet delivered inside a WebSocket, each way: TCP's own buffers hold the rest.
const WSS_SEND_WINDOW: u64 = 4 << 20;

/// What bulk of one line may have written and not yet delivered on the agent, bytes.
pub fn agent_send_window(carrier: Carrier) -> u64 {
    match carrier {
        Carrier::Udp => AGENT_SEND_WINDOW,
        Carrier::WebSocket => WSS_SEND_WINDOW,
    }
}

/// The same on the master.
pub fn master_send_window(carrier: Carrier) -> u64 {
    match carrier {
        Carrier::Udp => MASTER_SEND_WINDOW,
        Carrier::WebSocket => WSS_SEND_WINDOW,
    }
}

/// What an owner or operator may change.
#[derive(Debug, Clone)]
pub struct Tuning {
    pub keep_alive: Duration,
    pub congestion: Congestion,
    /// Segmentation offload; off only where a driver mishandles it.
    pub gso: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { keep_alive: KEEP_ALIVE, congestion: Congestion::Cubic, gso: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    Cubic,
    /// quinn marks it experimental.
    Bbr,
}

/// Keys that must outlive the process, or a restarted master stays invisible to its agents until they time out.
#[derive(Clone)]
pub struct EndpointKeys {
    pub reset: [u8; 64],
    pub connection_id: [u8; 32],
    pub token: [u8; 32],
}

impl EndpointKeys {
    /// Bytes of the three keys together.
    pub const LENGTH: usize = 128;

    /// Splits key material as it is stored: reset, connection id, token.
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let mut keys = Self { reset: [0; 64], connection_id: [0; 32], token: [0; 32] };
        keys.reset.copy_from_slice(&bytes[..64]);
        keys.connection_id.copy_from_slice(&bytes[64..96]);
        keys.token.copy_from_slice(&bytes[96..]);
        keys
    }
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("cannot bind UDP {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot set up the UDP socket")]
    Socket(#[from] std::io::Error),
    #[error("the TLS configuration does not fit QUIC")]
    Tls(#[from] NoInitialCipherSuite),
    #[error("a transport value is out of range")]
    Config(#[from] quinn::ConfigError),
}
