//! The seam between a line and what carries its packets: UDP, or the same QUIC inside a WebSocket where UDP is blocked.
//! From a [`Dialed`] on, nobody asks which it is.

pub mod frames;
mod queue;
mod udp;
pub mod websocket;

use std::{net::SocketAddr, time::Duration};

pub use self::udp::Dialer;
use self::websocket::{Broken, Carried};
use super::quic::{self, EndpointError};
pub use crate::control::Carrier;

/// Why no connection came up.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("no endpoint")]
    Endpoint(#[source] EndpointError),
    #[error("cannot dial {address}")]
    Start { address: SocketAddr, source: quinn::ConnectError },
    #[error("no connection to {address} over {}", carrier.word())]
    Connect { address: SocketAddr, carrier: Carrier, source: quinn::ConnectionError },
    #[error("{address} did not answer over {} within {within:?}", carrier.word())]
    Silent { address: SocketAddr, carrier: Carrier, within: Duration },
    #[error("the WebSocket to {address} broke")]
    Broken { address: SocketAddr, source: Broken },
}

/// A connection and what drives it. Dropping it leaves the peer to find out by silence, or by the end of its TCP.
#[derive(Debug)]
pub struct Dialed {
    pub connection: quinn::Connection,
    pub carrier: Carrier,
    under: Under,
}

#[derive(Debug)]
enum Under {
    Udp(quinn::Endpoint),
    WebSocket(Carried),
}

impl Dialed {
    fn over_udp(connection: quinn::Connection, endpoint: quinn::Endpoint) -> Self {
        Self { connection, carrier: Carrier::Udp, under: Under::Udp(endpoint) }
    }

    fn over_websocket(connection: quinn::Connection, carried: Carried) -> Self {
        Self { connection, carrier: Carrier::WebSocket, under: Under::WebSocket(carried) }
    }

    /// Resolves when what carries the packets broke by itself, which UDP never tells. Cancel-safe.
    pub async fn broken(&mut self) -> Broken {
        match &mut self.under {
            Under::Udp(_) => std::future::pending().await,
            Under::WebSocket(carried) => carried.broken().await,
        }
    }

    /// Goes on from a new socket, and thus a new port, with the same connection: it pings at once, and the peer learns the
    /// way. Inside a WebSocket this changes nothing. On an error the old socket stays.
    pub fn rebind(&self) -> Result<(), EndpointError> {
        match &self.under {
            Under::Udp(endpoint) => quic::rebind(endpoint, self.connection.remote_address()),
            Under::WebSocket(_) => Ok(()),
        }
    }

    /// Lets the last packets of a closed connection leave; waits no longer than `within`.
    pub async fn finish(self, within: Duration) {
        match self.under {
            Under::Udp(endpoint) => _ = tokio::time::timeout(within, endpoint.wait_idle()).await,
            Under::WebSocket(carried) => carried.finish(within).await,
        }
    }
}

/// One QUIC handshake with its deadline.
async fn shake(
    endpoint: &quinn::Endpoint,
    address: SocketAddr,
    name: &str,
    carrier: Carrier,
    within: Duration,
) -> Result<quinn::Connection, DialError> {
    let connecting = endpoint.connect(address, name).map_err(|source| DialError::Start { address, source })?;
    match tokio::time::timeout(within, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(DialError::Connect { address, carrier, source }),
        Err(_) => Err(DialError::Silent { address, carrier, within }),
    }
}
