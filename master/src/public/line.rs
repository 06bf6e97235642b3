//! Where agents bring their line when UDP is blocked: a WebSocket on the public TCP port, handed to the fleet. Nothing in
//! the request is believed: who comes is told by the QUIC inside (SECURITY R3, R4).

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::net::carrier::websocket::{self, PATH, Role, SUBPROTOCOL, WebSocketStream};
use socket2::SockRef;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::listener::Stream;
use crate::{fleet::Fleet, http::server::Peer};

/// Bytes the kernel may hold that it cannot send yet. More would be a queue in front of each keystroke that nobody sees.
const NOT_SENT_MAX: u32 = 32 << 10;

/// `others`, and lines beside it: at their path, and wherever a WebSocket is asked for as one, since a master's address may
/// name a path of its proxy. Under every name: agents may know this host by names that are not served.
pub fn with_lines(others: Router, fleet: Arc<Fleet>) -> Router {
    Router::new().fallback(async move |request: Request| {
        if request.uri().path() == PATH || asks_for_line(&request) {
            return answer(&fleet, request).await;
        }
        tower::ServiceExt::oneshot(others.clone(), request).await.unwrap_or_else(|never| match never {})
    })
}

fn asks_for_line(request: &Request) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offered.filter_map(|offers| offers.to_str().ok()).flat_map(|offers| offers.split(','));
    offers.any(|offer| offer.trim() == SUBPROTOCOL)
}

async fn answer(fleet: &Arc<Fleet>, mut request: Request) -> Response {
    // Only browsers send it, and none of them has business here.
    if request.headers().contains_key(header::ORIGIN) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(response) = switching(&request) else {
        return (StatusCode::UPGRADE_REQUIRED, "agents bring their line here, in a WebSocket\n").into_response();
    };
    let Some(place) = fleet.place_for_websocket(peer.ip()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")]).into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let websocket = async move {
        match upgrade.await {
            Ok(upgraded) => from_upgraded(upgraded, peer).await,
            Err(error) => {
                tracing::debug!(%peer, %error, "a WebSocket for a line did not come up");
                None
            }
        }
    };
    fleet.take_websocket(websocket, peer, place);
    response
}

/// The answer to a proper handshake; `None` for any other request.
fn switching(request: &Request) -> Option<Response> {
    let mut bare = axum::http::Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.version_mut() = request.version();
    *bare.headers_mut() = request.headers().clone();
    let mut response = create_response(&bare).ok()?.map(|()| Body::empty());
    if asks_for_line(request) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Some(response)
}

/// The connection as it was accepted, so that no byte takes a detour, and with what came behind the request.
async fn from_upgraded(upgraded: Upgraded, peer: SocketAddr) -> Option<WebSocketStream<Stream>> {
    let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else {
        tracing::error!(%peer, "a WebSocket for a line came on a connection of an unknown kind");
        return None;
    };
    let stream = parts.io.into_inner();
    let (socket, _) = stream.get_ref().get_ref();
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(NOT_SENT_MAX);
    let early = parts.read_buf.to_vec();
    Some(WebSocketStream::from_partially_read(stream, early, Role::Server, Some(websocket::bounds())).await)
}
