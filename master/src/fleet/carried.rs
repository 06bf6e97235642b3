//! Lines inside WebSockets: what strangers may cost before the QUIC inside has shown who they are, and one small endpoint
//! for each. From its connection on, a line takes the same road as any other (SECURITY R4, R37).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proto::net::{
    carrier::{
        Carrier,
        websocket::{Carried, WebSocketStream},
    },
    quic::ServerParts,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    Fleet,
    accept::{Arrival, connection},
};
use crate::access::{Place, Places};

/// WebSockets at once whose agent has not been welcomed yet.
const PENDING_MAX: usize = 512;
/// Of one network. An office behind one address, or a whole fleet behind one proxy, comes in a few at a time.
const PENDING_PER_NETWORK: usize = 4;
/// How long a request waits for a place of its network before it is told to come again.
const PLACE_WITHIN: Duration = Duration::from_secs(5);
/// Time from the request to the end of the QUIC handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Time for the last packets of a line, and for the WebSocket's own farewell.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// What all WebSockets share.
pub(super) struct Doorway {
    parts: ServerParts,
    places: Arc<Places>,
}

impl Doorway {
    pub(super) fn new(parts: ServerParts) -> Self {
        Self { parts, places: Places::new(PENDING_MAX, PENDING_PER_NETWORK) }
    }
}

impl Fleet {
    /// A place for one WebSocket from `address`, which it holds until its agent is welcomed. `None` when there is none, or
    /// the master stops. Whoever asks is already bounded by the public port.
    pub async fn place_for_websocket(&self, address: IpAddr) -> Option<Place> {
        let waiting = self.doorway.places.wait(address, PLACE_WITHIN);
        self.stopping.run_until_cancelled(waiting).await.flatten()
    }

    /// Takes the line out of a WebSocket that is about to be there; `peer` is the TCP peer. The task is the fleet's.
    pub fn take_websocket<S>(
        self: &Arc<Self>,
        websocket: impl Future<Output = Option<WebSocketStream<S>>> + Send + 'static,
        peer: SocketAddr,
        place: Place,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (fleet, handshake_by) = (self.clone(), Instant::now() + HANDSHAKE_WITHIN);
        self.tasks.spawn(async move {
            let arrival = Arrival { carrier: Carrier::WebSocket, place, handshake_by };
            let pushed_out = arrival.place.pushed_out().clone();
            let first = pushed_out.run_until_cancelled(first_packet(&fleet.doorway.parts, websocket, peer));
            match timeout_at(handshake_by, first).await {
                Ok(Some(Some((carried, incoming)))) => serve(fleet, carried, incoming, arrival).await,
                Ok(Some(None) | None) => {}
                Err(_) => {
                    tracing::debug!(%peer, "no QUIC came in a WebSocket in time");
                    fleet.metrics.auth_failure("handshake");
                }
            }
        });
    }
}

/// The endpoint in the WebSocket and the one connection it takes.
async fn first_packet<S>(
    parts: &ServerParts,
    websocket: impl Future<Output = Option<WebSocketStream<S>>>,
    peer: SocketAddr,
) -> Option<(Carried, quinn::Incoming)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = Carried::server(websocket.await?, peer, parts);
    let mut carried = made.inspect_err(|error| tracing::error!(%error, "no endpoint in a WebSocket")).ok()?;
    let endpoint = carried.endpoint.clone();
    tokio::select! {
        biased;
        broken = carried.broken() => {
            tracing::debug!(%peer, reason = %broken, "a WebSocket ended before its first packet");
            None
        }
        incoming = endpoint.accept() => {
            endpoint.set_server_config(None);
            Some((carried, incoming?))
        }
    }
}

async fn serve(fleet: Arc<Fleet>, mut carried: Carried, incoming: quinn::Incoming, arrival: Arrival) {
    let peer = incoming.remote_address();
    let pushed_out = arrival.place.pushed_out().clone();
    let serving = connection(fleet, incoming, arrival);
    tokio::pin!(serving);
    tokio::select! {
        biased;
        // Never once its agent is known: it settles before.
        () = pushed_out.cancelled() => return,
        () = &mut serving => {}
        broken = carried.broken() => {
            // The connection was closed with it, and ends by that.
            tracing::debug!(%peer, reason = %broken, "the WebSocket of a line ended");
            serving.await;
        }
    }
    carried.finish(FINISH_WITHIN).await;
}
