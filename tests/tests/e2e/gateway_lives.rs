//! How long pages live: with their visitor's rights, across an agent's restart, and with the window that shows them.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use landline_tests::{firewall_site::FirewallSite, gateway::Visitor, master::Master, wait::eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

use crate::gateway::opened;

#[tokio::test]
async fn a_revoked_token_ends_its_visits_and_what_flows_in_them() {
    let (master, _agent, site, _visitor) = opened("fw-1").await;
    let wanted = json!({ "name": "guest", "permissions": ["tunnels:read", "tunnels:write"] });
    let token = master.api().post("/tokens", wanted).await;
    let guest = master.api().with_token(token["secret"].as_str().unwrap());
    let target = json!({ "host": "127.0.0.1", "port": site.port, "scheme": "https" });
    let tunnel =
        guest.post("/tunnels?wait=30s", json!({ "agent_id": "home-1", "target": target, "heartbeat": false })).await;
    let tunnel = tunnel["id"].as_str().unwrap();
    let visitor = Visitor::outside(&master, tunnel);
    let ticket = guest.post(&format!("/tunnels/{tunnel}/ticket"), json!({})).await;
    visitor.get(&visitor.path_of(&ticket)).await;
    let mut events = visitor.get("/events").await;
    assert!(events.chunk().await.unwrap().is_some());

    master.api().call(Method::DELETE, &format!("/tokens/{}", token["id"].as_str().unwrap()), None).await;
    let revoked = Instant::now();
    while let Ok(Some(_)) = events.chunk().await {
        assert!(revoked.elapsed() < Duration::from_secs(6), "the events still flow");
    }
    assert_eq!(visitor.page("/").await.0, 403);
    assert!(revoked.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn a_page_waits_for_an_agent_that_restarts_and_goes_on() {
    let (_master, mut agent, _site, visitor) = opened("fw-1").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    agent.kill();
    let (status, page) = eventually(Duration::from_secs(30), "the page says that the agent is away", || async {
        let (status, page) = visitor.page("/login.php").await;
        (status == 503).then_some((status, page))
    })
    .await;
    assert!(page.contains("http-equiv=\"refresh\"") && page.contains("reconnecting"), "{status} {page}");
    let form =
        visitor.send(visitor.request(Method::POST, "/login.php").header("accept", "text/html").body("x=y")).await;
    let headers = form.headers().clone();
    assert!(form.status() == 503 && headers["retry-after"] == "2");
    assert!(!form.text().await.unwrap().contains("http-equiv"), "a form is not sent again by itself");
    agent.start();
    eventually(Duration::from_secs(20), "the page is back", || async {
        (visitor.page("/login.php").await.0 == 200).then_some(())
    })
    .await;
}

/// A dashboard's presence socket.
async fn dashboard(
    master: &Master,
) -> impl futures_util::Sink<Message, Error: std::fmt::Debug>
+ futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>
+ Unpin {
    let url = format!("ws://127.0.0.1:{}/api/v1/presence", master.internal_port);
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", master.api().token);
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    tokio_tungstenite::connect_async(request).await.unwrap().0
}

async fn beating(master: &Master, port: u16) -> String {
    let target = json!({ "host": "127.0.0.1", "port": port, "scheme": "https" });
    let tunnel = master.api().post("/tunnels?wait=30s", json!({ "agent_id": "home-1", "target": target })).await;
    tunnel["id"].as_str().unwrap().to_owned()
}

async fn closes(master: &Master, tunnel: &str, within: Duration) -> Value {
    let row = master.api().tunnel_becomes(tunnel, "disconnected", within).await;
    assert_eq!(row["closed_reason"], "window_closed");
    row
}

#[tokio::test]
async fn a_closed_window_closes_its_tunnel_and_a_reload_does_not() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let tunnel = beating(&master, site.port).await;
    let mut desk = dashboard(&master).await;
    let open = |ids: &[&str]| Message::text(json!({ "open": ids }).to_string());
    desk.send(open(&[&tunnel, "0b8e6f3a-9c1d-4e5f-8a7b-6c5d4e3f2a1b"])).await.unwrap();
    assert!(desk.next().await.is_some());
    // A reload: gone and back within the grace.
    desk.send(open(&[])).await.unwrap();
    desk.send(open(&[&tunnel])).await.unwrap();
    let kept = Instant::now();
    while kept.elapsed() < Duration::from_secs(6) {
        assert_eq!(master.api().tunnel(&tunnel).await["status"], "active");
        tokio::task::yield_now().await;
    }
    desk.send(open(&[])).await.unwrap();
    let let_go = Instant::now();
    closes(&master, &tunnel, Duration::from_secs(10)).await;
    assert!(let_go.elapsed() >= Duration::from_secs(3));
}

#[tokio::test]
async fn a_dashboard_that_dies_leaves_the_tunnel_to_its_requests() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let tunnel = beating(&master, site.port).await;
    let visitor = Visitor::enter(&master, &tunnel).await;
    let mut desk = dashboard(&master).await;
    desk.send(Message::text(json!({ "open": [tunnel] }).to_string())).await.unwrap();
    assert!(desk.next().await.is_some());
    drop(desk);
    let died = Instant::now();
    while died.elapsed() < Duration::from_secs(12) {
        assert_eq!(visitor.page("/login.php").await.0, 200, "requests are presence");
        tokio::task::yield_now().await;
    }
    closes(&master, &tunnel, Duration::from_secs(16)).await;
}

