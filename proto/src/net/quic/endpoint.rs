//! Endpoints: on a UDP socket of their own, or over whatever socket a carrier brings.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{
    AsyncUdpSocket,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::hkdf;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{EndpointError, EndpointKeys, Tuning, transport};
use crate::control::Carrier;

const AGENT_SOCKET_BUFFER: usize = 2 << 20;
const MASTER_SOCKET_BUFFER: usize = 8 << 20;
const MAX_INCOMING: usize = 2048;
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFER_TOTAL: u64 = 32 << 20;

/// The dialling side's endpoint, on a fresh socket of the master's address family.
pub fn client_endpoint(
    master: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, EndpointError> {
    let socket = agent_socket(master)?;
    let config = transport::endpoint(Carrier::Udp, &ephemeral_keys())?;
    let mut endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(client_config(Carrier::Udp, tls, tuning)?);
    Ok(endpoint)
}

/// Gives the dialling side's endpoint another socket; its connections go on and ping at once.
pub(in crate::net) fn rebind(endpoint: &quinn::Endpoint, master: SocketAddr) -> Result<(), EndpointError> {
    Ok(endpoint.rebind(agent_socket(master)?)?)
}

fn agent_socket(master: SocketAddr) -> Result<UdpSocket, EndpointError> {
    let any: SocketAddr = match master {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    udp_socket(any, AGENT_SOCKET_BUFFER)
}

/// The dialling side's endpoint over a WebSocket.
pub fn client_over(
    socket: Arc<dyn AsyncUdpSocket>,
    tls: Arc<rustls::ClientConfig>,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, EndpointError> {
    let carrier = Carrier::WebSocket;
    let config = transport::endpoint(carrier, &ephemeral_keys())?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket, runtime)?;
    endpoint.set_default_client_config(client_config(carrier, tls, tuning)?);
    Ok(endpoint)
}

fn client_config(
    carrier: Carrier,
    tls: Arc<rustls::ClientConfig>,
    tuning: &Tuning,
) -> Result<quinn::ClientConfig, EndpointError> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport::agent(carrier, tuning)));
    Ok(config)
}

/// The master's endpoint.
pub fn server_endpoint(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    keys: &EndpointKeys,
    tuning: &Tuning,
) -> Result<quinn::Endpoint, EndpointError> {
    let socket = udp_socket(address, MASTER_SOCKET_BUFFER)?;
    let mut config = server_config(Carrier::Udp, Arc::new(QuicServerConfig::try_from(tls)?), keys, tuning);
    config
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(quinn::Endpoint::new(transport::endpoint(Carrier::Udp, keys)?, Some(config), socket, runtime)?)
}

/// What the master makes an endpoint from for each WebSocket.
#[derive(Clone)]
pub struct ServerParts {
    tls: Arc<QuicServerConfig>,
    tuning: Tuning,
}

impl ServerParts {
    pub fn new(tls: Arc<rustls::ServerConfig>, tuning: Tuning) -> Result<Self, EndpointError> {
        Ok(Self { tls: Arc::new(QuicServerConfig::try_from(tls)?), tuning })
    }

    /// The master's endpoint over one WebSocket. It lives as long as that, so its keys may die with it, and it takes one
    /// connection.
    pub(crate) fn over(&self, socket: Arc<dyn AsyncUdpSocket>) -> Result<quinn::Endpoint, EndpointError> {
        let keys = ephemeral_keys();
        let mut config = server_config(Carrier::WebSocket, self.tls.clone(), &keys, &self.tuning);
        config.max_incoming(1).incoming_buffer_size(INCOMING_BUFFER).incoming_buffer_size_total(INCOMING_BUFFER);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = transport::endpoint(Carrier::WebSocket, &keys)?;
        Ok(quinn::Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, runtime)?)
    }
}

impl std::fmt::Debug for ServerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerParts").field("tuning", &self.tuning).finish_non_exhaustive()
    }
}

fn server_config(
    carrier: Carrier,
    tls: Arc<QuicServerConfig>,
    keys: &EndpointKeys,
    tuning: &Tuning,
) -> quinn::ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut config = quinn::ServerConfig::new(tls, Arc::new(token_key));
    config.transport_config(Arc::new(transport::master(carrier, tuning)));
    config
}

/// Keys of an endpoint that is never restarted.
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
