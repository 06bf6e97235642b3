//! The public TCP port: accepts, bounds what strangers can cost, shakes hands in TLS, and serves a router. The loop never
//! waits for a peer (SECURITY R32, R55). Knows no route.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    access::{Place, Places},
    http::{
        server::{Peer, connection, tune},
        unstalled::Unstalled,
    },
};

/// What requests come in on.
pub type Stream = Unstalled<TlsStream<TcpStream>>;

/// Connections at once; beyond it the oldest that has not asked for anything goes, so that neither the kernel's queue nor
/// those who only connect ever keep a legitimate one out.
const CONNECTIONS_MAX: usize = 2_048;
/// Of one network: a few browsers of one office, far from all places.
const PER_NETWORK: usize = 256;
/// Time for the TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);
/// Time for a request's header, and for an idle connection to send the next one.
const HEADER_WITHIN: Duration = Duration::from_secs(15);
/// A peer that takes no byte of its answer for so long is cut.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptors left): long enough not to spin, short enough to recover at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Accepts until `stop`, then lets answers in flight end for at most `grace`. Dropping the future ends every connection.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Places::new(CONNECTIONS_MAX, PER_NETWORK);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                // A stranger beyond the bounds costs one accept.
                let Some(place) = places.push_in(peer.ip()) else { continue };
                connections.spawn(one(socket, peer, place, acceptor.clone(), router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the public port");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn one(
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    tune(&socket);
    let pushed_out = place.pushed_out().clone();
    let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(socket));
    let shaken = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = pushed_out.cancelled() => return,
        shaken = handshake => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let stream: Stream = Unstalled::new(stream, STALLED_AFTER);
            let serving = connection(stream, Some(Peer(peer)), settling(router, place), stop, HEADER_WITHIN);
            // Dropped in the middle only while it waits for its first request.
            let _ = pushed_out.run_until_cancelled(serving).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS on the public port"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake on the public port took too long"),
    }
}

/// Holds the place, for good from the first request on.
fn settling(router: Router, place: Place) -> Router {
    let place = Arc::new(place);
    Router::new().fallback(async move |request: Request| {
        place.settle();
        router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    })
}
