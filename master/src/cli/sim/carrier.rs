//! How a simulated agent reaches the master: UDP, or QUIC inside a WebSocket, and never the other when one fails.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use certs::tls;
use proto::net::{
    carrier::{
        Dialed, Dialer,
        websocket::{self, Carried, PATH, SUBPROTOCOL},
    },
    quic::Tuning,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

/// Time for TCP, TLS and the WebSocket's handshake; the master may let it wait for a place.
const UPGRADED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum SimCarrier {
    Udp,
    Wss,
}

impl SimCarrier {
    /// Handshakes in flight where nobody says how many.
    pub(super) fn parallel(self) -> u32 {
        match self {
            Self::Udp => 32,
            Self::Wss => 4,
        }
    }
}

#[derive(Debug)]
pub(super) struct SimDialer {
    address: SocketAddr,
    /// `host:port` as the join token has it.
    authority: String,
    carrier: SimCarrier,
    tuning: Tuning,
}

impl SimDialer {
    pub(super) async fn new(authority: &str, carrier: SimCarrier) -> anyhow::Result<Self> {
        let mut addresses = tokio::net::lookup_host(authority).await?;
        let address = addresses.next().with_context(|| format!("{authority} has no address"))?;
        Ok(Self { address, authority: authority.to_owned(), carrier, tuning: Tuning::default() })
    }

    pub(super) async fn dial(&self, config: Arc<ClientConfig>) -> anyhow::Result<Dialed> {
        match self.carrier {
            SimCarrier::Udp => {
                let dialer = Dialer { tuning: self.tuning.clone() };
                Ok(dialer.dial(self.address, config, tls::SERVER_NAME).await?)
            }
            SimCarrier::Wss => {
                let websocket = timeout(UPGRADED_WITHIN, self.upgraded()).await.context("no WebSocket in time")??;
                Ok(Carried::dial(websocket, self.address, config, tls::SERVER_NAME, &self.tuning).await?)
            }
        }
    }

    async fn upgraded(&self) -> anyhow::Result<websocket::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>> {
        let socket = TcpStream::connect(self.address).await.context("no TCP connection")?;
        socket.set_nodelay(true)?;
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = TlsConnector::from(tls::outside_config()?).connect(name, socket).await.context("no TLS")?;
        let mut request = format!("wss://{}{PATH}", self.authority).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let shaken = client_async_with_config(request, stream, Some(websocket::bounds())).await;
        Ok(shaken.context("no WebSocket")?.0)
    }
}
