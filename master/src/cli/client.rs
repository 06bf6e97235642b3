//! The HTTP API as the command line speaks it. Owns where the master and the token are found and how failures read;
//! must not know what any command prints.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};

use crate::api::{dto::Page, problem::Problem};

pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the longest `?wait=`.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(75);
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7800";

/// Where the master is and how to prove oneself to it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// The master's internal API
    #[arg(long, env = "LANDLINE_URL", default_value = DEFAULT_URL, global = true, value_name = "URL", help_heading = "Connection")]
    pub(crate) url: String,
    /// File with the API token, where LANDLINE_TOKEN is not set
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) token_file: Option<PathBuf>,
    /// Data folder of a master on this host, for its admin token
    #[arg(
        long,
        env = "LANDLINE_DATA_DIR",
        default_value = "/var/lib/landline",
        global = true,
        value_name = "DIR",
        help_heading = "Connection"
    )]
    pub(crate) data_dir: PathBuf,
}

/// Why a call failed, in words that name the fix.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing was sent.
    #[error("cannot reach {url}: {cause}; is `landline serve` running there? Set LANDLINE_URL if it listens elsewhere")]
    Unreachable { url: String, cause: String },
    #[error("no answer from {url} in time")]
    Silent { url: String },
    #[error("{} ({})", .0.detail, .0.code)]
    Problem(Box<Problem>),
    #[error("{url} answered {status} in a form this version does not know; is it a Landline master of this version?")]
    Foreign { url: String, status: StatusCode },
    /// It was sent, all or in part; whether it was done is not known.
    #[error("the answer of {url} was cut off: {cause}")]
    Cut { url: String, cause: String },
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(
        "LANDLINE_URL must be http://HOST:PORT without a path, not {0:?}; for a master elsewhere forward its port, e.g. ssh -L 7800:127.0.0.1:7800"
    )]
    Url(String),
    #[error("no token: set LANDLINE_TOKEN, or run this where {path} can be read (cause: {cause})")]
    Token { path: PathBuf, cause: std::io::Error },
    #[error("the token holds characters that cannot be sent; set LANDLINE_TOKEN again")]
    TokenText,
    #[error("cannot set up HTTP")]
    Http(#[from] reqwest::Error),
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(super) url: String,
    pub(super) token: SecretString,
}

impl Connection {
    pub(crate) fn client(&self) -> Result<Client, SetupError> {
        Client::new(&self.url, self.token()?)
    }

    /// From LANDLINE_TOKEN, else from the file named, else from the local master's data folder.
    fn token(&self) -> Result<SecretString, SetupError> {
        if let Ok(token) = std::env::var("LANDLINE_TOKEN")
            && !token.trim().is_empty()
        {
            return Ok(token.trim().to_owned().into());
        }
        let path = self.token_file.clone().unwrap_or_else(|| self.data_dir.join("admin.token"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned().into()),
            Err(cause) => Err(SetupError::Token { path, cause }),
        }
    }
}

impl Client {
    pub(crate) fn new(url: &str, token: SecretString) -> Result<Self, SetupError> {
        let url = url.trim_end_matches('/');
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err(SetupError::Url(url.to_owned()));
        }
        if token.expose_secret().is_empty() || !token.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SetupError::TokenText);
        }
        // Never through a proxy of the environment: the token would travel with the request.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WITHIN).build()?;
        Ok(Self { http, url: url.to_owned(), token })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, CallError> {
        self.read(self.request(Method::GET, path).query(query)).await
    }

    /// Every item of a list, page by page. `turn` puts the next cursor into the query.
    pub(crate) async fn all<T: DeserializeOwned, Q: Serialize>(
        &self,
        path: &str,
        mut query: Q,
        turn: impl Fn(&mut Q, String),
    ) -> Result<Vec<T>, CallError> {
        let mut items = Vec::new();
        loop {
            let page: Page<T> = self.get(path, &query).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(cursor) => turn(&mut query, cursor),
                None => return Ok(items),
            }
        }
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        self.read(self.request(Method::POST, path).json(body)).await
    }

    /// Like [`post`](Self::post), safe to repeat: the same key has its effect once.
    pub(crate) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.create(path, body).await.map(|(made, _)| made)
    }

    /// The same, and whether this call made it rather than found it.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(T, bool), CallError> {
        let key = uuid::Uuid::new_v4().to_string();
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        let (status, made) = self.read_with_status(request).await?;
        Ok((made, status == StatusCode::CREATED))
    }

    pub(crate) async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        self.read(self.request(Method::PATCH, path).json(body)).await
    }

    /// A POST whose answer has no body.
    pub(crate) async fn act(&self, path: &str) -> Result<(), CallError> {
        self.send(self.request(Method::POST, path).timeout(ANSWER_WITHIN)).await.map(drop)
    }

    /// For answers without a body.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.send(self.request(Method::DELETE, path).timeout(ANSWER_WITHIN)).await.map(drop)
    }

    /// A long answer, read piece by piece by the caller. `body` makes it a POST.
    pub(crate) async fn stream(
        &self,
        path: &str,
        query: &impl Serialize,
        body: Option<&serde_json::Value>,
    ) -> Result<Response, CallError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.request(method, path).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(request).await
    }

    /// A request with the token, not yet sent.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(self.token.expose_secret())
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CallError> {
        self.read_with_status(request).await.map(|(_, body)| body)
    }

    async fn read_with_status<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<(StatusCode, T), CallError> {
        let response = self.send(request.timeout(ANSWER_WITHIN)).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.cut(&error))?;
        let body = serde_json::from_slice(&body);
        body.map(|body| (status, body)).map_err(|_| CallError::Foreign { url: self.url.clone(), status })
    }

    /// Sends it; an answer other than a success is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let path = response.url().path().to_owned();
        let body = response.bytes().await.map_err(|error| self.cut(&error))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(CallError::Problem(Box::new(named(problem, &path)))),
            Err(_) => Err(CallError::Foreign { url: self.url.clone(), status }),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> CallError {
        if error.is_timeout() && !error.is_connect() {
            return CallError::Silent { url: self.url.clone() };
        }
        if !error.is_connect() {
            return self.cut(error);
        }
        CallError::Unreachable { url: self.url.clone(), cause: root_cause(error) }
    }

    /// An answer that should have gone on.
    pub(crate) fn ended(&self) -> CallError {
        CallError::Cut { url: self.url.clone(), cause: "the connection ended".into() }
    }

    pub(crate) fn cut(&self, error: &reqwest::Error) -> CallError {
        CallError::Cut { url: self.url.clone(), cause: root_cause(error) }
    }
}

