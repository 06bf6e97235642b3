//! The dashboard in a real Chromium: every page as people see it, agents that say hostile things, a master that dies and
//! comes back, thousands of agents. What a page must show stands in `tests/browser`.

use std::{os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    browser::{Browser, pictures},
    master::Master,
    process::Process,
    puppet::{Puppet, PuppetLine, hello},
};
use proto::{
    control::{FromAgent, Heartbeat, HelloReply},
    stats::{Disk, Network, Stats},
};
use serde_json::{Value, json};

/// A browser on a machine that does other things too.
const STEP: Duration = Duration::from_secs(300);

/// What agents might call themselves.
const HOSTNAMES: &[&str] = &[
    "<img src=x onerror=window.__ran=1 data-planted>",
    "<script>window.__ran=2</script>",
    "\"><svg/onload=window.__ran=3 data-planted>",
    "javascript:window.__ran=4",
    "{{constructor.constructor('window.__ran=5')()}} ${window.__ran=6}",
    "</title><script>window.__ran=7</script>",
    "\u{202e}gnp.exe\u{200b}",
    "a&#60;b&lt;c",
];

/// What programs might print: markup, OSC 52 (clipboard), OSC 8 (links), OSC 0 (titles), queries.
const OUTPUT: &[u8] = b"<img src=x onerror=window.__ran=10 data-planted><script>window.__ran=11</script>\n\
    \x1b]52;c;c3RvbGVu\x07\x1b]8;;javascript:window.__ran=12\x07link\x1b]8;;\x07\x1b]0;stolen title\x07\x1b[38;2;255;0;0mred\x1b[0m\x1b[6n\n";

fn given(master: &Master) -> Value {
    json!({ "url": master.url(), "setup": master.setup_link() })
}

