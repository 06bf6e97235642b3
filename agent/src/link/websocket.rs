//! A WebSocket to the master: TCP, through a proxy or not, TLS around it, and the handshake; then QUIC inside. Nothing out
//! here is trusted with anything: both ends authenticate inside (SECURITY R4), and no secret leaves but the proxy's own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::client::{
    legacy::connect::{HttpConnector, proxy::Tunnel},
    proxy::matcher::Intercept,
};
use proto::net::{
    carrier::{
        DialError, Dialed,
        websocket::{self, Carried, PATH, SUBPROTOCOL},
    },
    quic::Tuning,
};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, http::HeaderValue},
};
use tower_service::Service;

use crate::config::address::MasterAddress;

/// Time for a TCP connection, through a proxy as well.
const TCP_WITHIN: Duration = Duration::from_secs(6);
/// Time for TLS and the WebSocket's handshake; the master may let it wait for a place.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Bytes the kernel may hold that it cannot send yet. More would be a queue in front of each keystroke that nobody sees.
const NOT_SENT_MAX: u32 = 32 << 10;

/// Why no line came up inside a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    #[error("no TCP connection to {address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("the proxy {proxy} gives no connection to {master}")]
    Proxy { proxy: String, master: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the proxy {proxy} did not give a connection to {master} within {TCP_WITHIN:?}")]
    ProxyTooSlow { proxy: String, master: String },
    #[error("cannot set up TLS")]
    Config(#[from] certs::tls::TlsError),
    #[error("no TLS with {master} for a WebSocket")]
    Tls { master: MasterAddress, source: io::Error },
    #[error("no WebSocket at {url}")]
    Handshake { url: String, source: tungstenite::Error },
    #[error("no WebSocket with {master} within {HANDSHAKE_WITHIN:?}")]
    TooSlow { master: MasterAddress },
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// TCP to one address of the master.
pub(super) async fn direct(address: SocketAddr) -> Result<TcpStream, WebSocketError> {
    let connecting = timeout(TCP_WITHIN, TcpStream::connect(address)).await;
    let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|source| WebSocketError::Tcp { address, source })
}

/// TCP to the master by way of a proxy, which resolves its name.
pub(super) async fn through(proxy: &Intercept, master: &MasterAddress) -> Result<TcpStream, WebSocketError> {
    let (shown, named) = (proxy.uri().to_string(), master.authority());
    let failed = |source| WebSocketError::Proxy { proxy: shown.clone(), master: named.clone(), source };
    let target = format!("https://{named}").parse().map_err(|error| failed(Box::new(error) as _))?;
    let mut tunnel = Tunnel::new(proxy.uri().clone(), HttpConnector::new());
    if let Some(auth) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    match timeout(TCP_WITHIN, tunnel.call(target)).await {
        Ok(Ok(connected)) => Ok(connected.into_inner()),
        Ok(Err(error)) => Err(failed(Box::new(error))),
        Err(_) => Err(WebSocketError::ProxyTooSlow { proxy: shown, master: named }),
    }
}

/// TLS, WebSocket and QUIC over a TCP connection.
pub(super) async fn dial(
    socket: TcpStream,
    master: &MasterAddress,
    tls: Arc<ClientConfig>,
    tuning: &Tuning,
) -> Result<Dialed, WebSocketError> {
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(&socket).set_tcp_notsent_lowat(NOT_SENT_MAX);
    let peer = socket.peer_addr().unwrap_or_else(|_| ([0, 0, 0, 0], master.port).into());
    let shaking = timeout(HANDSHAKE_WITHIN, upgrade(socket, master)).await;
    let websocket = shaking.unwrap_or_else(|_| Err(WebSocketError::TooSlow { master: master.clone() }))?;
    Ok(Carried::dial(websocket, peer, tls, certs::tls::SERVER_NAME, tuning).await?)
}

type Upgraded = websocket::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

async fn upgrade(socket: TcpStream, master: &MasterAddress) -> Result<Upgraded, WebSocketError> {
    let broken = |source| WebSocketError::Tls { master: master.clone(), source };
    let name = ServerName::try_from(master.host.clone()).map_err(|error| broken(io::Error::other(error)))?;
    let connector = TlsConnector::from(certs::tls::outside_config()?);
    let stream = connector.connect(name, socket).await.map_err(broken)?;
    let url = format!("wss://{}{}", master.authority(), master.path.as_deref().unwrap_or(PATH));
    let shaken = async {
        let mut request = url.as_str().into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        client_async_with_config(request, stream, Some(websocket::bounds())).await
    };
    match shaken.await {
        Ok((websocket, _)) => Ok(websocket),
        Err(source) => Err(WebSocketError::Handshake { url, source }),
    }
}
