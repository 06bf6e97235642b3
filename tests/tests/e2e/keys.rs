//! Enrolment keys against a real master: races, approval, scopes, and what the public port does not show.

use std::{collections::BTreeSet, process::Command, time::Duration};

use certs::join::{EnrolmentKey, JoinToken};
use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    master::Master,
    puppet::{enrol_with_key, new_key},
    tools::tool,
};
use proto::{code::Code, enrol::EnrolReply};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

async fn key(master: &Master, body: Value) -> (Value, EnrolmentKey) {
    let made = master.api().post("/enrolment-keys", body).await;
    let key = made["key"].as_str().unwrap().parse().unwrap();
    (made, key)
}

/// The key as a token for one name, which is how a puppet carries it.
fn named(key: &EnrolmentKey, name: &str) -> JoinToken {
    let agent_id = name.parse().unwrap();
    JoinToken { address: key.address.clone(), pin: key.pin, agent_id, secret: key.secret.clone() }
}

async fn ask(key: &EnrolmentKey, name: &str, folder: &std::path::Path) -> EnrolReply {
    let pair = new_key(folder, name);
    for _ in 0..20 {
        if let Ok(reply) = enrol_with_key(&named(key, name), &pair, key.secret.expose_secret()).await {
            return reply;
        }
    }
    panic!("{name} never got an answer")
}

fn refused(reply: &EnrolReply) -> Option<(Code, String)> {
    match reply {
        EnrolReply::Refused(refusal) => Some((refusal.code, refusal.message.clone())),
        EnrolReply::Issued(_) | EnrolReply::Waits { .. } => None,
    }
}

