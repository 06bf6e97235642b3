//! A browser's part at the gateway, without a browser: asks by the tunnel's name at the internal socket, keeps cookies as
//! one, follows nothing by itself.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use reqwest::{Method, Response, header, redirect::Policy};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{client::IntoClientRequest as _, http::Request};

use crate::master::Master;

/// One browser at one tunnel's origin.
#[derive(Debug)]
pub struct Visitor {
    pub tunnel: String,
    /// `slug.domain:port`.
    pub host: String,
    address: String,
    http: reqwest::Client,
    pub cookies: Mutex<BTreeMap<String, String>>,
}

impl Visitor {
    /// Opens a tunnel and enters it by a ticket.
    pub async fn open(master: &Master, agent: &str, port: u16, scheme: &str) -> Self {
        let tunnel = master.api().open_tunnel(agent, port, scheme).await;
        assert_eq!(tunnel["status"], "active", "{tunnel}");
        Self::enter(master, tunnel["id"].as_str().expect("an id")).await
    }

    pub async fn enter(master: &Master, tunnel: &str) -> Self {
        let visitor = Self::outside(master, tunnel);
        let ticket = master.api().post(&format!("/tunnels/{tunnel}/ticket"), json!({})).await;
        let answer = visitor.get(&visitor.path_of(&ticket)).await;
        assert_eq!(answer.status(), 303, "{ticket}");
        assert_eq!(answer.headers()[header::LOCATION], "/");
        visitor
    }

    /// Before any ticket.
    pub fn outside(master: &Master, tunnel: &str) -> Self {
        let slug = tunnel.replace('-', "");
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).timeout(Duration::from_secs(120));
        Self {
            tunnel: tunnel.to_owned(),
            host: format!("{slug}.gw.localhost:{}", master.internal_port),
            address: format!("http://127.0.0.1:{}", master.internal_port),
            http: http.build().expect("a client"),
            cookies: Mutex::default(),
        }
    }

    /// The path of a ticket's link, which must lead to this origin.
    pub fn path_of(&self, ticket: &Value) -> String {
        let url = ticket["url"].as_str().expect("a link");
        let path = url.strip_prefix(&format!("http://{}", self.host));
        path.unwrap_or_else(|| panic!("{url} is not at {}", self.host)).to_owned()
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Its cookies as the header has them.
    pub fn cookie_header(&self) -> String {
        let cookies = self.cookies.lock().expect("the cookies");
        cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// A request with this browser's cookies, not yet sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let cookies = self.cookie_header();
        let request = self.http.request(method, format!("{}{path}", self.address)).header(header::HOST, &self.host);
        if cookies.is_empty() { request } else { request.header(header::COOKIE, cookies) }
    }

    /// The opening of a WebSocket, as a page of `origin` would ask for it.
    pub fn websocket(&self, path: &str, origin: &str) -> Request<()> {
        let url = format!("{}{path}", self.address.replace("http://", "ws://"));
        let mut request = url.into_client_request().expect("an address");
        for (name, value) in [("host", self.host.as_str()), ("cookie", &self.cookie_header()), ("origin", origin)] {
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        request
    }

    /// Sends and keeps the cookies of the answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let answer = request.send().await.unwrap_or_else(|error| panic!("{}: {error:#}", self.host));
        let mut cookies = self.cookies.lock().expect("the cookies");
        for value in answer.headers().get_all(header::SET_COOKIE) {
            let text = value.to_str().expect("a cookie");
            assert!(!text.to_ascii_lowercase().contains("domain="), "{text}");
            let pair = text.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        drop(cookies);
        answer
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    /// As a person who follows a link.
    pub async fn page(&self, path: &str) -> (u16, String) {
        let accept = "text/html,application/xhtml+xml,*/*;q=0.8";
        let answer = self.send(self.request(Method::GET, path).header(header::ACCEPT, accept)).await;
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// The path that an answer leads to on this origin.
    pub fn location(&self, answer: &Response) -> String {
        let text = answer.headers()[header::LOCATION].to_str().expect("an address");
        text.strip_prefix(&self.origin()).unwrap_or(text).to_owned()
    }
}
