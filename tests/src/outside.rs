//! The outside of a line inside a WebSocket, as far as a test wants to go: TCP from an address of its choice, TLS, and the
//! WebSocket; then a puppet's line, or nothing at all.

use std::net::{Ipv4Addr, SocketAddr};

use certs::tls;
use proto::net::{
    carrier::websocket::{self, Carried, PATH, SUBPROTOCOL, WebSocketStream},
    quic::Tuning,
};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

use crate::puppet::{Puppet, PuppetLine, hello};

/// An upgraded connection in which nobody has spoken QUIC yet.
pub type Upgraded = WebSocketStream<TlsStream<TcpStream>>;

pub async fn tcp(to: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    Ok(socket.connect(to).await?)
}

pub async fn tls(to: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TlsStream<TcpStream>> {
    let name = ServerName::from(to.ip());
    Ok(TlsConnector::from(tls::outside_config()?).connect(name, tcp(to, from).await?).await?)
}

pub async fn websocket(to: SocketAddr, from: Ipv4Addr) -> anyhow::Result<Upgraded> {
    let stream = tls(to, from).await?;
    let mut request = format!("wss://{to}{PATH}").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    Ok(client_async_with_config(request, stream, Some(websocket::bounds())).await?.0)
}

/// The puppet's line inside a WebSocket from `from`, up to its Welcome.
pub async fn line(puppet: &Puppet, from: Ipv4Addr) -> anyhow::Result<PuppetLine> {
    let to: SocketAddr = puppet.token.address.parse()?;
    let config = tls::agent_line_config(&puppet.token.pin, &puppet.key, &puppet.certificate_der, 0)?;
    let upgraded = websocket(to, from).await?;
    let dialed = Carried::dial(upgraded, to, config, tls::SERVER_NAME, &Tuning::default()).await?;
    let (reply, line) = Puppet::hello_over(dialed, &hello()).await?;
    anyhow::ensure!(matches!(reply, proto::control::HelloReply::Welcome(_)), "refused: {reply:?}");
    Ok(line)
}