/// Asked every two seconds, a dashboard whose clocks are slowed down still answers: it is not taken for gone.
#[tokio::test]
async fn a_dashboard_in_the_background_is_asked_and_keeps_its_windows() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let tunnel = beating(&master, site.port).await;
    let mut desk = dashboard(&master).await;
    let open = || Message::text(json!({ "open": [tunnel] }).to_string());
    desk.send(open()).await.unwrap();
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(26) {
        let message = desk.next().await.unwrap().unwrap();
        let told: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if told["ask"] == true {
            asked += 1;
            desk.send(open()).await.unwrap();
        }
    }
    assert!(asked >= 10, "{asked}");
    assert_eq!(master.api().tunnel(&tunnel).await["status"], "active");
}

/// The last of several to go closes it.
#[tokio::test]
async fn two_dashboards_hold_one_tunnel_until_the_second_lets_go() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let tunnel = beating(&master, site.port).await;
    let (mut one, mut two) = (dashboard(&master).await, dashboard(&master).await);
    let open = |ids: &[&str]| Message::text(json!({ "open": ids }).to_string());
    for desk in [&mut one, &mut two] {
        desk.send(open(&[&tunnel])).await.unwrap();
        assert!(desk.next().await.is_some());
    }
    one.send(open(&[])).await.unwrap();
    let let_go = Instant::now();
    while let_go.elapsed() < Duration::from_secs(6) {
        assert_eq!(master.api().tunnel(&tunnel).await["status"], "active");
        tokio::task::yield_now().await;
    }
    two.send(open(&[])).await.unwrap();
    closes(&master, &tunnel, Duration::from_secs(10)).await;
}

/// A WebSocket whose target never hangs up does not outlive its window, and what ended with the window is no visitor.
#[tokio::test]
async fn a_deaf_targets_websocket_does_not_keep_the_tunnel() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let tunnel = beating(&master, site.port).await;
    let visitor = Visitor::enter(&master, &tunnel).await;
    let mut desk = dashboard(&master).await;
    desk.send(Message::text(json!({ "open": [tunnel] }).to_string())).await.unwrap();
    assert!(desk.next().await.is_some());
    let (socket, _) = tokio_tungstenite::connect_async(visitor.websocket("/deaf", &visitor.origin())).await.unwrap();
    desk.send(Message::text(json!({ "open": [] }).to_string())).await.unwrap();
    assert!(desk.next().await.is_some());
    drop(socket);
    closes(&master, &tunnel, Duration::from_secs(10)).await;
}

#[tokio::test]
async fn alone_a_gigabyte_flows_through_without_being_held() {
    let (mut master, _agent, _site, visitor) = opened("fw-1").await;
    const TOTAL: usize = 1 << 30;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    let before = master.process().resident();
    let mut answer = visitor.get(&format!("/download?{TOTAL}")).await;
    let (mut length, mut most) = (0, before);
    while let Some(piece) = answer.chunk().await.unwrap() {
        if length / (64 << 20) != (length + piece.len()) / (64 << 20) {
            most = most.max(master.process().resident());
        }
        length += piece.len();
    }
    assert_eq!(length, TOTAL);
    println!("a GiB through the gateway: the master grew by {} KiB", (most - before) >> 10);
    assert!(most - before < 32 << 20, "{before} {most}");
}
