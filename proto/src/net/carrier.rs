//! The seam between a line and what carries its packets. Today UDP; the WebSocket carrier brings its own endpoint and
//! takes the same road from here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::quic::{self, EndpointError, Tuning};
pub use crate::control::Carrier;

/// Time for one QUIC handshake as the dialling side sees it (quinn has none of its own).
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Why no connection came up.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot open a UDP socket")]
    Endpoint(#[source] EndpointError),
    #[error("cannot dial {address}")]
    Start { address: SocketAddr, source: quinn::ConnectError },
    #[error("no connection to {address}")]
    Connect { address: SocketAddr, source: quinn::ConnectionError },
    #[error("{address} did not answer within {HANDSHAKE_WITHIN:?}; is its UDP port reachable?")]
    Silent { address: SocketAddr },
}

/// Dials a master. One dialler serves one agent for its life; each dial gets a fresh socket and thus a fresh NAT mapping.
#[derive(Debug, Clone)]
pub struct Dialer {
    pub carrier: Carrier,
    pub tuning: Tuning,
}

/// A connection and the endpoint that drives it.
#[derive(Debug)]
pub struct Dialed {
    pub connection: quinn::Connection,
    pub endpoint: quinn::Endpoint,
}

impl Dialer {
    /// One attempt, with its own deadline. `tls` carries the ALPN: line or enrolment.
    pub async fn dial(
        &self,
        address: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Result<Dialed, DialError> {
        let endpoint = quic::client_endpoint(address, tls, &self.tuning).map_err(DialError::Endpoint)?;
        let connecting = endpoint.connect(address, name).map_err(|source| DialError::Start { address, source })?;
        match tokio::time::timeout(HANDSHAKE_WITHIN, connecting).await {
            Ok(Ok(connection)) => Ok(Dialed { connection, endpoint }),
            Ok(Err(source)) => Err(DialError::Connect { address, source }),
            Err(_) => Err(DialError::Silent { address }),
        }
    }
}
