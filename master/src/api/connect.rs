//! `/agents/{id}/connect`: one connection to a target behind an agent, as the bytes of a WebSocket. Binary messages are
//! bytes, the text `eof` is the end of a direction, and the close frame says why it is over.

use axum::{
    body::Bytes,
    extract::{
        State,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use proto::{code::Code, id::AgentId, open::Target};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use utoipa::IntoParams;

use super::{
    extract::{Id, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
    tunnels::by,
    websocket::{PING_EVERY, Upgrade, close},
};
use crate::{access::Action, tunnel::direct::DirectConnection};

/// The end of one direction, as a text message.
const EOF: &str = "eof";
const PIECE: usize = 64 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectQuery {
    /// `host:port` as the agent sees it; brackets around an IPv6 address
    #[param(example = "127.0.0.1:22")]
    target: String,
}

/// Connect to a target: a WebSocket that carries its bytes
#[utoipa::path(get, path = "/agents/{id}/connect", tag = "tunnels", operation_id = "connect",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), ConnectQuery),
    responses((status = 101, description = "The target answered; binary messages are its bytes"),
              (status = 409, description = "agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn connect(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<ConnectQuery>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    api.agent(&caller, Action::Connect, &id).await?;
    let target = target(&query.target)?;
    let connection = api.direct.connect(by(&caller), &id, target).await?;
    let state = api.clone();
    upgrade.accept_to_the_end(&api, async move |websocket| serve(state, caller, connection, websocket).await)
}

fn target(text: &str) -> Result<Target, Problem> {
    let invalid = || Kind::Invalid.problem("target is host:port, with brackets around an IPv6 address");
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let target = Target { host: host.to_owned(), port: port.parse().map_err(|_| invalid())? };
    target.check().map_err(|error| Kind::Invalid.problem(format!("target: {error}")))?;
    Ok(target)
}

/// The connection ends on one end of a socket pair, so that half-close, reset and stalled readers go the one way there
/// is; the WebSocket stands at the other.
async fn serve(api: Api, caller: Caller, connection: DirectConnection, websocket: WebSocket) {
    let Ok((inner, outer)) = UnixStream::pair() else { return };
    let (mut sink, mut source) = websocket.split();
    let (from_target, to_target) = outer.into_split();
    let reason = tokio::select! {
        biased;
        _ = api.not_any_more(&caller, Action::Connect) => "unauthorized".to_owned(),
        result = async {
            let bytes = async { tokio::try_join!(down(&mut sink, from_target), up(&mut source, to_target)) };
            // A caller that leaves after both ends of file has left in peace.
            let gone = async {
                bytes.await?;
                Ok(())
            };
            tokio::try_join!(connection.carry(inner), gone)
        } => result.err().unwrap_or(Code::DONE).to_string(),
    };
    let _ = tokio::time::timeout(RECHECK, sink.send(close(&reason))).await;
}

/// The target's bytes to the caller, and pings while there are none, for proxies in between. A caller that reads nothing
/// for hours is as good as one that reads; a dead one is the kernel's to find.
async fn down(sink: &mut SplitSink<WebSocket, Message>, mut from_target: OwnedReadHalf) -> Result<(), Code> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let message = match tokio::time::timeout(PING_EVERY, from_target.read_buf(&mut buffer)).await {
            Err(_) => Message::Ping(Bytes::new()),
            Ok(Ok(0) | Err(_)) => return sink.send(Message::text(EOF)).await.map_err(|_| Code::ABANDONED),
            Ok(Ok(_)) => Message::Binary(buffer.split().freeze()),
        };
        sink.send(message).await.map_err(|_| Code::ABANDONED)?;
    }
}

/// The caller's bytes to the target, up to their end.
async fn up(source: &mut SplitStream<WebSocket>, mut to_target: OwnedWriteHalf) -> Result<(), Code> {
    loop {
        match source.next().await {
            // A target that takes no more ends the relay, which knows why.
            Some(Ok(Message::Binary(piece))) => to_target.write_all(&piece).await.map_err(|_| Code::ABANDONED)?,
            Some(Ok(Message::Text(text))) if text.as_str() == EOF => return Ok(()),
            Some(Ok(Message::Text(_))) => return Err(Code::UNEXPECTED),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Code::ABANDONED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_host_and_port() {
        assert_eq!(target("127.0.0.1:22").unwrap(), Target { host: "127.0.0.1".into(), port: 22 });
        assert_eq!(target("[::1]:443").unwrap(), Target { host: "::1".into(), port: 443 });
        for bad in ["", "host", "host:", ":22", "host:0", "host:65536", "a b:1", "a/b:1"] {
            assert_eq!(target(bad).unwrap_err().code, "invalid", "{bad}");
        }
    }
}
