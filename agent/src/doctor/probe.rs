//! Looks at a network: one question each, with a deadline, and what was seen. What it means for an agent is not decided here.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use certs::{
    join::Pin,
    tls::{self, TlsError},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use proto::{
    code::Code,
    net::{
        carrier::{DialError, Dialed, Dialer},
        stream,
    },
};
use rustls::{ClientConnection, pki_types::ServerName};

use crate::{
    config::address::MasterAddress,
    link::connect::{ConnectError, Roads},
};

/// For one TCP connection, and for one answer on it.
const TCP_WITHIN: Duration = Duration::from_secs(5);
/// For the discovery of what the path carries, once a connection is up.
const MTU_WITHIN: Duration = Duration::from_secs(2);
/// The close goes out before the socket does; nobody waits for it longer than this.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(20);
/// The largest packet a line tries for, bytes of UDP payload.
pub const FULL_MTU: u16 = 1452;
/// Longest head of an answer that is read, bytes.
const HEAD_MAX: u64 = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no TCP connection to {address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("no TLS on {address}")]
    Handshake { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the probe failed")]
    Internal,
}

/// A QUIC connection that came up.
#[derive(Debug, Clone, Copy)]
pub struct QuicSeen {
    pub rtt: Duration,
    /// What the path carries, as far as it was found out.
    pub mtu: u16,
}

/// A TLS server that answered.
#[derive(Debug, Clone)]
pub struct TlsSeen {
    pub took: Duration,
    /// What it says the time is, where it speaks HTTP.
    pub date: Option<Timestamp>,
}

/// QUIC over UDP: a handshake as for enrolment, verified against the pin, and nothing said on it.
pub async fn udp(dialer: &Dialer, address: SocketAddr, pin: &Pin, at_least_ms: i64) -> Result<QuicSeen, ProbeError> {
    let tls = tls::agent_enrol_config(pin, None, at_least_ms)?;
    let dialed = dialer.dial(address, tls, tls::SERVER_NAME).await?;
    let begun = Instant::now();
    while dialed.connection.stats().path.current_mtu < FULL_MTU && begun.elapsed() < MTU_WITHIN {
        tokio::time::sleep(LOOK).await;
    }
    Ok(looked_at(dialed).await)
}

/// The same inside a WebSocket, through the proxy where there is one for this master.
pub async fn websocket(
    roads: &Roads,
    master: &MasterAddress,
    pin: &Pin,
    at_least_ms: i64,
) -> Result<QuicSeen, ProbeError> {
    let tls = tls::agent_enrol_config(pin, None, at_least_ms)?;
    Ok(looked_at(roads.websocket(master, tls).await?).await)
}

async fn looked_at(dialed: Dialed) -> QuicSeen {
    let connection = &dialed.connection;
    let seen = QuicSeen { rtt: connection.rtt(), mtu: connection.stats().path.current_mtu };
    stream::close(connection, Code::DONE);
    dialed.finish(CLOSE_WITHIN).await;
    seen
}

/// TCP, TLS with whoever answers, and one harmless request: nothing secret is sent, and nothing is believed but the time.
pub async fn tcp_tls(address: SocketAddr, host: String) -> Result<TlsSeen, ProbeError> {
    let probing = tokio::task::spawn_blocking(move || blocking_tls(address, &host));
    probing.await.map_err(|_| ProbeError::Internal)?
}

fn connect(address: SocketAddr) -> Result<TcpStream, ProbeError> {
    let connected = TcpStream::connect_timeout(&address, TCP_WITHIN).and_then(|socket| {
        socket.set_read_timeout(Some(TCP_WITHIN))?;
        socket.set_write_timeout(Some(TCP_WITHIN))?;
        Ok(socket)
    });
    connected.map_err(|source| ProbeError::Tcp { address, source })
}

fn blocking_tls(address: SocketAddr, host: &str) -> Result<TlsSeen, ProbeError> {
    let begun = Instant::now();
    let mut socket = connect(address)?;
    let failed = |source| ProbeError::Handshake { address, source };
    let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| address.ip().into());
    let mut session = ClientConnection::new(tls::outside_config()?, name).map_err(TlsError::from)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket).map_err(failed)?;
    }
    let took = begun.elapsed();
    Ok(TlsSeen { took, date: date(&mut rustls::Stream::new(&mut session, &mut socket), host) })
}

/// The `Date` of an answer to `/`.
fn date(stream: &mut (impl Read + Write), host: &str) -> Option<Timestamp> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut head = Vec::new();
    // Some end without a word; what came until then counts.
    let _ = stream.take(HEAD_MAX).read_to_end(&mut head);
    let head = String::from_utf8_lossy(&head);
    let date = head.lines().find_map(|line| line.strip_prefix("date: ").or_else(|| line.strip_prefix("Date: ")))?;
    Some(DateTimeParser::new().parse_zoned(date.trim()).ok()?.timestamp())
}
