//! QUIC endpoints and transport parameters. Every value and its reason stands in TRANSPORT.md's table, repeated in
//! docs/PROTOCOL.md; where a measurement says otherwise, change it here and there.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use ring::{hkdf, hmac};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::cid::WorkerConnectionIds;
use crate::limits::{IDLE_TIMEOUT, KEEP_ALIVE};

/// What a stream may hold that its reader has not taken, bytes. Above it a lossy path can exceed 1,024 gaps, and quinn
/// closes the connection.
pub const STREAM_RECEIVE_WINDOW: u64 = 2 << 20;
/// What one line may hold without credit on the master, bytes: 670 Mb/s at 100 ms.
pub const MASTER_RECEIVE_WINDOW: u64 = 8 << 20;
/// What one line may hold without credit on the agent, bytes.
pub const AGENT_RECEIVE_WINDOW: u64 = 16 << 20;
/// Part of what the peer's window takes that bulk leaves free, so that no keystroke waits behind it, bytes.
pub const SEND_RESERVE: u64 = 2 << 20;
/// What bulk of one line may have written and not yet delivered on the agent, bytes: the master's window less the reserve.
pub const AGENT_SEND_WINDOW: u64 = MASTER_RECEIVE_WINDOW - SEND_RESERVE;
/// The same on the master.
pub const MASTER_SEND_WINDOW: u64 = AGENT_RECEIVE_WINDOW - SEND_RESERVE;
/// Work streams an agent allows at first; it raises them with use.
pub const AGENT_STREAMS: u32 = 256;
/// Work streams an agent allows at most.
pub const AGENT_STREAMS_MAX: u32 = 4096;
/// Streams the master allows: control, and one to spare.
const MASTER_STREAMS: u32 = 2;
const INITIAL_RTT: Duration = Duration::from_millis(100);
const DATAGRAM_BUFFER: usize = 64 << 10;
const UDP_PAYLOAD_MAX: u16 = 1472;
const MTU_UPPER_BOUND: u16 = 1452;
const AGENT_SOCKET_BUFFER: usize = 2 << 20;
const MASTER_SOCKET_BUFFER: usize = 8 << 20;
const MAX_INCOMING: usize = 2048;
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 32 << 20;
/// quinn's default of 20 ms lets 10,000 agents wait 200 s for their resets after a restart.
const MIN_RESET_INTERVAL: Duration = Duration::from_millis(1);

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

/// The dialling side's endpoint, on a fresh socket of the master's address family.
pub fn client_endpoint(
    master: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, EndpointError> {
    let any: SocketAddr = match master {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = udp_socket(any, AGENT_SOCKET_BUFFER)?;
    let mut transport = transport(tuning);
    transport
        .keep_alive_interval(Some(tuning.keep_alive))
        .send_window(AGENT_SEND_WINDOW)
        .max_concurrent_bidi_streams(AGENT_STREAMS.into())
        .receive_window(window(AGENT_RECEIVE_WINDOW));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint = quinn::Endpoint::new(endpoint_config(&ephemeral_keys())?, None, socket, runtime)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// The master's endpoint.
pub fn server_endpoint(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    keys: &EndpointKeys,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, EndpointError> {
    let socket = udp_socket(address, MASTER_SOCKET_BUFFER)?;
    let mut transport = transport(tuning);
    transport
        .keep_alive_interval(None)
        .send_window(MASTER_SEND_WINDOW)
        .max_concurrent_bidi_streams(MASTER_STREAMS.into())
        .receive_window(window(MASTER_RECEIVE_WINDOW));
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut config = quinn::ServerConfig::new(Arc::new(QuicServerConfig::try_from(tls)?), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(endpoint_config(keys)?, Some(config), socket, runtime)?)
}

fn transport(tuning: &Tuning) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_UPPER_BOUND);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(window(STREAM_RECEIVE_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .mtu_discovery_config(Some(mtu))
        .enable_segmentation_offload(tuning.gso);
    match tuning.congestion {
        Congestion::Cubic => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    transport
}

fn endpoint_config(keys: &EndpointKeys) -> Result<EndpointConfig, quinn::ConfigError> {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset)));
    let cid_key = keys.connection_id;
    config
        .cid_generator(move || Box::new(WorkerConnectionIds::new(&cid_key, 0)))
        .min_reset_interval(MIN_RESET_INTERVAL)
        .max_udp_payload_size(UDP_PAYLOAD_MAX)?;
    Ok(config)
}

/// A dialling endpoint is never restarted: its keys may die with it.
fn ephemeral_keys() -> EndpointKeys {
    use ring::rand::SecureRandom;
    let mut bytes = [0; EndpointKeys::LENGTH];
    // Without randomness TLS fails a moment later, with a better error than could be given here.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    EndpointKeys::from_bytes(&bytes)
}

fn udp_socket(address: SocketAddr, buffer: usize) -> Result<UdpSocket, EndpointError> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families where the system has them; a v6-only system refuses and stays v6-only.
        let _ = socket.set_only_v6(false);
    }
    set_buffers(&socket, buffer);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(|source| EndpointError::Bind { address, source })?;
    Ok(socket.into())
}

/// Asks for buffers and says what to do where the system grants less.
fn set_buffers(socket: &Socket, wanted: usize) {
    let socket = SockRef::from(socket);
    let _ = socket.set_recv_buffer_size(wanted);
    let _ = socket.set_send_buffer_size(wanted);
    let granted = socket.recv_buffer_size().unwrap_or(0).min(socket.send_buffer_size().unwrap_or(0));
    if granted < wanted {
        tracing::debug!(
            wanted,
            granted,
            "UDP socket buffers are smaller than wanted; for full rate: sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"
        );
    }
}

fn window(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}
