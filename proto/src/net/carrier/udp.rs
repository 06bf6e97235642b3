//! UDP, the carrier of first choice: a fresh socket, and thus a fresh NAT mapping, for each dial.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{Carrier, DialError, Dialed, shake};
use crate::net::quic::{self, Tuning};

/// Time for one QUIC handshake as the dialling side sees it (quinn has none of its own).
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Dials a master over UDP. One dialler serves one agent for its life.
#[derive(Debug, Clone)]
pub struct Dialer {
    pub tuning: Tuning,
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
        let connection = shake(&endpoint, address, name, Carrier::Udp, HANDSHAKE_WITHIN).await?;
        Ok(Dialed::over_udp(connection, endpoint))
    }
}
