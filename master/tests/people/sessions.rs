//! Sessions: what carries the cookie must come from our page, proofs grow old, and what is taken away is gone at once.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::master::{Browser, Master, PASSWORD};

/// SECURITY R51: pages on another origin and another port, with everything a browser sends along by itself.
#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_page_acts_with_the_cookie() {
    let master = Master::start().await;
    let root = master.browser("root", "admin", "").await;
    let add = |origin: Option<&str>, csrf: Option<&str>| {
        let mut request = master.request(Method::POST, "/api/v1/agents").header("Cookie", &root.cookie);
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        if let Some(csrf) = csrf {
            request = request.header("X-CSRF-Token", csrf);
        }
        master.send(request.json(&json!({ "id": "x" })))
    };
    let own = master.origin();
    let port = master.app.internal.port();
    let localhost = format!("http://localhost:{port}");
    for origin in [
        None,
        Some("http://evil.example"),
        Some("http://127.0.0.1:1"),
        Some("http://127.0.0.1"),
        Some("null"),
        Some(localhost.as_str()),
    ] {
        assert_eq!(add(origin, Some(&root.csrf)).await.code(), (403, "forbidden"), "{origin:?}");
    }
    let other = master.signed_in("root").await;
    for csrf in [None, Some(""), Some("x"), Some(other.csrf.as_str())] {
        assert_eq!(add(Some(&own), csrf).await.code(), (403, "forbidden"), "{csrf:?}");
    }
    assert_eq!(add(Some(&own), Some(&root.csrf)).await.status, 201);
    // A session's secret is no token, and a token no cookie.
    let secret = root.cookie.split_once('=').unwrap().1;
    assert_eq!(master.with_token(secret, Method::GET, "/api/v1/agents", None).await.status, 401);
    let as_cookie = Browser { cookie: format!("__Host-landline={}", master.admin_token), ..root.clone() };
    assert_eq!(master.by(&as_cookie, Method::GET, "/api/v1/agents", None).await.status, 401);

    let upgrade = |origin: Option<&str>| {
        let request = master.request(Method::GET, "/api/v1/agents/x/connect?target=localhost:1");
        let request = request.header("Cookie", &root.cookie).header("Connection", "Upgrade");
        let request = request.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
        let request = request.header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
        master.send(match origin {
            Some(origin) => request.header("Origin", origin),
            None => request,
        })
    };
    for origin in [None, Some("http://evil.example"), Some("http://127.0.0.1:1"), Some(localhost.as_str())] {
        assert_eq!(upgrade(origin).await.code(), (403, "forbidden"), "{origin:?}");
    }
    assert_ne!(upgrade(Some(&own)).await.status, 403);
    master.app.stop().await;
}

/// SECURITY R54: an open session is not enough to act on machines.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_proof_opens_no_shell() {
    let master = Master::start_with("step_up_s = 1").await;
    let ada = master.browser("ada", "operator", "").await;
    master.with_token(&master.admin_token, Method::POST, "/api/v1/agents", Some(json!({ "id": "m" }))).await;
    let exec = async || {
        let body = json!({ "argv": ["true"] });
        let answer = master.by(&ada, Method::POST, "/api/v1/agents/m/exec", Some(body)).await;
        answer.body["code"].as_str().unwrap().to_owned()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while exec().await != "step_up_required" {
        assert!(Instant::now() < deadline, "the proof never grows old");
    }
    let shell = master.by(&ada, Method::POST, "/api/v1/agents/m/shells", Some(json!({}))).await;
    assert_eq!(shell.code(), (403, "step_up_required"));
    assert_eq!(master.by(&ada, Method::GET, "/api/v1/agents/m", None).await.status, 200);
    let step_up = async |body| master.by(&ada, Method::POST, "/api/v1/session/step-up", Some(body)).await;
    assert_eq!(step_up(json!({ "password": "wrong words here" })).await.code(), (403, "wrong_proof"));
    assert_eq!(step_up(json!({})).await.code(), (422, "invalid"));
    assert_eq!(step_up(json!({ "password": PASSWORD, "code": "000000" })).await.code(), (422, "invalid"));
    assert_eq!(step_up(json!({ "code": "000000" })).await.code(), (409, "conflict"), "TOTP is off");
    assert_eq!(step_up(json!({ "password": PASSWORD })).await.status, 204);
    assert_eq!(exec().await, "agent_offline");
    master.app.stop().await;
}

