//! What flows: a WebSocket with a ticking clock, server-sent events, uploads and downloads of any size, trailers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{Answer, Body, State, full, text, with_type};

const TICK: Duration = Duration::from_millis(100);
const PIECE: usize = 64 * 1024;

pub(super) async fn answer(request: Request<Incoming>, state: &State) -> Answer {
    match request.uri().path() {
        "/ws" => websocket(request, false),
        "/deaf" => websocket(request, true),
        "/events" => events(&state.name),
        "/upload" => upload(request).await,
        "/trailers" => trailers(),
        _ => download(&request),
    }
}

/// Echoes what it is sent and ticks meanwhile; a deaf one does neither, and never hangs up.
fn websocket(mut request: Request<Incoming>, deaf: bool) -> Answer {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return text(StatusCode::BAD_REQUEST, "this is a WebSocket");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        if deaf {
            return std::future::pending().await;
        }
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let mut ticks = tokio::time::interval(TICK);
        let mut count = 0_u64;
        loop {
            let message = tokio::select! {
                _ = ticks.tick() => {
                    count += 1;
                    Message::text(format!("tick {count}"))
                }
                received = socket.next() => match received {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()).parse().expect("a key"));
    answer
}

fn events(name: &str) -> Answer {
    let name = name.to_owned();
    let frames = stream::unfold(0_u64, move |count| {
        let text = format!("data: {name} {count}\n\n");
        async move {
            // The beat of the site, not a wait for anything.
            tokio::time::sleep(TICK).await;
            Some((Ok(Frame::data(Bytes::from(text))), count + 1))
        }
    });
    let mut answer = Response::new(boxed(frames));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

/// Says how many bytes came and what their SHA-256 is.
async fn upload(request: Request<Incoming>) -> Answer {
    let (mut body, mut hasher, mut length) = (request.into_body(), Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return text(StatusCode::BAD_REQUEST, "cut off") };
        if let Some(piece) = frame.data_ref() {
            length += piece.len();
            hasher.update(piece);
        }
    }
    let told = serde_json::json!({ "length": length, "sha256": hex::encode(hasher.finalize()) });
    with_type(StatusCode::OK, "application/json", told.to_string())
}

/// `/download?N`: as many bytes, each the same.
fn download(request: &Request<Incoming>) -> Answer {
    let total: usize = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0);
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let frames = stream::unfold(total, move |left| {
        let next = (left > 0).then(|| (Ok(Frame::data(piece.slice(..left.min(PIECE)))), left.saturating_sub(PIECE)));
        async move { next }
    });
    let mut answer = Response::new(boxed(frames));
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(total));
    answer
}

fn trailers() -> Answer {
    let trailers = HeaderMap::from_iter([(header::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))]);
    let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    let mut answer = Response::new(boxed(stream::iter(frames)));
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
    answer
}

fn boxed(frames: impl stream::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(frames))
}
