//! Lines inside WebSockets: where UDP is blocked, through proxies with certificates of their own, and under the same rules as
//! any other line (SECURITY R4, R37).

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    cli::{landline, output},
    copying::{content_file, copied, hash_of},
    link::{Blocked, Link},
    master::Master,
    middle::Middle,
    peers::Nginx,
    terminal::{Terminal, open},
    wait::eventually,
};
use reqwest::Method;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

fn public(master: &Master) -> SocketAddr {
    ([127, 0, 0, 1], master.public_port).into()
}

/// An agent that is registered and not started, allowed everything.
async fn prepared(master: &Master, id: &str, carrier: &str) -> Agent {
    let mut agent = Agent::new(&master.add(id).await, Some(ALLOW_ALL));
    agent.set("LANDLINE_CARRIER", carrier);
    agent
}

/// The page behind a tunnel to `site`, as soon as there is one.
async fn page(master: &Master, agent: &str, site: &Nginx) -> String {
    let tunnel = master.api().open_tunnel(agent, site.port, "https").await;
    curl(&[&format!("https://127.0.0.1:{}/", landline_tests::api::port_of(&tunnel))]).await
}

async fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-k", "-sS", "--http1.1", "--max-time", "20"]).args(arguments);
    let output = output(command).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One of everything that a line carries.
async fn everything(master: &Master, agent: &str) {
    let site = Nginx::start().await;
    assert_eq!(page(master, agent, &site).await, "behind the agent\n");
    let ran = output(landline(master, &["exec", agent, "--shell", "echo out; exit 3"])).await;
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(3), &b"out\n"[..]), "{ran:?}");
    let id = open(&master.api(), agent, "read x; echo got $x; exit 4").await;
    let mut terminal = Terminal::attach(&master.api(), &id, "offset=0").await.unwrap();
    terminal.send(b"it\n").await;
    assert_eq!(terminal.exit().await["code"], 4);
    let folder = tempfile::tempdir().unwrap();
    let (here, there, back) = (folder.path().join("here"), folder.path().join("there"), folder.path().join("back"));
    let hash = content_file(&here, 24 << 20, 9);
    let (remote, shown) = (format!("{agent}:{}", there.display()), |path: &Path| path.display().to_string());
    let started = Instant::now();
    for (from, to) in [(shown(&here), remote.clone()), (remote.clone(), shown(&back))] {
        let (code, _, error) = copied(master, &[&from, &to]).await;
        assert_eq!(code, 0, "{error}");
    }
    println!("2 x 24 MiB over WSS in {:?}", started.elapsed());
    assert_eq!((hash_of(&there), hash_of(&back)), (hash, hash));
}

