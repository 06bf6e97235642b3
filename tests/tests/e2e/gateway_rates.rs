//! What the gateway costs: the time to the first byte of a target's page, and requests per second beside an nginx that
//! proxies the same site over the same loopback in the same run: rounds of both, one after the other, medians.

use std::{process::Command, time::Instant};

use landline_tests::{
    agent::Agent,
    gateway::Visitor,
    master::Master,
    median,
    peers::{Nginx, NginxProxy},
    soak,
    tools::tool,
};

const ROUNDS: usize = 7;
const ROUND: &str = "2s";
const CONNECTIONS: &str = "16";
/// The page of a firewall, more or less, bytes.
const PAGE: usize = 8 * 1024;
const FIRST_BYTES: usize = 200;

/// Requests per second that wrk gets answered with 200, over connections that it keeps.
fn rate(url: &str, headers: &[String]) -> f64 {
    let mut command = Command::new(tool("wrk"));
    command.args(["-t1", "-c", CONNECTIONS, "-d", ROUND]).arg(url);
    for header in headers {
        command.args(["-H", header]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap_or_else(|| panic!("{said}"));
    rate.trim().parse().unwrap()
}

/// Milliseconds until the first byte of the page is there.
async fn first_byte(visitor: &Visitor) -> f64 {
    let started = Instant::now();
    let mut answer = visitor.get("/page").await;
    assert!(answer.status().is_success() && answer.chunk().await.unwrap().is_some());
    let took = started.elapsed();
    while answer.chunk().await.unwrap().is_some() {}
    took.as_secs_f64() * 1000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_the_first_byte_of_a_page_is_there_at_once() {
    let (master, _agent, _site, visitor) = opened().await;
    let mut kept = Vec::new();
    for _ in 0..FIRST_BYTES {
        kept.push(first_byte(&visitor).await);
    }
    // A visit of its own dials and shakes hands anew.
    let mut fresh = Vec::new();
    for _ in 0..FIRST_BYTES / 4 {
        let visitor = Visitor::enter(&master, &visitor.tunnel).await;
        fresh.push(first_byte(&visitor).await);
    }
    let (kept, fresh) = (median(&kept), median(&fresh));
    println!("first byte of a page: median {kept:.1} ms, of a visit's first page {fresh:.1} ms");
    assert!(kept <= 30.0 && fresh <= 30.0, "{kept} {fresh}");
}

/// Half as fast as nginx in the release build, which `make soak` takes; what `make test` builds is not optimised.
#[tokio::test(flavor = "multi_thread")]
async fn alone_the_gateway_keeps_up_with_nginx() {
    let (master, _agent, site, visitor) = opened().await;
    let nginx = NginxProxy::start(&site).await;
    let ours = (
        format!("http://127.0.0.1:{}/page", master.internal_port),
        vec![format!("Host: {}", visitor.host), format!("Cookie: {}", visitor.cookie_header())],
    );
    let theirs = (format!("http://127.0.0.1:{}/page", nginx.port), vec![]);
    let measure = |(url, headers): &(String, Vec<String>)| rate(url, headers);
    // Each opens its connections before it is measured.
    let _ = (measure(&ours), measure(&theirs));
    let (mut gateway, mut proxy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        gateway.push(measure(&ours));
        proxy.push(measure(&theirs));
    }
    println!("rounds: gateway {gateway:.0?}, nginx {proxy:.0?}");
    let (gateway, proxy) = (median(&gateway), median(&proxy));
    println!("requests per second: gateway {gateway:.0}, nginx {proxy:.0}, ratio {:.2}", gateway / proxy);
    assert!(gateway >= soak::count(0.1, 0.5) * proxy, "{gateway} {proxy}");
}

async fn opened() -> (Master, Agent, Nginx, Visitor) {
    let master = Master::start().await;
    let site = Nginx::start().await;
    std::fs::write(site.www().join("page"), "firewall ".repeat(PAGE / 9)).unwrap();
    let agent = master.agent("home-1").await;
    let visitor = Visitor::open(&master, "home-1", site.port, "https").await;
    (master, agent, site, visitor)
}
