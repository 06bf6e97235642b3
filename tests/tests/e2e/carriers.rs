//! Between the carriers: what is under way when UDP goes away, comes back, or is there and no good, and that one agent has
//! one line whatever it moves through (SECURITY R5, R8, reliability figures).

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::port_of,
    copying::{content_file, cp, hash_of, parts_in},
    link::{Blocked, Link, Loss, Shape},
    master::Master,
    peers::echo,
    terminal::{Terminal, open},
    wait::{eventually, until},
};
use reqwest::Method;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// The first try of UDP fails at once, the second comes a minute later.
const BACK_WITHIN: Duration = Duration::from_secs(70);

fn says(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back)?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

async fn over(master: &Master, agent: &str, carrier: &str, within: Duration) -> Value {
    eventually(within, &format!("{agent} is online over {carrier}"), || async {
        let seen = master.api().agent(agent).await;
        (seen["presence"] == "online" && seen["carrier"] == carrier).then_some(seen)
    })
    .await
}

/// An agent behind a link that blocks UDP from the start.
async fn blocked(master: &Master, id: &str) -> (Agent, Link) {
    let public: SocketAddr = ([127, 0, 0, 1], master.public_port).into();
    let link = Link::start(public, 3).await;
    link.block(Blocked::UDP);
    let mut agent = Agent::new(&master.add(id).await, Some(ALLOW_ALL));
    agent.through(&link);
    agent.start();
    over(master, id, "wss", SOON).await;
    (agent, link)
}

/// Kinds of the agent's events, newest first.
async fn kinds(master: &Master, agent: &str) -> Vec<(String, Value)> {
    let timeline = master.api().get(&format!("/agents/{agent}/timeline?limit=200")).await;
    let event = |event: &Value| (event["kind"].as_str().unwrap().to_owned(), event.clone());
    timeline["items"].as_array().unwrap().iter().map(event).collect()
}