/// SECURITY R54: an unused session ends, and a used one too.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_an_end() {
    let master = Master::start_with("session_s = 60\nsession_idle_s = 60").await;
    let ada = master.browser("ada", "viewer", "").await;
    let shown = master.by(&ada, Method::GET, "/api/v1/session", None).await;
    assert_eq!(shown.status, 200);
    let database = format!("sqlite://{}?mode=rw", master.database().display());
    sqlx::any::install_default_drivers();
    let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&database).await.unwrap();
    let mut older = async |sql: &'static str| {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while master.by(&ada, Method::GET, "/api/v1/session", None).await.status != 401 {
            assert!(Instant::now() < deadline, "it goes on: {sql}");
        }
    };
    older("UPDATE operator_sessions SET seen_at_ms = seen_at_ms - 60001").await;
    older("UPDATE operator_sessions SET seen_at_ms = seen_at_ms + 60001, expires_at_ms = expires_at_ms - 60001").await;
    master.app.stop().await;
}

/// SECURITY R15: logout, a session ended by an admin, another role, removal: long streams end within five seconds, and
/// nothing is taken any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_ends_streams_within_five_seconds() {
    let master = Master::start().await;
    master.account("root", "admin", "").await;
    for (name, how) in [("a", "logout"), ("b", "session"), ("c", "selector"), ("d", "remove"), ("e", "token")] {
        let browser = master.browser(name, "operator", "").await;
        let mut request = master.page(&browser, Method::GET, "/api/v1/events?cursor=0");
        if how == "token" {
            let body = json!({ "name": "t", "permissions": ["events:read"] });
            let made = master.by(&browser, Method::POST, "/api/v1/tokens", Some(body)).await;
            assert_eq!(made.body["operator_id"], browser.id.as_str(), "{}", made.body);
            let secret = made.body["secret"].as_str().unwrap();
            request = master.request(Method::GET, "/api/v1/events?cursor=0").bearer_auth(secret);
        }
        let mut stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200, "{how}");
        let account = format!("/api/v1/operators/{}", browser.id);
        let by_admin =
            async |method, path: &str, body| master.with_token(&master.admin_token, method, path, body).await;
        let done = match how {
            "logout" => master.by(&browser, Method::DELETE, "/api/v1/session", None).await,
            "session" => {
                let sessions = by_admin(Method::GET, &format!("{account}/sessions"), None).await;
                let session = sessions.body["items"][0]["id"].as_str().unwrap().to_owned();
                by_admin(Method::DELETE, &format!("{account}/sessions/{session}"), None).await
            }
            "selector" => by_admin(Method::PATCH, &account, Some(json!({ "selector": "site=home" }))).await,
            _ => by_admin(Method::DELETE, &account, None).await,
        };
        assert!(done.status.is_success(), "{how}: {}", done.body);
        let ended = async { while stream.chunk().await.unwrap().is_some() {} };
        timeout(Duration::from_secs(5), ended).await.unwrap_or_else(|_| panic!("{how}: the stream goes on"));
        if how != "selector" {
            assert_eq!(master.by(&browser, Method::GET, "/api/v1/agents", None).await.status, 401, "{how}");
        }
    }
    master.app.stop().await;
}

