//! People at the dashboard in a real Chromium who are wrong, or in each other's way: what they are told. What a page must
//! show stands in `tests/browser`.

use std::time::Duration;

use landline_tests::{browser::Browser, master::Master, wait::eventually};
use serde_json::{Value, json};

const STEP: Duration = Duration::from_secs(180);
/// As `tests/browser/lib/enter.mjs` types it.
const PASSWORD: &str = "a long and quiet winter evening";
/// Wrong passwords under one name before it has to wait.
const FREE: u32 = 5;
/// Of a tunnel, and the longest that extending gives it, s.
const TTL: (u32, u32) = (600, 900);

/// The script up to where the first administrator is in; then there is a second person.
async fn with_bob(script: &str, master: &Master, more: &[(&str, Value)]) -> Browser {
    let link = eventually(STEP, "the setup link", || async { master.setup_link() }).await;
    let mut given = json!({ "url": master.url(), "setup": link });
    for (key, value) in more {
        given[key] = value.clone();
    }
    let mut browser = Browser::start(script, &given);
    browser.until("bob", STEP).await;
    master.api().post("/operators", json!({ "name": "bob", "role": "admin", "password": PASSWORD })).await;
    browser.go_on().await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_are_told_slowed_and_nobody_elses_trouble() {
    let master = Master::start().await;
    let browser = with_bob("doors", &master, &[("free", json!(FREE))]).await;
    println!("{}", browser.done(STEP).await[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_at_one_tunnel_are_each_told_what_came_of_it() {
    let most = TTL.1;
    let master = Master::start_with("", &format!("ttl_s = {most}\nttl_max_s = {most}")).await;
    let _home = master.agent("home").await;
    let mut tunnels = Vec::new();
    // Three targets: who asks for one that is there gets the same tunnel.
    for port in [master.internal_port, master.metrics_port, master.public_port] {
        let target = json!({ "host": "127.0.0.1", "port": port, "scheme": "tcp" });
        let wanted = json!({ "agent_id": "home", "target": target, "ttl_s": TTL.0, "heartbeat": false });
        tunnels.push(master.api().post("/tunnels?wait=30s", wanted).await["id"].clone());
    }
    let more = [("agent", json!("home")), ("tunnels", json!(tunnels)), ("ttl", json!(TTL.0))];
    with_bob("shared", &master, &more).await.done(STEP).await;
}