async fn two_hundred_with_one_key(top: &str) {
    const USES: usize = 20;
    let master = Master::start_with(top, "").await;
    let (_, key) = key(&master, json!({ "uses": USES })).await;
    let folder = tempfile::tempdir().unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (key, folder) = (key.clone(), folder.path().to_owned());
        racers.spawn(async move { ask(&key, &format!("m{number}"), &folder).await });
    }
    let replies = racers.join_all().await;
    assert_eq!(replies.iter().filter(|reply| matches!(reply, EnrolReply::Issued(_))).count(), USES);
    let errors: BTreeSet<_> = replies.iter().filter_map(refused).collect();
    assert_eq!(errors.len(), 1, "equal errors: {errors:?}");
    assert_eq!(errors.first().unwrap().0, Code::ENROL_REFUSED);
    let agents = master.api().get("/agents?limit=500").await;
    assert_eq!(agents["items"].as_array().unwrap().len(), USES);
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_two_hundred_race_for_one_key_on_sqlite() {
    two_hundred_with_one_key("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_two_hundred_race_for_one_key_on_postgresql() {
    let url = std::env::var("LANDLINE_TEST_POSTGRES_URL")
        .expect("LANDLINE_TEST_POSTGRES_URL is set by `make test`; or: deploy/dev/postgres.sh start DIR");
    let database = landline_tests::postgres::fresh_database(&url);
    two_hundred_with_one_key(&format!("database = {database:?}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_no_good_are_refused_in_the_same_words() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (revoked, revoked_key) = key(&master, json!({})).await;
    let id = revoked["id"].as_str().unwrap();
    assert_eq!(master.api().call(Method::DELETE, &format!("/enrolment-keys/{id}"), None).await.0, 204);
    let (_, used) = key(&master, json!({})).await;
    assert!(matches!(ask(&used, "first", folder.path()).await, EnrolReply::Issued(_)));
    let unknown = EnrolmentKey { secret: certs::join::generate_secret(), ..used.clone() };
    let mut told = BTreeSet::new();
    for bad in [&revoked_key, &used, &unknown] {
        told.insert(refused(&ask(bad, "second", folder.path()).await).unwrap());
    }
    assert_eq!(told.len(), 1, "{told:?}");
    // Whether a name is taken is told to nobody without a good key.
    assert_eq!(refused(&ask(&unknown, "first", folder.path()).await).unwrap().0, Code::ENROL_REFUSED);
    let (_, good) = key(&master, json!({})).await;
    assert_eq!(refused(&ask(&good, "first", &folder.path().join("..")).await).unwrap().0, Code::NAME_TAKEN);
    assert!(matches!(ask(&good, "second", folder.path()).await, EnrolReply::Issued(_)), "the refusal cost no use");
    let listed = master.api().get("/enrolment-keys").await;
    assert!(!listed.to_string().contains("llk1_") && listed["items"].as_array().unwrap().len() == 3, "{listed}");
}

/// A real agent waits, is seen, and is online after the yes; another one is turned away and told so.
#[tokio::test(flavor = "multi_thread")]
async fn machines_wait_for_an_operators_yes() {
    let master = Master::start().await;
    let api = master.api();
    let (made, key) = key(&master, json!({ "uses": 2, "approval": true, "labels": { "site": "here" } })).await;
    let text = made["key"].as_str().unwrap();
    let mut agent = Agent::new(&json!({ "join_token": text, "id": "wanted" }), Some(ALLOW_ALL));
    agent.set("AGENT_ID", "wanted");
    agent.start();
    let row = waiting(&master, "wanted").await;
    assert_eq!((row["labels"]["site"].as_str(), row["address"].as_str()), (Some("here"), Some("127.0.0.1")));
    assert_eq!(api.call(Method::GET, "/agents/wanted", None).await.0, 404, "no agent before the yes");
    let path = |row: &Value, verb: &str| format!("/enrolments/{}/{verb}", row["id"].as_str().unwrap());
    api.post(&path(&row, "approve"), json!({})).await;
    api.online("wanted", Duration::from_secs(15)).await;
    assert_eq!(api.call(Method::POST, &path(&row, "approve"), None).await.0, 404, "it waits no more");

    let folder = tempfile::tempdir().unwrap();
    let reply = ask(&key, "unwanted", folder.path()).await;
    assert!(matches!(&reply, EnrolReply::Waits { retry_after_ms: 1.., .. }), "{reply:?}");
    let row = waiting(&master, "unwanted").await;
    api.post(&path(&row, "reject"), json!({})).await;
    assert_eq!(api.refused(Method::POST, &path(&row, "approve"), None).await, (409, "conflict".to_owned()));
    assert_eq!(refused(&ask(&key, "unwanted", folder.path()).await).unwrap().0, Code::ENROL_REJECTED);
    let kinds: BTreeSet<_> = ["wanted", "unwanted"].into_iter().collect();
    for name in kinds {
        let timeline = api.call(Method::GET, &format!("/agents/{name}/timeline"), None).await;
        assert!(name == "unwanted" || timeline.1.to_string().contains("agent.approved"), "{timeline:?}");
    }
}

async fn waiting(master: &Master, name: &str) -> Value {
    let api = master.api();
    landline_tests::wait::eventually(Duration::from_secs(15), &format!("{name} waits"), || async {
        let list = api.get("/enrolments").await;
        list["items"].as_array()?.iter().find(|row| row["agent_id"] == name).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_caller_makes_and_sees_keys_of_its_own_labels_only() {
    let master = Master::start().await;
    let api = master.api();
    let (outside, _) = key(&master, json!({ "labels": { "site": "there" } })).await;
    let body = json!({ "name": "n", "permissions": ["enrol:read", "enrol:write"], "selector": "site=here" });
    let narrow = api.with_token(api.post("/tokens", body).await["secret"].as_str().unwrap());
    assert_eq!(narrow.refused(Method::POST, "/enrolment-keys", Some(json!({}))).await.0, 403);
    narrow.post("/enrolment-keys", json!({ "labels": { "site": "here" } })).await;
    assert_eq!(narrow.get("/enrolment-keys").await["items"].as_array().unwrap().len(), 1);
    let path = format!("/enrolment-keys/{}", outside["id"].as_str().unwrap());
    assert_eq!(narrow.refused(Method::DELETE, &path, None).await.0, 404);
    for bad in
        [json!({ "uses": 0 }), json!({ "uses": 10_001 }), json!({ "ttl_s": 7_776_001 }), json!({ "allow": ["root"] })]
    {
        assert_eq!(api.refused(Method::POST, "/enrolment-keys", Some(bad)).await.0, 422);
    }
}

/// The real port, a real client: whatever is tried, the inside is not there.
#[tokio::test(flavor = "multi_thread")]
async fn the_public_port_shows_nothing_of_the_inside() {
    let master = Master::start().await;
    let curl = |path: &str, more: &[&str]| {
        let url = format!("https://127.0.0.1:{}{path}", master.public_port);
        let mut client = Command::new(tool("curl"));
        client.args(["-sk", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"]);
        let output = client.args(more).arg(url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!((curl("/install.sh", &[]), curl("/healthz", &[])), ("200".to_owned(), "200".to_owned()));
    let token = format!("Authorization: Bearer {}", master.api().token);
    for path in [
        "/api/v1/agents",
        "//api/v1/agents",
        "/api/v1/agents/..;/",
        "/install.sh/../api/v1/agents",
        "/metrics",
        "/setup",
        "/readyz",
        "/api/tunnel_status",
    ] {
        for header in
            [token.as_str(), "X-Forwarded-For: 127.0.0.1", "X-Original-URL: /api/v1/agents", "Forwarded: for=127.0.0.1"]
        {
            for method in ["GET", "POST"] {
                assert_eq!(
                    curl(path, &["-X", method, "-H", header, "-H", token.as_str()]),
                    "404",
                    "{method} {path} {header}"
                );
            }
        }
    }
    for host in ["localhost", "127.0.0.1.evil.example", "evil.example"] {
        assert_eq!(curl("/api/v1/agents", &["-H", &format!("Host: {host}")]), "421", "{host}");
    }
}
