//! Serves a router on one listener, TCP or a unix socket, with the limits that hold
//! before anyone has authenticated (SECURITY R55). Owns
//! connections and their deadlines; knows no route.

use std::{
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Time for the header of a request, and for an idle connection to send the next one.
const HEADER_WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of a request's header.
const HEADER_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// A caller whose machine vanished is found by the kernel, however long nothing is to be said.
const KEEP_ALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
/// Connections of one listener; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// After a failed accept (no descriptors left): long enough not to spin, short enough to recover at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Ends the connection that a request came on, read or unread. In the extensions of each request; clones share it.
#[derive(Debug, Clone, Default)]
pub struct HangUp(CancellationToken);

impl HangUp {
    pub fn now(&self) {
        self.0.cancel();
    }
}

/// Where requests come in.
#[derive(Debug)]
pub enum Listening {
    Tcp(TcpListener),
    /// Its owner alone may connect; the path goes with the listener.
    Unix(UnixListener, SocketPath),
}

/// Removes the socket from the file system when dropped.
#[derive(Debug)]
pub struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listening {
    /// Binds a unix socket with mode 0600. What an earlier run left there is replaced; another kind of file is not. The
    /// folder should be the owner's alone: between bind and chmod the socket has the mode of the umask.
    pub fn unix(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        let guard = SocketPath(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener, guard))
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, peer)| Accepted::Tcp(socket, peer)),
            Self::Unix(listener, _) => listener.accept().await.map(|(socket, _)| Accepted::Unix(socket)),
        }
    }
}

/// When a listener stops. Both at once for one that nobody needs an answer of any more.
#[derive(Debug, Clone)]
pub struct Stopping {
    /// Connections end with their request in flight. New ones are still taken, for the router to say no on: whoever calls
    /// meanwhile is told so, in place of finding nobody.
    pub drain: CancellationToken,
    /// The listener closes.
    pub ended: CancellationToken,
    /// What requests in flight have after `drain`.
    pub grace: Duration,
}

/// Accepts until the end, and gives requests that were in flight at its drain their grace. Dropping the future ends every
/// connection at once.
pub async fn serve(listener: Listening, router: Router, stopping: Stopping) {
    let Stopping { drain, ended, grace } = stopping;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut over_at = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = ended.cancelled() => break,
            () = drain.cancelled(), if over_at.is_none() => {
                over_at = Some(Instant::now() + grace);
                continue;
            }
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((accepted, permit)) = accepted else { continue };
        // One that comes later must live long enough to be told.
        let stop = if over_at.is_some() { ended.clone() } else { drain.clone() };
        let router = router.clone();
        match accepted {
            Accepted::Tcp(socket, peer) => {
                tune(&socket);
                let serving = connection(socket, Some(Peer(peer)), router, stop, HEADER_WITHIN);
                connections.spawn(holding(permit, serving));
            }
            Accepted::Unix(socket) => {
                let serving = connection(socket, None, router, stop, HEADER_WITHIN);
                connections.spawn(holding(permit, serving));
            }
        }
    }
    drop(listener);
    let over_at = over_at.unwrap_or_else(|| Instant::now() + grace);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout_at(over_at, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// The permit is taken first, so that beyond the bound nothing is accepted. Cancel-safe.
async fn accept(listener: &Listening, permits: &Arc<Semaphore>) -> Option<(Accepted, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok(accepted) => Some((accepted, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept an HTTP connection");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

async fn holding(permit: OwnedSemaphorePermit, serving: impl Future<Output = ()>) {
    serving.await;
    drop(permit);
}

/// Small answers leave at once, and vanished peers are found.
pub fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_keepalive(&KEEP_ALIVE);
}

/// Serves one connection until its peer or `stop` ends it. A header must be there within `header_within`, the first as
/// well as each later one.
pub async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<Peer>,
    router: Router,
    stop: CancellationToken,
    header_within: Duration,
) {
    let hang_up = HangUp::default();
    let hung_up = hang_up.0.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(hang_up.clone());
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_within)
        .max_buf_size(HEADER_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            result = connection.as_mut() => result,
        }
    };
    match hung_up.run_until_cancelled(served).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(?peer, %error, "an HTTP connection ended early"),
        None => tracing::debug!(?peer, "an HTTP connection was hung up"),
    }
}
