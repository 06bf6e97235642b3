//! Wrong wall clocks: an agent whose clock is off by an hour or by ten years works as any other (SECURITY R25).

use std::time::Duration;

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    master::Master,
    peers::Nginx,
    tools::faketime,
};
use serde_json::{Value, json};

async fn works_with_clock(offset: &str) {
    let master = Master::start().await;
    let mut agent = Agent::new(&master.add("clock").await, Some(ALLOW_ALL));
    agent.set("LD_PRELOAD", &faketime());
    agent.set("FAKETIME", offset);
    agent.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    agent.start();
    master.api().online("clock", Duration::from_secs(20)).await;
    let now = master_now_s();
    let year = master
        .api()
        .request(reqwest::Method::POST, "/agents/clock/exec")
        .json(&json!({ "argv": ["date", "+%s"] }))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(year.contains("\"exit\""), "{year}");
    let call = json!({ "id": "first", "type": "GET_STATS", "timestamp": now });
    let answer = master.api().post("/agents/clock/commands", call.clone()).await;
    assert_eq!(answer["status"], "success", "{answer}");
    let (status, code) = master.api().refused(reqwest::Method::POST, "/agents/clock/commands", Some(call)).await;
    assert_eq!((status, code.as_str()), (409, "replayed"));
    let nginx = Nginx::start().await;
    let tunnel: Value = master.api().open_tunnel("clock", nginx.port, "https").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    // A restart with the same wrong clock finds its certificate still good.
    agent.process().terminate(Duration::from_secs(5)).await;
    master.api().presence("clock", "offline", Duration::from_secs(5)).await;
    agent.start();
    master.api().online("clock", Duration::from_secs(20)).await;
}

fn master_now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_ahead() {
    works_with_clock("+1h").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_behind() {
    works_with_clock("-1h").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_ahead() {
    works_with_clock("+10y").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_years_behind() {
    works_with_clock("-10y").await;
}
