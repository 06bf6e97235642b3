//! QUIC inside a WebSocket, either end: an endpoint whose socket is two queues, and the pump between them and the
//! WebSocket. Dials no TCP, speaks no TLS of the outside: whoever has a WebSocket brings it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
pub use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use super::{
    Carrier, DialError, Dialed,
    frames::{self, BadBatch, MESSAGE_MAX},
    queue::Queues,
    shake,
};
use crate::{
    code::Code,
    net::{
        quic::{self, EndpointError, ServerParts, Tuning},
        stream::varint,
    },
};

/// Where the master takes WebSockets that carry a line, unless an address names another path.
pub const PATH: &str = "/.landline/line";
/// What the WebSocket is for, in its handshake: told from any other that a proxy may let through.
pub const SUBPROTOCOL: &str = "landline-quic.1";
/// Keeps the mapping of a proxy alive that only counts WebSocket frames of its own making.
const PING_EVERY: Duration = Duration::from_secs(25);
/// Time for the QUIC handshake inside a WebSocket that stands.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);
/// Time for a close frame to leave.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const READ_BUFFER: usize = 32 << 10;

/// Bounds of the WebSocket itself, for both ends: one message at most is held either way.
pub fn bounds() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER;
    // Each message leaves at once; what waits, waits in our own queue.
    config.write_buffer_size = 0;
    config.max_write_buffer_size = 4 * MESSAGE_MAX;
    config.max_message_size = Some(MESSAGE_MAX);
    config.max_frame_size = Some(MESSAGE_MAX);
    config
}

/// Why a WebSocket ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the WebSocket was closed by the other end")]
    Closed,
    #[error("this end closed the WebSocket")]
    Finished,
    #[error("a message that is not binary")]
    Text,
    #[error("a message that cannot be")]
    Batch(#[from] BadBatch),
    #[error("the WebSocket failed")]
    Failed(#[from] tungstenite::Error),
}

/// An endpoint over a WebSocket. Dropping it ends the pump and cuts the TCP connection.
#[derive(Debug)]
pub struct Carried {
    pub endpoint: quinn::Endpoint,
    queues: Arc<Queues>,
    pump: JoinSet<Broken>,
}

impl Carried {
    /// The agent's end: shakes hands over a WebSocket to the master. `peer` is whatever TCP was dialled.
    pub async fn dial<S>(
        websocket: WebSocketStream<S>,
        peer: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        name: &str,
        tuning: &Tuning,
    ) -> Result<Dialed, DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let queues = Queues::new(peer);
        let endpoint = quic::client_over(queues.clone(), tls, tuning).map_err(DialError::Endpoint)?;
        let mut carried = Self::start(websocket, endpoint.clone(), queues);
        let connection = tokio::select! {
            biased;
            source = carried.broken() => return Err(DialError::Broken { address: peer, source }),
            shaken = shake(&endpoint, peer, name, Carrier::WebSocket, HANDSHAKE_WITHIN) => shaken?,
        };
        Ok(Dialed::over_websocket(connection, carried))
    }

    /// The master's end; `peer` is the TCP peer, which stands as the line's address.
    pub fn server<S>(
        websocket: WebSocketStream<S>,
        peer: SocketAddr,
        parts: &ServerParts,
    ) -> Result<Self, EndpointError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let queues = Queues::new(peer);
        let endpoint = parts.over(queues.clone())?;
        Ok(Self::start(websocket, endpoint, queues))
    }

    fn start<S>(websocket: WebSocketStream<S>, endpoint: quinn::Endpoint, queues: Arc<Queues>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut pump = JoinSet::new();
        pump.spawn(pumping(websocket, queues.clone(), endpoint.clone()));
        Self { endpoint, queues, pump }
    }

    /// Resolves when the WebSocket ended, after its connection was closed with `line_lost`. Cancel-safe; waits for ever
    /// once it has told.
    pub async fn broken(&mut self) -> Broken {
        match self.pump.join_next().await {
            Some(Ok(broken)) => broken,
            Some(Err(error)) => Broken::Failed(tungstenite::Error::Io(std::io::Error::other(error))),
            None => std::future::pending().await,
        }
    }

    /// Lets the last packets leave, closes the WebSocket and waits for its end, for at most `within`.
    pub async fn finish(mut self, within: Duration) {
        // The close frame is among the first packets of the idle time; the rest of it is for a network that loses.
        let _ = tokio::time::timeout(within / 2, self.endpoint.wait_idle()).await;
        self.queues.finish();
        let _ = tokio::time::timeout(within / 2, self.pump.join_next()).await;
    }
}

async fn pumping<S>(websocket: WebSocketStream<S>, queues: Arc<Queues>, endpoint: quinn::Endpoint) -> Broken
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = websocket.split();
    let broken = tokio::select! {
        broken = send(&mut sink, &queues) => broken,
        broken = receive(&mut stream, &queues) => broken,
    };
    queues.break_off();
    endpoint.close(varint(Code::LINE_LOST), b"carrier");
    let _ = tokio::time::timeout(CLOSE_WITHIN, sink.send(Message::Close(farewell(&broken)))).await;
    broken
}

async fn send<S>(sink: &mut SplitSink<WebSocketStream<S>, Message>, queues: &Queues) -> Broken
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    loop {
        let sent = tokio::select! {
            biased;
            _ = ping.tick() => sink.send(Message::Ping(bytes::Bytes::new())).await,
            next = queues.next() => match next {
                Some((message, true)) => sink.feed(Message::Binary(message)).await,
                Some((message, false)) => sink.send(Message::Binary(message)).await,
                None => return Broken::Finished,
            },
        };
        if let Err(error) = sent {
            return Broken::Failed(error);
        }
    }
}

async fn receive<S>(stream: &mut SplitStream<WebSocketStream<S>>, queues: &Queues) -> Broken
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(message))) => match frames::decode(message) {
                Ok(batch) => queues.deliver(batch).await,
                Err(error) => return Broken::Batch(error),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => return Broken::Text,
            Some(Ok(Message::Close(_))) | None => return Broken::Closed,
            Some(Err(error)) => return Broken::Failed(error),
        }
    }
}

/// What the other end is told. The reason is ours and short: nothing of the peer's is said back.
fn farewell(broken: &Broken) -> Option<CloseFrame> {
    let code = match broken {
        Broken::Closed => return None,
        Broken::Finished => CloseCode::Normal,
        Broken::Text => CloseCode::Unsupported,
        Broken::Batch(_) => CloseCode::Policy,
        Broken::Failed(tungstenite::Error::Capacity(_)) => CloseCode::Size,
        Broken::Failed(_) => CloseCode::Protocol,
    };
    Some(CloseFrame { code, reason: broken.to_string().into() })
}
