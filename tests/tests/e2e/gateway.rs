//! A machine's own pages through the gateway, asked as a browser would ask: tickets, cookies, a login as firewalls have it,
//! and everything that flows.

use futures_util::{SinkExt as _, StreamExt as _};
use landline_tests::{
    firewall_site::{FirewallSite, PASSWORD, USER},
    gateway::Visitor,
    master::Master,
};
use reqwest::{Method, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::tungstenite::Message;

/// A site behind an agent, and a browser at it.
pub(crate) async fn opened(name: &str) -> (Master, landline_tests::agent::Agent, FirewallSite, Visitor) {
    let master = Master::start().await;
    let site = FirewallSite::start(name).await;
    let agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", site.port, "https").await;
    (master, agent, site, visitor)
}

/// Logs in as a person does, and gives the page's CSRF token.
pub(crate) async fn log_in(visitor: &Visitor) -> String {
    let first = visitor.get("/").await;
    assert_eq!((first.status().as_u16(), visitor.location(&first).as_str()), (302, "/login.php"));
    let (_, form) = visitor.page("/login.php").await;
    let csrf = form.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let body = format!("csrf={csrf}&user={USER}&password={PASSWORD}");
    let request = visitor.request(Method::POST, "/login.php").body(body);
    let request =
        request.header(header::ORIGIN, visitor.origin()).header(header::REFERER, visitor.origin() + "/login.php");
    let answer = visitor.send(request).await;
    assert_eq!((answer.status().as_u16(), visitor.location(&answer).as_str()), (302, "/index.php"));
    let (status, page) = visitor.page("/index.php").await;
    assert!(status == 200 && page.contains("Logged in"), "{status} {page}");
    csrf
}

#[tokio::test]
async fn a_ticket_opens_the_page_once_and_nothing_else_does() {
    let (master, _agent, _site, visitor) = opened("fw-1").await;
    let (status, page) = visitor.page("/login.php").await;
    assert!(status == 200 && page.contains("fw-1"), "{status} {page}");

    let path = format!("/tunnels/{}/ticket", visitor.tunnel);
    let ticket = master.api().post(&path, json!({})).await;
    let other = Visitor::outside(&master, &visitor.tunnel);
    assert_eq!(other.get(&other.path_of(&ticket)).await.status(), 303);
    assert_eq!(other.get(&other.path_of(&ticket)).await.status(), 403, "a ticket is good once");

    // Without a visit, a tunnel that exists and one that does not are the same.
    let outside = Visitor::outside(&master, &visitor.tunnel).page("/").await;
    let nowhere = Visitor::outside(&master, "0b8e6f3a-9c1d-4e5f-8a7b-6c5d4e3f2a1b").page("/").await;
    assert_eq!(outside.0, 403);
    assert_eq!(outside, nowhere);
    let mut stranger = Visitor::outside(&master, &visitor.tunnel);
    for host in ["x.gw.localhost", "gw.localhost", "a.b.gw.localhost:1", "evil.example"] {
        stranger.host = host.to_owned();
        assert_eq!(stranger.get("/").await.status(), 421, "{host}");
    }
    let narrow = json!({ "name": "reader", "permissions": ["tunnels:read"] });
    let reader = master.api().post("/tokens", narrow).await;
    let reader = master.api().with_token(reader["secret"].as_str().unwrap());
    assert_eq!(reader.refused(Method::POST, &path, Some(json!({}))).await.0, 403);
}

#[tokio::test]
async fn a_firewall_takes_the_gateway_for_a_browser_of_its_own_network() {
    let (_master, _agent, site, visitor) = opened("fw-1").await;
    let csrf = log_in(&visitor).await;
    let ajax = visitor.request(Method::GET, "/api/status").header("x-requested-with", "XMLHttpRequest");
    let ajax = visitor.send(ajax.header("x-csrftoken", &csrf)).await;
    assert_eq!(ajax.json::<Value>().await.unwrap()["status"], "ok");

    let request = visitor.request(Method::GET, "/headers").header(header::REFERER, visitor.origin() + "/index.php");
    let request = request
        .header("x-forwarded-host", "slug.gw")
        .header("te", "trailers")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let seen: Vec<(String, String)> = visitor.send(request).await.json().await.unwrap();
    let value = |name: &str| seen.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    assert_eq!(value("host").unwrap(), format!("127.0.0.1:{}", site.port));
    assert_eq!(value("referer").unwrap(), format!("https://127.0.0.1:{}/index.php", site.port));
    assert!(value("x-forwarded-host").is_none() && value("x-hop").is_none(), "{seen:?}");
    let cookies = value("cookie").unwrap();
    assert!(cookies.contains("PHPSESSID=") && !cookies.contains("landline"), "{cookies}");

    // A foreign origin is the target's to refuse; a sibling's is refused before.
    let forged = visitor.request(Method::POST, "/login.php").header(header::ORIGIN, "https://evil.example").body("x=y");
    let refused = visitor.send(forged).await;
    assert!(refused.text().await.unwrap().contains("HTTP_REFERER"));
    let sibling = format!("http://{}.gw.localhost", "f".repeat(32));
    let forged = visitor.request(Method::POST, "/login.php").header(header::ORIGIN, sibling).body("x=y");
    assert_eq!(visitor.send(forged).await.status(), 403);
    let framed = visitor.request(Method::GET, "/index.php").header("sec-fetch-site", "same-site");
    assert_eq!(visitor.send(framed).await.json::<Value>().await.unwrap()["code"], "foreign_origin");
}

#[tokio::test]
async fn nothing_of_the_target_reaches_beyond_its_origin() {
    let (_master, _agent, site, visitor) = opened("fw-1").await;
    let before = visitor.cookies.lock().unwrap().clone();
    let answer = visitor.get("/reach").await;
    let headers = answer.headers().clone();
    for name in ["strict-transport-security", "alt-svc", "x-hop", "nel", "report-to", "cross-origin-opener-policy"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["clear-site-data"], "\"cache\"");
    assert_eq!(headers["content-location"].to_str().unwrap(), visitor.origin() + "/there");
    assert_eq!(headers["refresh"].to_str().unwrap(), format!("9; url={}/there", visitor.origin()));
    let after = visitor.cookies.lock().unwrap().clone();
    assert_eq!(after.get("__Host-landline-visit"), before.get("__Host-landline-visit"));
    assert_eq!(after.get("shared").map(String::as_str), Some("1"));
    // The body is the target's, its own address in it included.
    let (_, page) = visitor.page("/own-name").await;
    let home = format!("https://127.0.0.1:{}", site.port);
    assert_eq!(page, format!("<a href=\"{home}/index.php\">{home}</a><script>const HOME = '{home}/';</script>"));
}

#[tokio::test]
async fn two_machines_pages_stay_logged_in_side_by_side() {
    let (master, _agent, _site, one) = opened("fw-1").await;
    let other_site = FirewallSite::start("fw-2").await;
    let _other = master.agent("home-2").await;
    let two = Visitor::open(&master, "home-2", other_site.port, "https").await;
    log_in(&one).await;
    log_in(&two).await;
    for (visitor, name) in [(&one, "fw-1"), (&two, "fw-2")] {
        let (status, page) = visitor.page("/index.php").await;
        assert!(status == 200 && page.contains(name) && page.contains("Logged in"), "{name} {status}");
        // What it sets for all of the parent domain comes without one (the visitor looks), and stays good at its own host.
        let seen: Vec<(String, String)> = visitor.get("/headers").await.json().await.unwrap();
        let cookies = &seen.iter().find(|(found, _)| found == "cookie").unwrap().1;
        assert_eq!(cookies.matches("everywhere=").count(), 1, "{cookies}");
        assert!(cookies.contains(&format!("everywhere={name}")), "{cookies}");
    }
    // A visit of one is worth nothing at the other.
    let stolen = Visitor::outside(&master, &two.tunnel);
    *stolen.cookies.lock().unwrap() = one.cookies.lock().unwrap().clone();
    assert_eq!(stolen.page("/").await.0, 403);
}

#[tokio::test]
async fn uploads_downloads_events_and_trailers_flow() {
    let (_master, _agent, _site, visitor) = opened("fw-1").await;
    let bytes: Vec<u8> = (0..20 << 20).map(|n: u32| (n >> 8) as u8).collect();
    let sha256 = hex::encode(Sha256::digest(&bytes));
    // The same bytes with their length told, and in pieces without.
    let pieces: Vec<_> = bytes.chunks(1 << 16).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    for body in [reqwest::Body::from(bytes.clone()), chunked] {
        let request = visitor.request(Method::POST, "/upload").header("expect", "100-continue").body(body);
        let told: Value = visitor.send(request).await.json().await.unwrap();
        assert_eq!((&told["length"], &told["sha256"]), (&json!(bytes.len()), &json!(sha256)));
    }
    let visitor = &visitor;
    let downloads = (1..=8_usize).map(|mib| async move {
        let size = mib << 20;
        let answer = visitor.get(&format!("/download?{size}")).await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], size.to_string().as_str());
        assert_eq!(answer.bytes().await.unwrap().len(), size);
    });
    futures_util::future::join_all(downloads).await;
    let mut events = visitor.get("/events").await;
    let first = events.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: fw-1 "), "{first:?}");
    assert_eq!(visitor.get("/trailers").await.text().await.unwrap(), "body");
    assert_eq!(visitor.location(&visitor.get("/relative").await), "landed");
}

#[tokio::test]
async fn a_websocket_ticks_and_echoes_and_takes_no_sibling() {
    let (master, _agent, _site, visitor) = opened("fw-1").await;
    let request = |origin: &str| visitor.websocket("/ws", origin);
    let (mut socket, _) = tokio_tungstenite::connect_async(request(&visitor.origin())).await.unwrap();
    socket.send(Message::text("echo this")).await.unwrap();
    let (mut ticks, mut echoes) = (0, 0);
    while ticks < 3 || echoes < 1 {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) if text.starts_with("tick") => ticks += 1,
            Message::Text(text) if text == "echo this" => echoes += 1,
            other => panic!("{other:?}"),
        }
    }
    let sibling = format!("http://{}.gw.localhost:{}", "f".repeat(32), master.internal_port);
    for foreign in [sibling.as_str(), "https://evil.example", "null"] {
        assert!(tokio_tungstenite::connect_async(request(foreign)).await.is_err(), "{foreign}");
    }
}