/// The API's answer for what is not there is the same for everything (SECURITY R14); the one who asked knows for what.
fn named(mut problem: Problem, path: &str) -> Problem {
    let mut parts = path.trim_start_matches("/api/v1/").split('/');
    let (Some(kind), Some(id), true) = (parts.next(), parts.next(), problem.code == "not_found") else {
        return problem;
    };
    let (what, shows) = match kind {
        "agents" => ("agent", "landline agents ls"),
        "shells" => ("session", "landline shells ls --all"),
        "tunnels" => ("tunnel", "landline tunnel ls"),
        _ => return problem,
    };
    if !id.is_empty() {
        problem.detail = format!("{id} is no {what} that the token covers; `{shows}` lists those; {}", problem.detail);
    }
    problem
}

/// The innermost cause: the layers above it repeat one another.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Whether the master at `url` is ready; what it said where it is not.
pub(crate) async fn probe(url: &str) -> Result<(), CallError> {
    let http = reqwest::Client::builder().no_proxy().timeout(CONNECT_WITHIN).build();
    let url = url.trim_end_matches('/').to_owned();
    let unreachable = |error: &reqwest::Error| CallError::Unreachable { url: url.clone(), cause: root_cause(error) };
    let sent = http.map_err(|error| unreachable(&error))?.get(format!("{url}/readyz")).send().await;
    let response = sent.map_err(|error| unreachable(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    match response.json::<Problem>().await {
        Ok(problem) => Err(CallError::Problem(Box::new(problem))),
        Err(_) => Err(CallError::Foreign { url, status }),
    }
}

/// One path segment: what a user typed must not reach another route.
pub(crate) fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~');
    let only_dots = text.bytes().all(|b| b == b'.');
    text.bytes()
        .map(|b| if plain(b) || (b == b'.' && !only_dots) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Kind;

    #[test]
    fn segments_stay_segments() {
        assert_eq!(segment("home-1.x_y"), "home-1.x_y");
        assert_eq!(segment("../tokens?x"), "..%2Ftokens%3Fx");
        assert_eq!(segment(".."), "%2E%2E");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let problem = |kind: Kind, path: &str| named(kind.problem("not there"), path).detail;
        let agent = problem(Kind::NotFound, "/api/v1/agents/home-9/shells");
        assert_eq!(agent, "home-9 is no agent that the token covers; `landline agents ls` lists those; not there");
        for (kind, path) in
            [(Kind::NotFound, "/api/v1/tokens/x"), (Kind::Busy, "/api/v1/agents/x"), (Kind::NotFound, "/")]
        {
            assert_eq!(problem(kind, path), "not there");
        }
    }

    #[test]
    fn urls_and_tokens_are_checked_before_use() {
        let token = || SecretString::from("abc");
        for bad in ["", "127.0.0.1:7800", "https://x", "http://x/api", "http://a@b"] {
            assert!(matches!(Client::new(bad, token()), Err(SetupError::Url(_))), "{bad}");
        }
        assert!(Client::new("http://127.0.0.1:7800/", token()).is_ok());
        assert!(matches!(Client::new("http://x", "a\nb".into()), Err(SetupError::TokenText)));
    }
}
