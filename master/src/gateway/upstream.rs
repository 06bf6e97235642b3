//! Connections to targets: dialled through their tunnels, kept open between requests, one set per visit so that nothing
//! that a target ties to a connection is shared between people. Says what went wrong in our words.

use std::{
    error::Error as StdError,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, http::Uri};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connected, Connection},
    },
    rt::{TokioIo, TokioTimer},
};
use proto::{code::Code, id::TunnelId};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{outward::Sent, tls, trouble::Trouble};
use crate::{
    store::tunnels::{Scheme, Tunnel},
    tunnel::{
        Outer, Tunnels,
        pins::{PinError, Pinned, Pins},
        visits::Visit,
    },
};

/// Idle connections kept per visit, and for how long: targets often close theirs soon after.
const IDLE_MAX: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(15);
/// Largest header of an answer, bytes; also what is read ahead of a slow browser.
pub(super) const HEADER_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 256;
/// Time for a TLS handshake, the dial included.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

/// The way to all targets.
pub(super) struct Upstream {
    client: Client<Connector, Body>,
}

#[derive(Clone)]
struct Connector {
    tunnels: Arc<Tunnels>,
    pins: Arc<Pins>,
    tls: TlsConnector,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the tunnel is over")]
    Gone,
    #[error("the target was not reached: {0}")]
    Dial(Code),
    #[error("no TLS with the target")]
    Tls(#[source] io::Error),
    #[error("the target did not answer within {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// A connection, plain or not.
enum Wire {
    Plain(TokioIo<Outer>),
    Tls(Box<TokioIo<TlsStream<Outer>>>),
}

/// Runs what keeps connections going; nothing of it outlives the master's stop.
#[derive(Clone)]
struct Owned {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Upstream {
    pub(super) fn new(
        tunnels: Arc<Tunnels>,
        pins: Arc<Pins>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, rustls::Error> {
        let connector = Connector { tunnels, pins, tls: TlsConnector::from(tls::config()?) };
        let client = Client::builder(Owned { tasks, stop })
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(HEADER_MAX)
            .http1_max_headers(HEADERS_MAX)
            // Small machines with servers of their own making.
            .http1_title_case_headers(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .set_host(false)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request and waits for the header of its answer, `within` at most once the request is out.
    pub(super) async fn send(
        &self,
        row: &Tunnel,
        visit: &Visit,
        mut request: Request,
        sent: &Sent,
        within: Duration,
    ) -> Result<hyper::Response<Incoming>, Trouble> {
        *request.uri_mut() = address(row.id, visit.number, request.uri()).ok_or(Trouble::Ours)?;
        let mut answer = pin!(self.client.request(request));
        loop {
            let was_sent = sent.all();
            match timeout(within, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(trouble(&error, row)),
                Err(_) if was_sent => return Err(Trouble::Silent { after: within }),
                Err(_) => {}
            }
        }
    }
}

/// `http://<tunnel>.<visit>/path`: the first part is what connections are kept under; the target sees the path alone.
fn address(tunnel: TunnelId, visit: u64, uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().cloned()?;
    let authority = format!("{}.{visit}", tunnel.0.simple());
    Uri::builder().scheme("http").authority(authority).path_and_query(path).build().ok()
}

fn tunnel_of(uri: &Uri) -> Option<TunnelId> {
    let (slug, _) = uri.host()?.split_once('.')?;
    slug.parse().ok().map(TunnelId)
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<Wire, ConnectError> {
        let row = tunnel_of(&uri).and_then(|tunnel| self.tunnels.open_row(tunnel)).ok_or(ConnectError::Gone)?;
        let dialled = self.tunnels.dial(row.id).map_err(ConnectError::Dial)?;
        let answer =
            async move { dialled.answer.await.unwrap_or(Err(Code::TUNNEL_CLOSED)).map_err(ConnectError::Dial) };
        if row.target.scheme != Scheme::Https {
            answer.await?;
            return Ok(Wire::Plain(TokioIo::new(dialled.stream)));
        }
        // The greeting goes out with the dial; where it fails because of the dial, that is what is told.
        let handshake = timeout(HANDSHAKE_WITHIN, self.tls.connect(tls::server_name(&row.target.host), dialled.stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                answer.await?;
                return Err(ConnectError::Tls(error));
            }
            Err(_) => return Err(ConnectError::Silent(HANDSHAKE_WITHIN)),
        };
        let found = tls::fingerprint(stream.get_ref().1)
            .ok_or_else(|| ConnectError::Tls(io::Error::other("the target showed no certificate")))?;
        let (agent, host) = (row.agent_id.clone(), row.target.host.clone());
        self.pins.check(&Pinned { agent, host, port: row.target.port }, found).await?;
        Ok(Wire::Tls(Box::new(TokioIo::new(stream))))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Wire;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

fn trouble(error: &legacy::Error, row: &Tunnel) -> Trouble {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(error) = found.downcast_ref::<ConnectError>() {
            return not_connected(error, row);
        }
        if let Some(error) = found.downcast_ref::<hyper::Error>() {
            return not_answered(error);
        }
        cause = found.source();
    }
    Trouble::Broken(error.to_string())
}

fn not_connected(error: &ConnectError, row: &Tunnel) -> Trouble {
    match error {
        ConnectError::Gone | ConnectError::Dial(Code::LINE_LOST | Code::TUNNEL_CLOSED) => Trouble::Reconnecting,
        ConnectError::Dial(Code::BUSY) => Trouble::Busy,
        ConnectError::Dial(code) => Trouble::Dial(*code),
        ConnectError::Silent(after) => Trouble::Silent { after: *after },
        ConnectError::Pin(PinError::Changed { pinned, found }) => {
            Trouble::Certificate { tunnel: row.id, pinned: *pinned, found: *found }
        }
        ConnectError::Pin(PinError::Store(error)) => {
            tracing::warn!(%error, "a target's pinned certificate could not be read");
            Trouble::Ours
        }
        ConnectError::Tls(error) => not_secured(error, row),
    }
}

/// What the target speaks stands in the probe's report: it greets in every version there is.
fn not_secured(error: &io::Error, row: &Tunnel) -> Trouble {
    const OLD: [&str; 3] = ["SSL 3.0", "TLS 1.0", "TLS 1.1"];
    match row.probe["tls_version"].as_str() {
        Some(version) if OLD.contains(&version) => Trouble::OldTls { version: version.to_owned() },
        _ => Trouble::Tls { detail: error.to_string() },
    }
}

fn not_answered(error: &hyper::Error) -> Trouble {
    if error.is_parse_too_large() {
        return Trouble::HeaderTooLarge;
    }
    Trouble::Broken(match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Owned {
    fn execute(&self, future: F) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(future).await });
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! each_wire {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Plain($io) => {
                let $io = Pin::new($io);
                $call
            }
            Wire::Tls($io) => {
                let $io = Pin::new($io.as_mut());
                $call
            }
        }
    };
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        each_wire!(self, io => io.poll_read(cx, buffer))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each_wire!(self, io => io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_wire!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_wire!(self, io => io.poll_shutdown(cx))
    }
}
