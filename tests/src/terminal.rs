//! A shell session as a browser's terminal would have it: attached by WebSocket, acknowledging what it reads.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::api::Api;

/// One attachment to one session.
pub struct Terminal {
    socket: WebSocketStream<TcpStream>,
    /// Everything that was shown since the session began, or since `from`.
    pub shown: Vec<u8>,
    /// Where `shown` begins.
    pub from: u64,
    /// Bytes that the master said are gone.
    pub lost: u64,
    /// The text messages, oldest first.
    pub told: Vec<Value>,
    /// Why the socket was closed.
    pub closed: Option<String>,
    pub acks: bool,
}

/// Opens a session that runs a shell line on a terminal, and gives its id.
pub async fn open(api: &Api, agent: &str, line: &str) -> String {
    let shell = api.post(&format!("/agents/{agent}/shells"), json!({ "cols": 80, "rows": 24, "shell": line })).await;
    shell["id"].as_str().unwrap_or_else(|| panic!("no id in {shell}")).to_owned()
}

impl Terminal {
    /// Attaches with a query such as `mode=watch&offset=0`. The error is the problem's code, or why there was no answer.
    pub async fn attach(api: &Api, id: &str, query: &str) -> Result<Self, String> {
        let url = format!("{}/api/v1/shells/{id}/attach?{query}", api.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a request");
        let bearer = format!("Bearer {}", api.token).parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        let socket = match TcpStream::connect(api.url.trim_start_matches("http://")).await {
            Ok(socket) => socket,
            Err(error) => return Err(error.to_string()),
        };
        // A key and its acknowledgement are small and many.
        socket.set_nodelay(true).expect("a TCP socket");
        let socket = match client_async(request, socket).await {
            Ok((socket, _)) => socket,
            Err(tungstenite::Error::Http(response)) => {
                let body = response.into_body().unwrap_or_default();
                let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
                return Err(problem["code"].as_str().unwrap_or("no code").to_owned());
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut terminal =
            Self { socket, shown: Vec::new(), from: 0, lost: 0, told: Vec::new(), closed: None, acks: true };
        terminal.until(|terminal| !terminal.told.is_empty()).await;
        terminal.from = terminal.told[0]["offset"].as_u64().expect("an offset");
        Ok(terminal)
    }

    /// Bytes of output known so far.
    pub fn offset(&self) -> u64 {
        self.from + self.lost + self.shown.len() as u64
    }

    pub async fn send(&mut self, keys: &[u8]) {
        self.socket.send(Message::Binary(keys.to_vec().into())).await.expect("the master takes keys");
    }

    pub async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("the master takes messages");
    }

    /// Reads until this holds or the socket is closed; panics after a minute.
    pub async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let read = async {
            while self.closed.is_none() && !holds(self) {
                self.read().await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(60), read).await;
        assert!(done.is_ok(), "nothing more in a minute; the end: {:?}", self.tail());
    }

    pub async fn until_text(&mut self, text: &str) {
        // What was searched once is not searched again: a flood is long, and this is in the way of a measured time.
        let searched = std::sync::atomic::AtomicUsize::new(0);
        let shown = |terminal: &Self| {
            let from = searched.swap(terminal.shown.len().saturating_sub(text.len()), Ordering::Relaxed);
            find(&terminal.shown[from..], text.as_bytes())
        };
        self.until(shown).await;
        assert!(
            self.closed.is_none() || find(&self.shown, text.as_bytes()),
            "{text:?} was not shown: {:?}",
            self.tail()
        );
    }

    /// Reads to the end and gives the message that told it.
    pub async fn exit(&mut self) -> Value {
        self.until(|terminal| terminal.told.last().is_some_and(|told| told["type"] == "exit")).await;
        let last = self.told.last().cloned().unwrap_or_default();
        assert_eq!(last["type"], "exit", "closed: {:?}", self.closed);
        last
    }

    async fn read(&mut self) {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                let offset = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
                assert_eq!(offset, self.offset(), "no gap and no repeat");
                self.shown.extend_from_slice(&bytes[8..]);
                if self.acks {
                    let ack = json!({ "type": "ack", "offset": self.offset() }).to_string();
                    let _ = self.socket.send(Message::text(ack)).await;
                }
            }
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if message["type"] == "lost" {
                    self.lost += message["bytes"].as_u64().expect("a count");
                }
                self.told.push(message);
            }
            Some(Ok(Message::Close(frame))) => {
                self.closed = Some(frame.map(|frame| frame.reason.to_string()).unwrap_or_default());
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(_)) | None => self.closed = Some(String::new()),
        }
    }

    fn tail(&self) -> String {
        String::from_utf8_lossy(&self.shown[self.shown.len().saturating_sub(300)..]).into_owned()
    }
}

fn find(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
