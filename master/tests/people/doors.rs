//! Getting in: setup once, login with its slow failures, TOTP whose codes are good once, passwords and their rules.

use reqwest::Method;
use serde_json::{Value, json};

use crate::master::{Browser, Master, PASSWORD};

const SETUP: &str = "/api/v1/setup";

fn token(master: &Master) -> String {
    master.app.setup_link().expect("a link").split_once('#').unwrap().1.to_owned()
}

fn setup(token: &str) -> Value {
    json!({ "token": token, "name": "Root", "password": PASSWORD })
}

/// SECURITY R18.
#[tokio::test(flavor = "multi_thread")]
async fn setup_is_there_once_and_never_again() {
    let master = Master::start().await;
    let link = token(&master);
    let wrong = master.anonymous(Method::POST, SETUP, setup("wrong")).await;
    assert_eq!(wrong.code(), (401, "unauthorized"));
    let short = json!({ "token": link, "name": "root", "password": "short" });
    let short = master.anonymous(Method::POST, SETUP, short).await;
    assert!(short.code() == (422, "invalid") && short.body["detail"].as_str().unwrap().contains("at least 10"));
    let made = master.anonymous(Method::POST, SETUP, setup(&link)).await;
    assert_eq!((made.status.as_u16(), &made.body["operator"]["name"]), (201, &json!("root")));
    let root = Browser::from(&made);
    assert_eq!(master.by(&root, Method::GET, "/api/v1/operators", None).await.status, 200);

    let unknown = master.anonymous(Method::POST, "/api/v1/no-such-path", setup(&link)).await;
    let gone = async |master: &Master| {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
            let answer = master.anonymous(method.parse().unwrap(), SETUP, setup(&link)).await;
            assert_eq!(answer.status, 404, "{method}");
            assert!(method == "HEAD" || answer.body == unknown.body, "{method}: {}", answer.body);
        }
        for path in [
            "/api/v1/setup/",
            "/api/v1/Setup",
            "/api/v1//setup",
            "/api/v1/%73etup",
            "/api/v1/setup?x=1",
            "/api/v1/setup;x",
            "/api/v1/x/../setup",
            "/api/v1/setup%2f",
            "/setup",
            "/api/setup",
            "/api/v1/setup.php",
        ] {
            let answer = master.anonymous(Method::POST, path, setup(&link)).await;
            assert!(matches!(answer.status.as_u16(), 400 | 404), "{path}: {} {}", answer.status, answer.body);
        }
    };
    gone(&master).await;
    let master = master.restarted().await;
    assert_eq!(master.app.setup_link(), None);
    gone(&master).await;
    // All people gone, as only someone on the host can do: it stays so.
    let database = format!("sqlite://{}?mode=rw", master.database().display());
    sqlx::any::install_default_drivers();
    let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(&database).await.unwrap();
    sqlx::query("DELETE FROM operators").execute(&mut connection).await.unwrap();
    sqlx::query("DELETE FROM operator_sessions").execute(&mut connection).await.unwrap();
    gone(&master).await;
    let master = master.restarted().await;
    assert_eq!(master.app.setup_link(), None);
    gone(&master).await;
    master.account("again", "admin", "").await;
    master.app.stop().await;
}

/// An admin made by a token of this host ends setup as well.
#[tokio::test(flavor = "multi_thread")]
async fn any_first_admin_ends_setup() {
    let master = Master::start().await;
    let link = token(&master);
    master.account("viewer", "viewer", "").await;
    assert_eq!(master.anonymous(Method::POST, SETUP, setup("wrong")).await.status, 401, "a viewer ends nothing");
    master.account("root", "admin", "").await;
    assert_eq!(master.anonymous(Method::POST, SETUP, setup(&link)).await.status, 404);
    master.app.stop().await;
}

/// SECURITY R12, R54: one answer for unknown names and wrong passwords; failures lock the name for a while.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_tell_nothing_and_get_slower() {
    let master = Master::start().await;
    master.account("ada", "operator", "").await;
    let (wrong, unknown) = (master.log_in("ada", "wrong words here").await, master.log_in("eve", PASSWORD).await);
    assert_eq!(wrong.code(), (401, "unauthorized"));
    assert_eq!(wrong.body, unknown.body);
    assert!(wrong.cookie.is_none());
    for name in ["", "ADA ", "a'--", &"x".repeat(5_000)] {
        let answer = master.log_in(name, PASSWORD).await;
        assert!(matches!(answer.status.as_u16(), 401 | 413), "{name:?}: {}", answer.status);
    }
    for _ in 0..4 {
        assert_eq!(master.log_in("ada", "wrong words here").await.status, 401);
    }
    let locked = master.log_in("ada", PASSWORD).await;
    assert_eq!(locked.code(), (429, "too_many"), "the right one too, so that no answer tells it");
    assert!(locked.body["retry_after_s"].as_u64().unwrap() <= 60);
    master.browser("other", "viewer", "").await;
    let ours = master.request(Method::POST, "/api/v1/login").header("Origin", "http://evil.example");
    let body = json!({ "name": "other", "password": PASSWORD });
    assert_eq!(master.send(ours.json(&body)).await.code(), (403, "forbidden"), "no page of another logs anyone in");
    master.app.stop().await;
}

