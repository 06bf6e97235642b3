//! The lives of tunnels, end to end: every way one ends, and after each the same three facts: listening sockets equal
//! rows, the port is free, nothing is left.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use landline_tests::{
    api::port_of,
    master::Master,
    peers::{Nginx, free_port},
    wait::{eventually, until},
};
use reqwest::Method;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

fn id(tunnel: &Value) -> &str {
    tunnel["id"].as_str().unwrap()
}

/// A listener that takes connections and says nothing.
fn silent_target() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// What must hold after any end: the reason stands, the port is free, sockets equal rows.
async fn is_over(master: &Master, tunnel: &Value, status: &str, reason: &str) {
    let port = port_of(tunnel);
    let ended = master.api().tunnel_becomes(id(tunnel), status, Duration::from_secs(10)).await;
    assert_eq!(ended["closed_reason"], reason, "{ended}");
    until(SOON, "the port is free", || TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    master.sockets_equal_rows().await;
}

/// A tunnel to a plain TCP target, with one connection through it.
async fn tunnel_with_connection(master: &Master, agent: &str, target: &TcpListener) -> (Value, TcpStream, TcpStream) {
    let tunnel = master.api().open_tunnel(agent, target.local_addr().unwrap().port(), "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let mut client = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    client.write_all(b"!").unwrap();
    // Probes connect too and say nothing.
    let server = loop {
        let mut server = target.accept().unwrap().0;
        if server.read_exact(&mut [0]).is_ok() {
            break server;
        }
    };
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
    (tunnel, client, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_kills_every_connection_within_a_second() {
    let master = Master::start().await;
    let _agent = master.agent("closer").await;
    let (target, _) = silent_target();
    let (tunnel, mut client, mut server) = tunnel_with_connection(&master, "closer", &target).await;
    let started = Instant::now();
    let (status, _) = master.api().call(Method::DELETE, &format!("/tunnels/{}", id(&tunnel)), None).await;
    assert!(status.is_success(), "{status}");
    let error = client.read(&mut [0]).expect_err("the client's connection is reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    server.read(&mut [0]).expect_err("the target's connection is reset");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    is_over(&master, &tunnel, "disconnected", "closed_by_user").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_whose_caller_stops_beating_ends() {
    let master = Master::start_with("", "heartbeat_timeout_s = 2").await;
    let _agent = master.agent("beats").await;
    let (_target, port) = silent_target();
    let body = json!({ "agent_id": "beats", "target": { "host": "localhost", "port": port, "scheme": "tcp" }, "heartbeat": true });
    let tunnel = master.api().post("/tunnels?wait=30s", body).await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let beat = format!("/tunnels/{}/heartbeat", id(&tunnel));
    let beating = Instant::now();
    while beating.elapsed() < Duration::from_secs(4) {
        assert_eq!(master.api().post(&beat, json!({})).await["keep_alive"], true);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(master.api().tunnel(id(&tunnel)).await["status"], "active");
    is_over(&master, &tunnel, "disconnected", "heartbeat_lost").await;
    assert_eq!(master.api().post(&beat, json!({})).await["keep_alive"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_parked_while_the_agent_is_away_completes_on_its_return() {
    let master = Master::start().await;
    let mut agent = master.agent("returns").await;
    let (target, _) = silent_target();
    let (tunnel, mut old, _server) = tunnel_with_connection(&master, "returns", &target).await;
    agent.process().terminate(SOON).await;
    master.api().presence("returns", "offline", SOON).await;
    old.read(&mut [0]).expect_err("what was open went with the line");
    let mut parked = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    parked.write_all(b"patience").unwrap();
    agent.start();
    let accepted = tokio::task::spawn_blocking(move || {
        let mut heard = [0; 8];
        // A probe may come first; it says nothing.
        while target.accept().unwrap().0.read_exact(&mut heard).is_err() {}
        heard
    });
    assert_eq!(&accepted.await.unwrap(), b"patience");
    assert_eq!(master.api().tunnel(id(&tunnel)).await["status"], "active");
    master.sockets_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_takes_its_tunnels_with_it_when_it_stays_away() {
    let master = Master::start_with("", "agent_grace_s = 1").await;
    let mut agent = master.agent("killed").await;
    let (target, _) = silent_target();
    let (tunnel, _client, _server) = tunnel_with_connection(&master, "killed", &target).await;
    agent.kill();
    // Silence is noticed after twelve seconds, then the grace runs.
    master.api().tunnel_becomes(id(&tunnel), "disconnected", Duration::from_secs(25)).await;
    is_over(&master, &tunnel, "disconnected", "agent_lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_times_the_tunnel_out() {
    let master = Master::start_with("", "pending_timeout_s = 2").await;
    let _agent = master.agent("refused").await;
    let tunnel = master.api().open_tunnel("refused", free_port(), "tcp").await;
    is_over(&master, &tunnel, "timeout", "target_refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_for_an_absent_agent_waits_and_times_out() {
    let master = Master::start_with("", "pending_timeout_s = 2").await;
    master.add("absent").await;
    let tunnel = master.api().open_tunnel("absent", 443, "https").await;
    is_over(&master, &tunnel, "timeout", "agent_offline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_expires_and_may_be_extended_before() {
    let master = Master::start_with("", "ttl_s = 3").await;
    let _agent = master.agent("expires").await;
    let (_target, port) = silent_target();
    let tunnel = master.api().open_tunnel("expires", port, "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let extended = master.api().post(&format!("/tunnels/{}/extend", id(&tunnel)), json!({ "ttl_s": 6 })).await;
    assert!(extended["expires_at"].as_str() > tunnel["expires_at"].as_str(), "{extended}");
    is_over(&master, &tunnel, "expired", "expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_cuts_everything_within_two_seconds() {
    let master = Master::start().await;
    let mut agent = master.agent("suspended").await;
    let (target, _) = silent_target();
    let (tunnel, mut client, _server) = tunnel_with_connection(&master, "suspended", &target).await;
    let exec = master
        .api()
        .request(Method::POST, "/agents/suspended/exec")
        .json(&json!({ "argv": ["sleep", "600"] }))
        .send()
        .await
        .unwrap();
    assert!(exec.status().is_success());
    let started = Instant::now();
    let (status, body) =
        master.api().call(Method::PATCH, "/agents/suspended", Some(json!({ "status": "suspended" }))).await;
    assert!(status.is_success(), "{body}");
    client.read(&mut [0]).expect_err("the connection is reset");
    let lines = exec.text().await.unwrap_or_default();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!lines.contains("\"code\":0"), "{lines}");
    is_over(&master, &tunnel, "disconnected", "suspended").await;
    master.api().presence("suspended", "offline", SOON).await;
    // Its key is worth nothing now, also after a restart of the agent.
    agent.kill();
    agent.start();
    eventually(Duration::from_secs(10), "the agent is refused", || async {
        agent.log().contains("suspended").then_some(())
    })
    .await;
    assert_eq!(master.api().agent("suspended").await["presence"], "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_later_shows_as_failing_health() {
    let master = Master::start_with("[line]\nheartbeat_s = 1", "").await;
    let _agent = master.agent("health").await;
    let nginx = Nginx::start().await;
    let port = nginx.port;
    let tunnel = master.api().open_tunnel("health", port, "https").await;
    assert_eq!(tunnel["health"]["status"].as_str().or(tunnel["health"].as_str()), Some("ok"), "{tunnel}");
    drop(nginx);
    let health = |wanted: &'static str| {
        let (master, id) = (&master, id(&tunnel).to_owned());
        async move {
            eventually(Duration::from_secs(10), wanted, || async {
                let tunnel = master.api().tunnel(&id).await;
                let health = tunnel["health"]["status"].as_str().or(tunnel["health"].as_str());
                (health == Some(wanted) && tunnel["status"] == "active").then_some(())
            })
            .await;
        }
    };
    health("failing").await;
    let _again = Nginx::start_on(port).await;
    health("ok").await;
    master.sockets_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_tunnel_follows_its_agent_and_survives_the_master() {
    let mut master = Master::start_with("", "ttl_s = 1\nheartbeat_timeout_s = 1\nagent_grace_s = 1").await;
    let mut agent = master.agent("standing").await;
    let (_target, port) = silent_target();
    let body = json!({
        "agent_id": "standing", "standing": true,
        "target": { "host": "127.0.0.1", "port": port, "scheme": "tcp" },
    });
    let tunnel = master.api().post("/tunnels?wait=30s", body).await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    agent.kill();
    master.api().tunnel_becomes(id(&tunnel), "pending", Duration::from_secs(60)).await;
    agent.start();
    let again = master.api().tunnel_becomes(id(&tunnel), "active", Duration::from_secs(15)).await;
    assert_eq!(again["listen"], tunnel["listen"]);
    master.kill();
    master.run().await;
    let after = master.api().tunnel_becomes(id(&tunnel), "active", Duration::from_secs(15)).await;
    assert_eq!(after["listen"], tunnel["listen"]);
    master.sockets_equal_rows().await;
    master.api().call(Method::DELETE, &format!("/tunnels/{}", id(&tunnel)), None).await;
    is_over(&master, &tunnel, "disconnected", "closed_by_user").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_range_and_a_squatter_are_told_and_never_reported_as_ours() {
    let master = Master::start().await;
    let _agent = master.agent("range").await;
    let (_target, port) = silent_target();
    let free = *master.range.end();
    let squatters: Vec<_> = master
        .range
        .clone()
        .filter(|port| *port != free)
        .map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap())
        .collect();
    let tunnel = master.api().open_tunnel("range", port, "tcp").await;
    assert_eq!(port_of(&tunnel), free, "{tunnel}");
    let body = json!({ "agent_id": "range", "target": { "host": "127.0.0.1", "port": port + 1, "scheme": "tcp" } });
    let (status, code) = master.api().refused(Method::POST, "/tunnels", Some(body)).await;
    assert_eq!((status, code.as_str()), (409, "ports_exhausted"));
    drop(squatters);
    master.sockets_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gives_the_same_tunnel() {
    let master = Master::start().await;
    let _agent = master.agent("same").await;
    let (_target, port) = silent_target();
    let first = master.api().open_tunnel("same", port, "tcp").await;
    let second = master.api().open_tunnel("same", port, "tcp").await;
    assert_eq!(first["id"], second["id"]);
    master.api().call(Method::DELETE, &format!("/tunnels/{}", id(&first)), None).await;
    let third = master.api().open_tunnel("same", port, "tcp").await;
    assert_ne!(first["id"], third["id"]);
    assert_eq!(first["listen"], third["listen"], "the port is sticky");
}

/// An agent removed or suspended while a tunnel to it is made leaves no tunnel behind, whichever of the two came first.
#[tokio::test(flavor = "multi_thread")]
async fn no_tunnel_outlives_an_agent_that_goes_while_it_is_made() {
    let master = Master::start().await;
    let api = master.api();
    for round in 0..20 {
        let agent = format!("gone-{round}");
        master.add(&agent).await;
        let target = json!({ "host": "127.0.0.1", "port": 9, "scheme": "tcp" });
        let body = json!({ "agent_id": agent, "target": target, "standing": true });
        let path = format!("/agents/{agent}");
        let going = if round % 2 == 0 {
            api.call(Method::DELETE, &path, None)
        } else {
            api.call(Method::PATCH, &path, Some(json!({ "status": "suspended" })))
        };
        let (made, gone) = tokio::join!(api.call(Method::POST, "/tunnels", Some(body)), going);
        assert!(gone.0.is_success(), "{gone:?}");
        assert!(matches!(made.0.as_u16(), 201 | 404 | 409), "{made:?}");
    }
    eventually(SOON, "no tunnel is open", || async { master.rows().await.is_empty().then_some(()) }).await;
    master.sockets_equal_rows().await;
}
