//! Targets that misbehave: each gets a page that says what is wrong, and programs get the same as JSON.

use std::time::Duration;

use landline_tests::{firewall_site::FirewallSite, gateway::Visitor, master::Master, peers::OldTls};
use reqwest::Method;
use serde_json::{Value, json};

async fn code(visitor: &Visitor, path: &str) -> String {
    let answer = visitor.get(path).await;
    let status = answer.status().as_u16();
    let told: Value = answer.json().await.unwrap_or_else(|error| panic!("{path} {status}: {error}"));
    assert_eq!(told["status"], status, "{path}");
    told["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_kind_of_broken_answer_has_its_page() {
    let mut master = Master::prepare("gateway.first_byte_s = 2\n", "");
    master.run().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", site.port, "https").await;
    for (path, expected, status, words) in [
        ("/garbage", "target_broken", 502, "cannot be read"),
        ("/hangup", "target_broken", 502, "cannot be read"),
        ("/huge-header", "header_too_large", 502, "longer than the gateway takes"),
        ("/never", "target_silent", 504, "does not answer"),
    ] {
        assert_eq!(code(&visitor, path).await, expected, "{path}");
        let (told, page) = visitor.page(path).await;
        assert!(told == status && page.contains(words) && page.contains("<h1>"), "{path}: {told} {page}");
    }
    // One that breaks off in its header, on a connection of its own.
    let fresh = Visitor::enter(&master, &visitor.tunnel).await;
    assert_eq!(fresh.page("/half").await.0, 502);
    // One that breaks off in its body is broken off, never whole.
    assert!(visitor.get("/cut").await.bytes().await.is_err());
    assert_eq!(visitor.page("/login.php").await.0, 200, "the next page is fine");
}

#[tokio::test]
async fn redirects_that_lead_out_of_the_tunnel_are_told() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", site.port, "https").await;
    let (status, page) = visitor.page("/to-http").await;
    assert!(status == 502 && page.contains(&format!("127.0.0.1:{} --scheme http --web", site.port)), "{page}");
    let (status, page) = visitor.page("/to-port").await;
    assert!(status == 502 && page.contains("landline tunnel open AGENT 127.0.0.1:4443 --scheme https --web"), "{page}");
    let (status, page) = visitor.page("/to-other").await;
    assert!(status == 502 && page.contains("https://other.example/&lt;script&gt;"), "{page}");
    // A script is told what the target said.
    let answer = visitor.get("/to-other").await;
    assert_eq!(answer.headers()["location"], "https://other.example/<script>");
    let mut last = 0;
    for _ in 0..20 {
        last = visitor.page("/loop").await.0;
        if last != 302 {
            break;
        }
    }
    assert_eq!(last, 508);
    assert_eq!(visitor.page("/loop").await.0, 302, "told once, then tried again");
}

#[tokio::test]
async fn another_certificate_is_a_warning_until_somebody_trusts_it() {
    let master = Master::start().await;
    let site = FirewallSite::start("fw-1").await;
    let (port, before) = (site.port, site.sha256.clone());
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", port, "https").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    let path = format!("/tunnels/{}/pin", visitor.tunnel);
    assert_eq!(master.api().get(&path).await["sha256"], before.as_str());

    drop(site);
    let site = FirewallSite::start_on("fw-1", port).await;
    let fresh = Visitor::enter(&master, &visitor.tunnel).await;
    let (status, page) = fresh.page("/login.php").await;
    assert!(status == 502 && page.contains("another certificate") && page.contains(&site.sha256), "{page}");
    assert_eq!(code(&fresh, "/login.php").await, "certificate_changed");
    let pin = master.api().get(&path).await;
    assert_eq!((&pin["sha256"], &pin["offered_sha256"]), (&json!(before), &json!(site.sha256)));
    assert_eq!(master.api().refused(Method::POST, &path, Some(json!({ "sha256": "x" }))).await.1, "invalid");
    let pin = master.api().post(&path, json!({ "sha256": site.sha256 })).await;
    assert_eq!((&pin["sha256"], &pin["offered_sha256"]), (&json!(site.sha256), &Value::Null));
    assert_eq!(fresh.page("/login.php").await.0, 200);
}

#[tokio::test]
async fn a_target_that_is_gone_and_a_tunnel_that_is_over_say_so() {
    let master = Master::start().await;
    let site = FirewallSite::start_plain("fw-1").await;
    let port = site.port;
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", port, "http").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    drop(site);
    let fresh = Visitor::enter(&master, &visitor.tunnel).await;
    let (status, page) = fresh.page("/").await;
    assert!(status == 502 && page.contains("refused the connection"), "{status} {page}");
    assert_eq!(code(&fresh, "/").await, "target_refused");

    let path = format!("/tunnels/{}", visitor.tunnel);
    master.api().call(Method::DELETE, &path, None).await;
    let (status, page) = visitor.page("/").await;
    assert!(status == 410 && page.contains("closed_by_user"), "{status} {page}");
    let ticket = master.api().refused(Method::POST, &format!("{path}/ticket"), Some(json!({}))).await;
    assert_eq!(ticket, (409, "tunnel_closed".to_owned()));
}

#[tokio::test]
async fn tls_that_is_too_old_is_named() {
    let master = Master::start().await;
    let old = OldTls::start().await;
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", old.port, "https").await;
    let (status, page) = visitor.page("/").await;
    assert!(status == 502 && page.contains("TLS 1.1 at best") && page.contains("too old"), "{status} {page}");
    assert_eq!(code(&visitor, "/").await, "tls_too_old");
}

#[tokio::test]
async fn an_expired_tunnel_says_so_where_its_page_was() {
    let master = Master::start_with("", "ttl_s = 3").await;
    let site = FirewallSite::start("fw-1").await;
    let _agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", site.port, "https").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    master.api().tunnel_becomes(&visitor.tunnel, "expired", Duration::from_secs(10)).await;
    let (status, page) = visitor.page("/login.php").await;
    assert!(status == 410 && page.contains("Its time ran out"), "{status} {page}");
}

/// A target without TLS behind a tunnel that expects it, and the other way round.
#[tokio::test]
async fn the_wrong_scheme_is_told() {
    let master = Master::start_with("", "pending_timeout_s = 2").await;
    let (plain, tls) = (FirewallSite::start_plain("fw-1").await, FirewallSite::start("fw-2").await);
    let _agent = master.agent("home-1").await;
    let tunnel = master.api().open_tunnel("home-1", plain.port, "https").await;
    assert_ne!(tunnel["status"], "active", "the probe found no TLS: {tunnel}");
    let visitor = Visitor::open(&master, "home-1", tls.port, "http").await;
    let (status, page) = visitor.page("/").await;
    assert!(status == 502 && page.contains("cannot be read"), "{status} {page}");
}