/// SECURITY R54.
#[tokio::test(flavor = "multi_thread")]
async fn codes_are_asked_for_and_good_once() {
    let master = Master::start().await;
    let ada = master.browser("ada", "operator", "").await;
    let other = master.signed_in("ada").await;
    let early = master.by(&ada, Method::PUT, "/api/v1/session/totp", Some(json!({ "code": "000000" }))).await;
    assert_eq!(early.code(), (409, "conflict"), "nothing was offered");
    let offer = master.by(&ada, Method::POST, "/api/v1/session/totp", None).await;
    let secret = offer.body["secret"].as_str().unwrap().to_owned();
    assert!(offer.body["uri"].as_str().unwrap().starts_with("otpauth://totp/Landline:ada?"), "{}", offer.body);
    let code = |steps: i64| code(&secret, steps);
    let wrong = master.by(&ada, Method::PUT, "/api/v1/session/totp", Some(json!({ "code": "abcdef" }))).await;
    assert_eq!(wrong.code(), (403, "wrong_proof"));
    let on = master.by(&ada, Method::PUT, "/api/v1/session/totp", Some(json!({ "code": code(-1) }))).await;
    assert_eq!(on.status, 204, "{}", on.body);
    let shown = master.by(&ada, Method::GET, "/api/v1/session", None).await;
    assert_eq!(shown.body["operator"]["totp"], true);

    assert_eq!(master.log_in("ada", PASSWORD).await.code(), (401, "totp_required"));
    let login = async |code: &str| {
        let body = json!({ "name": "ada", "password": PASSWORD, "code": code });
        master.anonymous(Method::POST, "/api/v1/login", body).await
    };
    assert_eq!(login(&code(-1)).await.code(), (401, "totp_required"), "the one that turned it on");
    let now = code(0);
    assert_eq!(login(&now).await.status, 200);
    assert_eq!(login(&now).await.code(), (401, "totp_required"), "twice");
    let step_up = master.by(&ada, Method::POST, "/api/v1/session/step-up", Some(json!({ "code": code(1) }))).await;
    assert_eq!(step_up.status, 204, "{}", step_up.body);
    assert_eq!(master.by(&ada, Method::POST, "/api/v1/session/totp", None).await.code(), (409, "conflict"));
    let off = async |password: &str| {
        master.by(&ada, Method::DELETE, "/api/v1/session/totp", Some(json!({ "password": password }))).await
    };
    assert_eq!(off("wrong words here").await.code(), (403, "wrong_proof"));
    assert_eq!(off(PASSWORD).await.status, 204);
    assert_eq!(master.by(&other, Method::GET, "/api/v1/session", None).await.status, 401, "the others ended");
    assert_eq!(master.log_in("ada", PASSWORD).await.status, 200);
    master.app.stop().await;
}

/// The code some steps from now. A step may begin meanwhile: one either way is tolerated.
fn code(secret: &str, steps: i64) -> String {
    let totp = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(secret).unwrap());
    let totp = totp.with_account_name("x").build().unwrap();
    let time = landline::clock::unix_ms() / 1000 + steps * 30;
    totp.generate(u64::try_from(time).unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_takes_the_old_one_and_the_rules() {
    let master = Master::start().await;
    let ada = master.browser("ada", "viewer", "").await;
    let other = master.signed_in("ada").await;
    let change = async |current: &str, new: &str| {
        let body = json!({ "current": current, "new": new });
        master.by(&ada, Method::POST, "/api/v1/session/password", Some(body)).await
    };
    assert_eq!(change("wrong words here", "another few words").await.code(), (403, "wrong_proof"));
    let short = change(PASSWORD, "short").await;
    assert!(short.body["detail"].as_str().unwrap().contains("5 characters"), "{}", short.body);
    assert_eq!(change(PASSWORD, &"x".repeat(257)).await.code(), (422, "invalid"));
    assert_eq!(change(PASSWORD, "another few words").await.status, 204);
    assert_eq!(master.by(&ada, Method::GET, "/api/v1/session", None).await.status, 200);
    assert_eq!(master.by(&other, Method::GET, "/api/v1/session", None).await.status, 401);
    assert_eq!(master.log_in("ada", PASSWORD).await.status, 401);
    assert_eq!(master.log_in("ADA", "another few words").await.status, 200, "names are one in any case");
    master.app.stop().await;
}
