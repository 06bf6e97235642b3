//! One connection to a target behind an agent, carried between something local and a WebSocket of the API.

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    client::{CallError, Client, segment},
    websocket::WebSocket,
};

/// The end of one direction, as a text message.
const EOF: &str = "eof";
const PIECE: usize = 64 * 1024;

/// Why a connection ended other than by its two ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection to the master was lost: {0}")]
    Master(String),
    #[error("closed: {0}")]
    Closed(String),
    #[error("the local end failed: {0}")]
    Local(#[from] std::io::Error),
}

impl Client {
    /// Dials `target` (`host:port`) from the agent. When this returns, the target has answered.
    pub(super) async fn connect(&self, agent: &str, target: &str) -> Result<WebSocket, CallError> {
        let target: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        self.websocket(&format!("/agents/{}/connect?target={target}", segment(agent))).await
    }
}

/// Carries bytes until both directions ended. On an error nothing more was delivered in either.
pub(super) async fn carry(
    websocket: WebSocket,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> Result<(), Broken> {
    let (mut sink, mut source) = websocket.split();
    let closed = {
        let up = up(&mut sink, &mut input);
        let down = down(&mut source, &mut output);
        tokio::pin!(up, down);
        tokio::select! {
            down = &mut down => down,
            up = &mut up => match up {
                Ok(()) => down.await,
                Err(error) => Err(error),
            },
        }
    };
    if closed.is_ok() {
        let _ = sink.close().await;
    }
    closed
}

async fn up(sink: &mut SplitSink<WebSocket, Message>, input: &mut (impl AsyncRead + Unpin)) -> Result<(), Broken> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        let message = match input.read_buf(&mut buffer).await? {
            0 => Message::text(EOF),
            _ => Message::Binary(buffer.split().freeze()),
        };
        let last = matches!(message, Message::Text(_));
        sink.send(message).await.map_err(lost)?;
        if last {
            return Ok(());
        }
    }
}

/// Ends when the master says that both directions are over.
async fn down(source: &mut SplitStream<WebSocket>, output: &mut (impl AsyncWrite + Unpin)) -> Result<(), Broken> {
    loop {
        match source.next().await {
            Some(Ok(Message::Binary(piece))) => {
                output.write_all(&piece).await?;
                output.flush().await?;
            }
            Some(Ok(Message::Text(text))) if text.as_str() == EOF => output.shutdown().await?,
            Some(Ok(Message::Close(Some(frame)))) if frame.reason == "done" => return Ok(()),
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return Err(Broken::Closed(if reason.is_empty() { "no reason given".into() } else { reason }));
            }
            Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(Broken::Master("no close frame".into())),
        }
    }
}

fn lost(error: tungstenite::Error) -> Broken {
    Broken::Master(error.to_string())
}