async fn metric(master: &Master, line: &str) -> bool {
    let url = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    reqwest::get(url).await.unwrap().text().await.unwrap().lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_copy_goes_on_inside_a_websocket_when_udp_is_blocked_under_it() {
    let master = Master::start().await;
    let (_agent, link) = master.agent_behind("far", 3).await;
    link.shape(Shape { rate: Some(4_000_000), ..Shape::default() });
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (here.path().join("file"), there.path().join("file"));
    let hash = content_file(&source, 60 << 20, 9);
    let mut copy =
        cp(&master, &["-q", source.to_str().unwrap(), &format!("far:{}", target.display())]).spawn().unwrap();
    let arrived = || {
        let parts = parts_in(there.path());
        parts
            .iter()
            .filter_map(|part| std::fs::metadata(there.path().join(part)).ok())
            .map(|meta| meta.len())
            .sum::<u64>()
    };
    until(SOON, "the copy is under way", || arrived() > 8 << 20).await;
    link.block(Blocked::UDP);
    let started = Instant::now();
    // What was on its way is there soon; the copy is not.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = arrived();
    assert!(before < 50 << 20, "too much came before: {before}");
    until(Duration::from_secs(60), "the copy goes on", || arrived() > before).await;
    let took = started.elapsed();
    println!("UDP blocked in the middle of a copy: it went on after {took:?}");
    let seen = over(&master, "far", "wss", SOON).await;
    assert!(took <= Duration::from_secs(15), "{took:?}");
    link.shape(Shape::default());
    until(Duration::from_secs(60), "the copy ends", || copy.try_wait().unwrap().is_some()).await;
    let output = copy.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(hash_of(&target), hash);
    assert_eq!(seen["carrier_reason"]["code"], "carrier_silent", "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_unblocked_it_returns_to_udp_and_what_runs_does_not_notice() {
    let master = Master::start().await;
    let (_agent, link) = blocked(&master, "far").await;
    let api = master.api();
    let id = open(&api, "far", "stty -echo; while read line; do echo \"got $line\"; done").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.send(b"one\n").await;
    terminal.until_text("got one").await;
    let tunnel = api.open_tunnel("far", echo(), "tcp").await;
    let mut connection = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    assert_eq!(says(&mut connection, "before").unwrap(), "before");
    assert!(metric(&master, "landline_agents_connected{carrier=\"wss\"} 1").await);

    // The try of UDP that begins with the line fails after five seconds; only then is the next one a minute away.
    tokio::time::sleep(Duration::from_secs(6)).await;
    link.block(Blocked::NOTHING);
    let started = Instant::now();
    let seen = over(&master, "far", "udp", BACK_WITHIN).await;
    println!("UDP unblocked: the line was back on it after {:?}", started.elapsed());
    eventually(SOON, "why it is back", || async {
        (master.api().agent("far").await["carrier_reason"]["code"] == "carrier_back").then_some(())
    })
    .await;
    assert!(seen["carrier_since"].is_string(), "{seen}");
    // Both outlived the move where they were, and what is new goes the new way.
    assert_eq!(says(&mut connection, "after").unwrap(), "after");
    terminal.send(b"two\n").await;
    terminal.until_text("got two").await;
    assert_eq!((terminal.closed.as_deref(), terminal.lost), (None, 0));
    let mut second = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    assert_eq!(says(&mut second, "new").unwrap(), "new");
    assert!(metric(&master, "landline_agents_connected{carrier=\"udp\"} 1").await, "one line counts");
    assert!(metric(&master, "landline_agents_connected{carrier=\"wss\"} 0").await);
    assert!(metric(&master, "landline_carrier_switches_total{to=\"udp\"} 1").await);
    let kinds = kinds(&master, "far").await;
    let switch = kinds.iter().find(|(kind, _)| kind == "agent.carrier").unwrap_or_else(|| panic!("{kinds:?}"));
    assert_eq!((&switch.1["detail"]["from"], &switch.1["detail"]["to"]), (&json!("wss"), &json!("udp")), "{switch:?}");
    assert!(kinds.iter().all(|(kind, _)| kind != "agent.superseded" && kind != "agent.offline"), "{kinds:?}");

    // A suspension ends what runs on the line that was left as well.
    let suspended = Instant::now();
    let change = Some(json!({ "status": "suspended" }));
    assert!(api.call(Method::PATCH, "/agents/far", change).await.0.is_success());
    for (what, socket) in [("old", &mut connection), ("new", &mut second)] {
        assert!(!says(socket, "dead").is_ok_and(|text| text == "dead"), "the {what} line's connection lives");
    }
    assert_eq!(terminal.exit().await["reason"], "suspended");
    println!("suspended after the move: all was dead after {:?}", suspended.elapsed());
    assert!(suspended.elapsed() <= Duration::from_secs(2), "{:?}", suspended.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_left_ends_with_what_ran_on_it() {
    let master = Master::start().await;
    let (agent, link) = blocked(&master, "far").await;
    let tunnel = master.api().open_tunnel("far", echo(), "tcp").await;
    let mut connection = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    assert_eq!(says(&mut connection, "before").unwrap(), "before");
    link.block(Blocked::NOTHING);
    over(&master, "far", "udp", BACK_WITHIN).await;
    let left = |master: &Master| master.log().contains("the line that was left ended");
    assert_eq!(says(&mut connection, "after").unwrap(), "after");
    assert!(!left(&master), "something still runs on it");
    drop(connection);
    until(SOON, "the line that was left ends", || left(&master)).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_udp_that_loses_half_is_left() {
    let master = Master::start().await;
    let (agent, link) = master.agent_behind("far", 3).await;
    over(&master, "far", "udp", SOON).await;
    link.shape(Shape { rate: Some(125_000), loss: Loss::Uniform(0.5), ..Shape::default() });
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    content_file(&there.path().join("file"), 60 << 20, 9);
    let from = format!("far:{}", there.path().join("file").display());
    let mut copy = cp(&master, &["-q", &from, here.path().join("file").to_str().unwrap()]).spawn().unwrap();
    let started = Instant::now();
    over(&master, "far", "wss", Duration::from_secs(90)).await;
    println!("UDP at 1 Mb/s with half of it lost was left after {:?}", started.elapsed());
    // Whichever the agent noticed first.
    let reason = eventually(SOON, "why it left", || async {
        master.api().agent("far").await["carrier_reason"]["code"].as_str().map(str::to_owned)
    })
    .await;
    assert!(["carrier_broken", "carrier_silent"].contains(&reason.as_str()), "{reason}");
    let _ = copy.kill();
    let _ = copy.wait();
    drop(agent);
}