async fn hostile(master: &Master, folder: &Path, id: &str, hostname: &str) -> PuppetLine {
    let puppet = Puppet::enrolled(&master.add(id).await, folder).await;
    let mut claims = hello();
    claims.hostname = hostname.to_owned();
    claims.os = "<b data-planted>os</b>".to_owned();
    claims.agent_version = "<i data-planted>1</i>".to_owned();
    let (reply, mut line) = puppet.hello(&claims).await.expect("a line");
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    let disk =
        Disk { mount: "<img src=x onerror=window.__ran=20 data-planted>".to_owned(), used_bytes: 1, total_bytes: 2 };
    let network = Network { interface: "<u data-planted>".to_owned(), received_bytes: 0, sent_bytes: 0 };
    let stats = Stats { disks: vec![disk], networks: vec![network], memory_total_bytes: 4, ..Stats::default() };
    line.tell(&FromAgent::Heartbeat(Heartbeat { seq: 1, stats, rtt_us: 1 })).await;
    line.tell(&FromAgent::Policy { text: "# <script>window.__ran=21</script>".to_owned() }).await;
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_say_is_text_on_every_page() {
    let master = Master::start().await;
    let _real = master.agent("real").await;
    let folder = tempfile::tempdir().unwrap();
    let (mut lines, mut puppets) = (Vec::new(), Vec::new());
    for (number, hostname) in HOSTNAMES.iter().enumerate() {
        let id = format!("puppet-{number}");
        let keys = folder.path().join(&id);
        std::fs::create_dir(&keys).unwrap();
        lines.push(hostile(&master, &keys, &id, hostname).await);
        puppets.push(json!({ "id": id, "hostname": hostname }));
    }
    let files = tempfile::tempdir().unwrap();
    let output = files.path().join("output");
    std::fs::write(&output, OUTPUT).unwrap();
    std::fs::write(files.path().join("page.html"), "<script>window.__ran=30</script>").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"<img src=x onerror=window.__ran=31 data-planted>");
    std::fs::write(files.path().join(odd), "x").unwrap();

    let mut given = given(&master);
    given["puppets"] = Value::Array(puppets);
    given["output"] = json!(output);
    given["folder"] = json!(files.path());
    given["mount"] = json!("<img src=x onerror=window.__ran=20");
    let mut browser = Browser::start("hostile", &given);
    browser.until("end-shells", STEP).await;
    browser.go_on().await;
    browser.done(STEP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_left_open_goes_on_after_the_master_was_killed() {
    let mut master = Master::start().await;
    let _home = master.agent("home").await;
    let mut browser = Browser::start("restart", &given(&master));
    loop {
        match browser.told(STEP).await["word"].as_str() {
            Some("kill") => master.kill(),
            Some("start") => master.run().await,
            Some("done") => break,
            other => panic!("{other:?}"),
        }
        browser.go_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_fit_for_light_dark_and_phones() {
    let master = Master::start().await;
    let api = master.api();
    let mut agents = Vec::new();
    for (id, site) in [("home-1", "berlin"), ("home-2", "berlin"), ("office-fw", "paris")] {
        let created = api.post("/agents", json!({ "id": id, "labels": { "site": site } })).await;
        let mut agent = Agent::new(&created, Some(ALLOW_ALL));
        agent.start();
        agents.push(agent);
    }
    for id in ["home-1", "home-2", "office-fw"] {
        api.online(id, Duration::from_secs(20)).await;
    }
    api.post("/agents", json!({ "id": "warehouse", "labels": { "site": "oslo" } })).await;
    agents.pop().expect("three of them").process().terminate(Duration::from_secs(10)).await;
    api.presence("office-fw", "offline", Duration::from_secs(20)).await;
    api.open_tunnel("home-1", master.internal_port, "http").await;
    let key =
        json!({ "name": "branches", "uses": 20, "approval": true, "labels": { "site": "oslo" }, "allow": ["shell"] });
    let key = api.post("/enrolment-keys", key).await;
    let mut waits = Agent::new(&json!({ "join_token": key["key"], "id": "branch-fw" }), Some(ALLOW_ALL));
    waits.set("AGENT_ID", "branch-fw");
    waits.start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.txt"), vec![b'.'; 4711]).unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();

    let mut given = given(&master);
    given["pictures"] = json!(pictures());
    given["folder"] = json!(folder.path());
    given["more"] = json!([
        { "path": "/audit", "name": "audit", "text": "Verify the chain" },
        { "path": "/enrol", "name": "enrol", "text": "Waiting for approval" },
        { "path": "/people", "name": "people", "text": "First password" },
        { "path": "/settings", "name": "settings", "text": "Where you are signed in" },
    ]);
    Browser::start("pages", &given).done(STEP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_keyboard_on_many_at_once_and_over_a_shoulder() {
    let master = Master::start().await;
    let _agents = (master.agent("home").await, master.agent("second").await);
    let mut given = given(&master);
    given["agents"] = json!([{ "id": "home" }, { "id": "second" }]);
    Browser::start("hands", &given).done(STEP).await;
}

#[tokio::test]
async fn the_dashboard_is_small_and_terminal_and_charts_come_later() {
    let heard = Browser::start("bundle", &json!({})).done(STEP).await;
    println!("{}", heard[0]);
}

/// First data, filtering and long tasks with five thousand agents that beat and a hundred events a second; the figures are
/// printed. The goals: data within 1 s, a filter within 100 ms, no task above 200 ms. Master, five thousand lines and
/// browser share the machine, and perhaps with others: what the page itself computes is held to the goal in processor
/// time, and its middle in time by the clock; the worst by the clock is the machine's, and is only kept within reason.
#[tokio::test(flavor = "multi_thread")]
async fn alone_the_fleet_of_thousands_stays_smooth() {
    const AGENTS: u64 = 5_000;
    let master = Master::start().await;
    let mut sim = std::process::Command::new(landline_tests::binary("landline"));
    sim.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data());
    sim.args(["sim", "--agents", &AGENTS.to_string(), "--for", "600s"]);
    let log = master.folder.path().join("sim.log");
    let _sim = Process::start(sim, &log);
    let metrics = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    landline_tests::wait::eventually(Duration::from_secs(300), "the fleet is there", || async {
        let text = reqwest::get(&metrics).await.ok()?.text().await.ok()?;
        text.contains(&format!("landline_agents_connected{{carrier=\"udp\"}} {AGENTS}")).then_some(())
    })
    .await;
    let mut given = given(&master);
    given["agents"] = json!(AGENTS);
    let mut browser = Browser::start("fleet", &given);
    browser.until("flow", STEP).await;
    let flow = tokio::spawn(events(master.api(), AGENTS));
    browser.go_on().await;
    browser.until("still", STEP).await;
    flow.abort();
    browser.go_on().await;
    let heard = browser.done(STEP).await;
    let figures = heard.iter().find(|told| told["word"] == "figures").expect("figures");
    println!("{figures}");
    let all = |key: &str| {
        let mut all: Vec<_> = figures[key].as_array().expect(key).iter().map(|one| one.as_u64().expect(key)).collect();
        all.sort_unstable();
        all
    };
    assert!(figures["rate"].as_u64().expect("rate") >= 70, "{figures}");
    assert!(all("firsts")[0] <= 1_000, "{figures}");
    let filters = all("filters");
    assert!(filters[filters.len() / 2] <= 200 && filters.iter().all(|one| *one <= 1_000), "{figures}");
    assert!(figures["costliest"]["cpu"].as_u64().expect("cpu") <= 200, "{figures}");
    assert!(figures["longest"]["wall"].as_u64().expect("wall") <= 2_000, "{figures}");
}

/// A little more than a hundred changes a second for as long as it is let run; what a busy moment held up follows at once.
async fn events(api: landline_tests::api::Api, agents: u64) {
    const AT_ONCE: usize = 16;
    let mut tick = tokio::time::interval(Duration::from_millis(9));
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0..12_000u64 {
        tick.tick().await;
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        let path = format!("/agents/sim-{}", number % agents + 1);
        let labels = json!({ "labels": { "round": (number % 7).to_string() } });
        let request = api.request(reqwest::Method::PATCH, &path).json(&labels);
        under_way.spawn(async move { request.send().await?.bytes().await });
    }
}