/// SECURITY R17: a person's tokens never exceed them, also after a change of role, and end with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_persons_tokens_follow_the_person() {
    let master = Master::start().await;
    master.account("root", "admin", "").await;
    let ada = master.browser("ada", "operator", "site=home").await;
    let create = async |permissions: &[&str]| {
        let body = json!({ "name": "t", "permissions": permissions });
        master.by(&ada, Method::POST, "/api/v1/tokens", Some(body)).await
    };
    assert_eq!(create(&["audit:read"]).await.code(), (403, "forbidden"));
    let made = create(&["agents:read", "tokens:write", "exec:run"]).await;
    assert_eq!((made.status.as_u16(), &made.body["selector"]), (201, &json!("site=home")));
    let token = made.body["secret"].as_str().unwrap();
    let body = json!({ "name": "child", "permissions": ["agents:read", "exec:run"] });
    let child = master.with_token(token, Method::POST, "/api/v1/tokens", Some(body)).await;
    let child = child.body["secret"].as_str().unwrap();
    // Only their own are seen and revoked.
    let listed = master.by(&ada, Method::GET, "/api/v1/tokens", None).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2, "{}", listed.body);
    let all = master.with_token(&master.admin_token, Method::GET, "/api/v1/tokens", None).await;
    let admins = all.body["items"].as_array().unwrap().iter().find(|token| token["name"] == "admin").unwrap();
    let path = format!("/api/v1/tokens/{}", admins["id"].as_str().unwrap());
    assert_eq!(master.by(&ada, Method::DELETE, &path, None).await.status, 404);

    let account = format!("/api/v1/operators/{}", ada.id);
    let exec = async |token: &str| {
        let body = Some(json!({ "argv": ["true"] }));
        master.with_token(token, Method::POST, "/api/v1/agents/x/exec", body).await.status.as_u16()
    };
    assert_eq!((exec(token).await, exec(child).await), (404, 404));
    let demoted = json!({ "role": "viewer" });
    let changed = master.with_token(&master.admin_token, Method::PATCH, &account, Some(demoted)).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!((exec(token).await, exec(child).await), (403, 403), "a viewer runs nothing");
    assert_eq!(master.with_token(child, Method::GET, "/api/v1/agents", None).await.status, 200);
    assert_eq!(master.with_token(&master.admin_token, Method::DELETE, &account, None).await.status, 204);
    assert_eq!((exec(token).await, exec(child).await), (401, 401));
    master.app.stop().await;
}

/// Nobody makes, changes or logs out somebody above themselves, and an admin is always left.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_rises_above_themselves() {
    let master = Master::start().await;
    let root = master.browser("root", "admin", "").await;
    let body = json!({ "name": "people", "permissions": ["operators:read", "operators:write", "agents:read"] });
    let made = master.by(&root, Method::POST, "/api/v1/tokens", Some(body)).await;
    let weak = made.body["secret"].as_str().unwrap();
    let account = format!("/api/v1/operators/{}", root.id);
    let admin = json!({ "name": "eve", "role": "admin", "password": PASSWORD });
    let above = [
        (Method::POST, "/api/v1/operators".to_owned(), Some(admin)),
        (Method::PATCH, account.clone(), Some(json!({ "password": "a password of eve" }))),
        (Method::PATCH, account.clone(), Some(json!({ "totp": false }))),
        (Method::DELETE, account.clone(), None),
        (Method::DELETE, format!("{account}/sessions/00000000-0000-4000-8000-000000000000"), None),
    ];
    for (method, path, body) in above {
        let answer = master.with_token(weak, method.clone(), &path, body).await;
        assert_eq!(answer.code(), (403, "forbidden"), "{method} {path}");
    }
    assert_eq!(master.by(&root, Method::DELETE, &account, None).await.code(), (409, "last_admin"));
    let demoted = master.by(&root, Method::PATCH, &account, Some(json!({ "role": "viewer" }))).await;
    assert_eq!(demoted.code(), (409, "last_admin"));
    // A narrowed admin manages nobody.
    let narrow = master.browser("narrow", "admin", "site=home").await;
    assert_eq!(master.by(&narrow, Method::GET, "/api/v1/operators", None).await.code(), (403, "forbidden"));
    let mine = master.by(&narrow, Method::GET, "/api/v1/session/mine", None).await;
    assert_eq!(mine.body["items"][0]["current"], true, "{}", mine.body);
    master.app.stop().await;
}
