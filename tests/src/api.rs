//! A caller of the HTTP API, as a panel would write one.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::wait::eventually;

/// The API of one master under one token.
#[derive(Debug, Clone)]
pub struct Api {
    pub url: String,
    pub token: String,
    http: reqwest::Client,
}

impl Api {
    pub fn new(url: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build().expect("a client");
        Self { url: url.to_owned(), token: token.to_owned(), http }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request below `/api/v1`, not yet sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends and gives status and JSON body (null where there is none).
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"));
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// The problem's stable code.
    pub async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let (status, answer) = self.call(method, path, body).await;
        assert!(!status.is_success(), "{path} was not refused: {answer}");
        (status.as_u16(), answer["code"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn agent(&self, id: &str) -> Value {
        self.get(&format!("/agents/{id}")).await
    }

    pub async fn tunnel(&self, id: &str) -> Value {
        self.get(&format!("/tunnels/{id}")).await
    }

    pub async fn online(&self, id: &str, within: Duration) {
        self.presence(id, "online", within).await;
    }

    pub async fn presence(&self, id: &str, wanted: &str, within: Duration) {
        eventually(within, &format!("{id} is {wanted}"), || async move {
            let response = self.request(Method::GET, &format!("/agents/{id}")).send().await.ok()?;
            let agent: Value = response.json().await.ok()?;
            (agent["presence"] == wanted).then_some(())
        })
        .await;
    }

    /// Asks for a tunnel and waits until it is active or final.
    pub async fn open_tunnel(&self, agent: &str, port: u16, scheme: &str) -> Value {
        let target = json!({ "host": "127.0.0.1", "port": port, "scheme": scheme });
        self.post("/tunnels?wait=30s", json!({ "agent_id": agent, "target": target, "heartbeat": false })).await
    }

    pub async fn tunnel_becomes(&self, id: &str, wanted: &str, within: Duration) -> Value {
        eventually(within, &format!("tunnel {id} is {wanted}"), || async move {
            let tunnel = self.tunnel(id).await;
            (tunnel["status"] == wanted).then_some(tunnel)
        })
        .await
    }
}

/// The port of a tunnel's `listen`.
pub fn port_of(tunnel: &Value) -> u16 {
    let listen = tunnel["listen"].as_str().unwrap_or_else(|| panic!("no listen in {tunnel}"));
    listen.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {listen}"))
}
