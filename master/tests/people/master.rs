//! One master on free ports, and browsers that hold a session's cookie.

use std::time::Duration;

use landline::{app::App, config::Config};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "a few words do well";

pub(crate) struct Master {
    pub(crate) app: App,
    pub(crate) admin_token: String,
    folder: TempDir,
    more: String,
}

/// A browser: a cookie, the CSRF token that its page read, and the page's origin.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) id: String,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) cookie: Option<String>,
}

impl Answer {
    pub(crate) fn code(&self) -> (u16, &str) {
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or_default())
    }
}

impl Master {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With `more` inside `[access]`.
    pub(crate) async fn start_with(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more.to_owned()).await
    }

    async fn start_in(folder: TempDir, more: String) -> Self {
        let data = folder.path().join("data");
        let text = format!(
            "data_dir = {data:?}\n[public]\nlisten = \"127.0.0.1:0\"\ntcp_listen = \"127.0.0.1:0\"\naddress = \"127.0.0.1:7443\"\n\
             [internal]\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [tunnel]\nport_range = \"29100-29199\"\n[access]\n{more}\n"
        );
        let config = Config::parse(&text, []).unwrap_or_else(|errors| panic!("{errors}")).config;
        let app = App::start(config).await.unwrap();
        let admin_token = std::fs::read_to_string(data.join("admin.token")).unwrap().trim().to_owned();
        Self { app, admin_token, folder, more }
    }

    pub(crate) async fn restarted(self) -> Self {
        let Self { app, folder, more, .. } = self;
        app.stop().await;
        Self::start_in(folder, more).await
    }

    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("data/landline.db")
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        http.request(method, format!("http://{}{path}", self.app.internal))
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.app.internal)
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status();
        let cookie = response.headers().get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::Null), cookie }
    }

    /// Nobody in particular.
    pub(crate) async fn anonymous(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(self.request(method, path).json(&body)).await
    }

    /// Whoever holds this token.
    pub(crate) async fn with_token(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).bearer_auth(token);
        self.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// A page of ours in this browser, as it should be.
    pub(crate) fn page(&self, browser: &Browser, method: Method, path: &str) -> RequestBuilder {
        let request = self.request(method, path).header("Cookie", &browser.cookie);
        request.header("Origin", self.origin()).header("X-CSRF-Token", &browser.csrf)
    }

    pub(crate) async fn by(&self, browser: &Browser, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.page(browser, method, path);
        self.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub(crate) async fn account(&self, name: &str, role: &str, selector: &str) -> String {
        let body = json!({ "name": name, "role": role, "password": PASSWORD, "selector": selector });
        let made = self.with_token(&self.admin_token, Method::POST, "/api/v1/operators", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str) -> Answer {
        self.anonymous(Method::POST, "/api/v1/login", json!({ "name": name, "password": password })).await
    }

    /// Makes an account and logs it in.
    pub(crate) async fn browser(&self, name: &str, role: &str, selector: &str) -> Browser {
        self.account(name, role, selector).await;
        self.signed_in(name).await
    }

    pub(crate) async fn signed_in(&self, name: &str) -> Browser {
        let answer = self.log_in(name, PASSWORD).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Browser::from(&answer)
    }
}

impl Browser {
    pub(crate) fn from(answer: &Answer) -> Self {
        let cookie = answer.cookie.as_ref().expect("a cookie").split(';').next().unwrap().to_owned();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { id: text(&answer.body["operator"]["id"]), cookie, csrf: text(&answer.body["csrf"]) }
    }
}
