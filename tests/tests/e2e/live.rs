//! `/live`: what a page of the whole fleet is told, and who is told nothing.

use std::time::Duration;

use futures_util::StreamExt as _;
use landline_tests::{api::Api, master::Master};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

const WITHIN: Duration = Duration::from_secs(20);

struct Live {
    socket: WebSocketStream<TcpStream>,
    heard: Vec<Value>,
}

impl Live {
    async fn connect(api: &Api) -> Self {
        let url = format!("{}/api/v1/live", api.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", api.token).parse().unwrap());
        let address = api.url.trim_start_matches("http://").to_owned();
        let (socket, _) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Reads until a message is of this kind and holds that.
    async fn until(&mut self, kind: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let message = self.socket.next().await.expect("the socket ended").expect("a message");
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text).unwrap();
                self.heard.push(message.clone());
                if message["type"] == kind && holds(&message) {
                    return message;
                }
            }
        };
        let found = tokio::time::timeout(WITHIN, found).await;
        found.unwrap_or_else(|_| panic!("no such {kind} within {WITHIN:?}: {:?}", self.heard))
    }
}

fn row<'a>(message: &'a Value, id: &str) -> Option<&'a Value> {
    message["rows"].as_array()?.iter().find(|row| row["id"] == id)
}

fn is_event(message: &Value, kind: &str) -> bool {
    message["events"].as_array().is_some_and(|events| events.iter().any(|event| event["kind"] == kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_told_of_every_agent_and_each_change() {
    let master = Master::start().await;
    let api = master.api();
    let mut agent = master.agent("home").await;
    let mut live = Live::connect(&api).await;
    let rows = live.until("rows", |message| row(message, "home").is_some()).await;
    assert_eq!(row(&rows, "home").unwrap()["presence"], "online");
    live.until("ready", |_| true).await;
    let pulse = live.until("pulse", |message| !message["pulses"].as_array().unwrap().is_empty()).await;
    assert!(pulse["pulses"][0]["memory_percent"].as_f64().unwrap() > 0.0, "{pulse}");

    api.call(Method::PATCH, "/agents/home", Some(json!({ "labels": { "site": "berlin" } }))).await;
    live.until("rows", |message| row(message, "home").is_some_and(|row| row["labels"]["site"] == "berlin")).await;
    agent.process().terminate(Duration::from_secs(10)).await;
    live.until("rows", |message| row(message, "home").is_some_and(|row| row["presence"] == "offline")).await;
    api.call(Method::DELETE, "/agents/home", None).await;
    live.until("gone", |message| message["ids"] == json!(["home"])).await;
    live.until("events", |message| is_event(message, "agent.removed")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_token_sees_its_own_agents_and_no_events() {
    let master = Master::start().await;
    let api = master.api();
    for (id, site) in [("mine", "berlin"), ("other", "paris")] {
        api.post("/agents", json!({ "id": id, "labels": { "site": site } })).await;
    }
    let token = json!({ "name": "narrow", "permissions": ["agents:read"], "selector": "site=berlin" });
    let token = api.post("/tokens", token).await;
    let mut live = Live::connect(&api.with_token(token["secret"].as_str().unwrap())).await;
    live.until("ready", |_| true).await;
    // One that moves into sight comes, one that moves out goes.
    api.call(Method::PATCH, "/agents/other", Some(json!({ "labels": { "site": "berlin" } }))).await;
    live.until("rows", |message| row(message, "other").is_some()).await;
    api.call(Method::PATCH, "/agents/mine", Some(json!({ "labels": { "site": "paris" } }))).await;
    live.until("gone", |message| message["ids"] == json!(["mine"])).await;
    let first = live.heard.iter().take_while(|message| message["type"] != "ready");
    assert!(first.clone().any(|message| row(message, "mine").is_some()), "{:?}", live.heard);
    assert!(!first.clone().any(|message| row(message, "other").is_some()), "{:?}", live.heard);
    assert!(!live.heard.iter().any(|message| message["type"] == "events"), "{:?}", live.heard);

    api.call(Method::DELETE, &format!("/tokens/{}", token["id"].as_str().unwrap()), None).await;
    let closed = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(Ok(message)) = live.socket.next().await {
            if let Message::Close(Some(frame)) = message {
                return frame.reason.to_string();
            }
        }
        String::new()
    });
    assert_eq!(closed.await.expect("closed within 5 s of its revocation"), "unauthorized");
}