async fn online_over(master: &Master, agent: &str, carrier: &str) {
    eventually(SOON, &format!("{agent} is online over {carrier}"), || async {
        let seen = master.api().agent(agent).await;
        (seen["presence"] == "online" && seen["carrier"] == carrier).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_udp_blocked_from_the_start_a_tunnel_is_up_within_five_seconds() {
    let master = Master::start().await;
    let link = Link::start(public(&master), 3).await;
    link.block(Blocked::UDP);
    let mut agent = prepared(&master, "far", "auto").await;
    agent.through(&link);
    let site = Nginx::start().await;
    let started = Instant::now();
    agent.start();
    master.api().online("far", SOON).await;
    let body = page(&master, "far", &site).await;
    let took = started.elapsed();
    println!("UDP blocked from the start: enrolled, connected, and a page through a tunnel after {took:?}");
    assert_eq!(body, "behind the agent\n");
    online_over(&master, "far", "wss").await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    everything(&master, "far").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_through_nginx_with_its_own_certificate() {
    let master = Master::start().await;
    let nginx = Middle::nginx(master.public_port).await;
    let mut agent = prepared(&master, "behind", "wss").await;
    agent.set("MASTER_URL", &format!("wss://localhost:{}", nginx.port));
    agent.start();
    online_over(&master, "behind", "wss").await;
    // What a proxy claims about others is nobody's identity.
    let address = master.api().agent("behind").await["address"].as_str().unwrap_or_default().to_owned();
    assert!(!address.contains("192.0.2.7"), "{address}");
    everything(&master, "behind").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_through_caddy_with_its_own_certificate_and_another_path() {
    let master = Master::start().await;
    let caddy = Middle::caddy(master.public_port).await;
    let mut agent = prepared(&master, "behind", "wss").await;
    agent.set("MASTER_URL", &format!("wss://localhost:{}/agent/ws", caddy.port));
    agent.start();
    online_over(&master, "behind", "wss").await;
    everything(&master, "behind").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_through_an_http_proxy_that_asks_for_a_password() {
    const PASSWORD: &str = "canary-of-the-proxy";
    let master = Master::start().await;
    let proxy = Middle::http_proxy("joe", PASSWORD).await;
    let mut agent = prepared(&master, "office", "auto").await;
    let link = Link::start(public(&master), 3).await;
    link.block(Blocked::UDP);
    agent.through(&link);
    agent.set("HTTPS_PROXY", &format!("http://joe:wrong@127.0.0.1:{}", proxy.port));
    agent.start();
    eventually(SOON, "the agent says that the proxy refuses", || async {
        agent.log().contains("the proxy http://127.0.0.1").then_some(())
    })
    .await;
    agent.kill();
    agent.set("HTTPS_PROXY", &format!("http://joe:{PASSWORD}@127.0.0.1:{}", proxy.port));
    agent.start();
    online_over(&master, "office", "wss").await;
    everything(&master, "office").await;
    assert!(proxy.log().contains(&format!("CONNECT 127.0.0.1:{}", link.address.port())), "{}", proxy.log());
    assert!(!agent.log().contains(PASSWORD) && !agent.log().contains("wrong@"), "{}", agent.log());
    // With the master named as an exception the proxy is not asked.
    agent.kill();
    agent.set("NO_PROXY", "127.0.0.0/8");
    let before = proxy.log().matches("CONNECT").count();
    agent.start();
    online_over(&master, "office", "wss").await;
    assert_eq!(proxy.log().matches("CONNECT").count(), before);
}

/// Another master with a certificate that the outside trusts as much: the pin inside is what counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_leads_elsewhere_gets_no_secret() {
    let (master, other) = (Master::start().await, Master::start().await);
    let nginx = Middle::nginx(other.public_port).await;
    let mut agent = prepared(&master, "led", "wss").await;
    agent.set("MASTER_URL", &format!("wss://localhost:{}", nginx.port));
    agent.start();
    eventually(SOON, "the agent refuses", || async { agent.log().contains("pinned master").then_some(()) }).await;
    let (status, _) = other.api().call(Method::GET, "/agents/led", None).await;
    assert_eq!(status, 404);
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", other.metrics_port)).await.unwrap();
    let text = metrics.text().await.unwrap();
    assert!(text.contains("landline_auth_failures_total{kind=\"handshake\"}"), "{text}");
    assert!(!text.contains("landline_auth_failures_total{kind=\"enrol\"}"), "no request reached it: {text}");
}

/// The rules of who may have a line are asked inside a WebSocket as they are over UDP (SECURITY R5, R8).
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_and_a_suspended_agent_get_no_line_inside_a_websocket() {
    let master = Master::start().await;
    let mut first = prepared(&master, "twin", "wss").await;
    first.start();
    online_over(&master, "twin", "wss").await;
    let since = master.api().agent("twin").await["connected_at"].clone();
    let mut second = prepared(&master, "other", "wss").await;
    let state = |agent: &Agent| agent.folder.path().join("state");
    let copied = Command::new("cp").arg("-a").arg(state(&first)).arg(state(&second)).status().unwrap();
    assert!(copied.success());
    second.set("LANDLINE_JOIN_TOKEN", "");
    second.start();
    eventually(SOON, "the clone is told so", || async { second.log().contains("clone").then_some(()) }).await;
    assert_eq!(master.api().agent("twin").await["connected_at"], since, "the first keeps its line");
    second.kill();

    let change = Some(serde_json::json!({ "status": "suspended" }));
    assert!(master.api().call(Method::PATCH, "/agents/twin", change).await.0.is_success());
    master.api().presence("twin", "offline", Duration::from_secs(2)).await;
    first.kill();
    first.start();
    eventually(SOON, "a suspended agent is refused", || async {
        (first.log().matches("suspended").count() > 1).then_some(())
    })
    .await;
    assert_eq!(master.api().agent("twin").await["presence"], "offline");
}

/// What strangers hold: four places of one address, for ten seconds at most.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_hold_four_places_and_a_browser_none() {
    let master = Master::start().await;
    let port = master.public_port;
    let tls = certs::tls::outside_config().unwrap();
    let open = async || {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.clone());
        let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        let url = format!("wss://localhost:{port}{}", proto::net::carrier::websocket::PATH);
        tokio_tungstenite::client_async(url, stream).await
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(open().await.unwrap().0);
    }
    let started = Instant::now();
    let refused = open().await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    assert!(started.elapsed() >= Duration::from_secs(4), "it waited for a place: {:?}", started.elapsed());
    // Meanwhile the ten seconds of the first are soon over, and whoever waits comes in: a real agent of the same address.
    let mut agent = prepared(&master, "patient", "wss").await;
    agent.start();
    online_over(&master, "patient", "wss").await;
    println!("an agent came in {:?} after its address was full", started.elapsed());

    let url = format!("https://localhost:{port}{}", proto::net::carrier::websocket::PATH);
    let status = ["-o", "/dev/null", "-w", "%{http_code}", &url];
    assert_eq!(curl(&status).await, "426");
    assert_eq!(curl(&[&status[..], &["-H", "Origin: https://localhost"]].concat()).await, "403");
}
