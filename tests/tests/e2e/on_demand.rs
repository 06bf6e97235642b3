//! On-demand agents through the real binaries: what waits for one is done at its next visit, it leaves when nothing needs it
//! any more, and its visits leave no trace but a count.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::{Api, port_of},
    cli::{landline, output},
    liar::now_ms,
    master::Master,
    terminal::{Terminal, open},
    wait::eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// Around the longest interval: a handshake, the look that finds nothing more to do, two busy cores.
const MARGIN: Duration = Duration::from_millis(2_500);

/// An agent that looks in so often and lingers so long, seconds; on its first visit already.
async fn visitor(master: &Master, id: &str, every_s: u64, linger_s: u64) -> Agent {
    let mut agent = Agent::new(&master.add(id).await, Some(ALLOW_ALL));
    agent.set("LANDLINE_MODE", "on-demand");
    agent.set("LANDLINE_CHECK_INTERVAL_S", &every_s.to_string());
    agent.set("LANDLINE_LINGER_S", &linger_s.to_string());
    agent.start();
    master.api().presence(id, "reachable", SOON).await;
    agent
}

/// Visits without work so far.
async fn visits(master: &Master) -> f64 {
    let url = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let counts = text.lines().filter(|line| line.starts_with("landline_agent_visits_total{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits for so many more of them.
async fn visited(master: &Master, more: f64) {
    let before = visits(master).await;
    eventually(Duration::from_secs(30), "it looks in again", || async {
        (visits(master).await >= before + more).then_some(())
    })
    .await;
}

async fn rows(api: &Api, path: &str) -> usize {
    api.get(path).await["items"].as_array().expect("a list").len()
}

/// What a target says to whoever connects and speaks.
fn answering_target() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // Probes say nothing and get nothing.
            std::thread::spawn(move || {
                if connection.read_exact(&mut [0; 4]).is_ok() {
                    let _ = connection.write_all(b"pong");
                }
            });
        }
    });
    port
}

fn ask(port: u16) -> [u8; 4] {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_waits_for_the_next_visit_and_the_agent_leaves_when_it_is_over() {
    const EVERY: Duration = Duration::from_secs(3);
    const LINGER: Duration = Duration::from_secs(2);
    let master = Master::start().await;
    let _agent = visitor(&master, "cabin", EVERY.as_secs(), LINGER.as_secs()).await;
    let api = master.api();
    let asked = Instant::now();
    let tunnel = api.open_tunnel("cabin", answering_target(), "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let waited = asked.elapsed();
    println!("active after {waited:?} at an interval of {EVERY:?}");
    assert!(waited <= EVERY.mul_f64(1.1) + MARGIN, "{waited:?}");
    assert_eq!(&ask(port_of(&tunnel)), b"pong");
    let shown = api.agent("cabin").await;
    assert_eq!((&shown["presence"], &shown["connection_mode"]), (&json!("online"), &json!("on-demand")), "{shown}");
    // Longer than it lingers: an open tunnel keeps it although nothing flows.
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(api.agent("cabin").await["presence"], "online");
    assert_eq!(&ask(port_of(&tunnel)), b"pong");
    let id = tunnel["id"].as_str().unwrap();
    let (status, _) = api.call(Method::DELETE, &format!("/tunnels/{id}"), None).await;
    assert!(status.is_success());
    let closed = Instant::now();
    api.presence("cabin", "reachable", LINGER + MARGIN).await;
    assert!(closed.elapsed() >= LINGER.mul_f64(0.9), "it left {:?} after the tunnel", closed.elapsed());
    master.sockets_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_without_work_leave_a_count_and_nothing_else() {
    let master = Master::start().await;
    let _agent = visitor(&master, "quiet", 1, 0).await;
    let api = master.api();
    visited(&master, 1.0).await;
    let (timeline, audit) = (rows(&api, "/agents/quiet/timeline").await, rows(&api, "/audit").await);
    let before = api.agent("quiet").await;
    visited(&master, 4.0).await;
    let after = api.agent("quiet").await;
    assert_eq!((rows(&api, "/agents/quiet/timeline").await, rows(&api, "/audit").await), (timeline, audit));
    assert_ne!(before["last_seen"], after["last_seen"]);
    assert_eq!((&after["presence"], &after["visits_every_s"]), (&json!("reachable"), &json!(1.0)), "{after}");
    assert!(after["policy"].as_str().is_some_and(|policy| policy.contains("allow_all")), "{after}");
    assert_eq!(after["status"], "active");
    let list = output(landline(&master, &["agents", "ls"])).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("on-demand, within 1 s"), "{list}");
}

/// It leaves as soon as it may, so that each of these finds it away, or just leaving.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_kind_wait_for_the_next_visit() {
    let master = Master::start().await;
    let agent = visitor(&master, "brief", 1, 0).await;
    let api = master.api();
    for round in 0..4 {
        let done = output(landline(&master, &["exec", "brief", "--", "echo", "done"])).await;
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(0), &b"done\n"[..]), "{round}: {done:?}");
        let command = json!({ "id": format!("c{round}"), "type": "COMMAND", "service": "system", "action": "getInfo",
            "timestamp": now_ms() / 1000 });
        let answer = api.post("/agents/brief/commands", command).await;
        assert_eq!(answer["status"], "success", "{answer}");
        let local = agent.folder.path().join(format!("local{round}"));
        std::fs::write(&local, b"content").unwrap();
        let remote = agent.folder.path().join(format!("remote{round}"));
        let copy = ["cp", local.to_str().unwrap(), &format!("brief:{}", remote.display())];
        let copied = output(landline(&master, &copy)).await;
        assert!(copied.status.success(), "{round}: {copied:?}");
        assert_eq!(std::fs::read(&remote).unwrap(), b"content");
    }
    api.presence("brief", "reachable", SOON).await;
    let shell = open(&api, "brief", "read line; echo \"<$line>\"").await;
    let mut terminal = Terminal::attach(&api, &shell, "offset=0").await.unwrap();
    // Longer than it lingers: an open shell keeps it although nobody types.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.agent("brief").await["presence"], "online");
    terminal.send(b"still here\n").await;
    terminal.until_text("<still here>").await;
    api.presence("brief", "reachable", SOON).await;
}

/// Gone between two visits: for a while nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_agent_that_does_not_come_is_told_so() {
    let master = Master::start().await;
    let mut agent = visitor(&master, "gone", 15, 0).await;
    let api = master.api();
    agent.kill();
    let asked = Instant::now();
    let waiting = async {
        let refused = api.refused(Method::POST, "/agents/gone/exec", Some(json!({ "shell": "true" }))).await;
        (refused, asked.elapsed())
    };
    let ((refused, waited), tunnel) = tokio::join!(waiting, api.open_tunnel("gone", 9, "tcp"));
    assert_eq!(refused, (409, "agent_offline".to_owned()));
    assert!((29..34).contains(&waited.as_secs()), "{waited:?}");
    let over = api.tunnel_becomes(tunnel["id"].as_str().unwrap(), "timeout", SOON).await;
    assert_eq!(over["closed_reason"], "agent_offline", "{over}");
    api.presence("gone", "offline", SOON).await;
    let asked = Instant::now();
    let command = output(landline(&master, &["exec", "gone", "--", "true"])).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "nobody is expected any more: {:?}", asked.elapsed());
    assert_eq!(command.status.code(), Some(255), "{command:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_agent_is_refused_its_visits() {
    let master = Master::start().await;
    let _agent = visitor(&master, "bad", 1, 0).await;
    let api = master.api();
    let (status, _) = api.call(Method::PATCH, "/agents/bad", Some(json!({ "status": "suspended" }))).await;
    assert!(status.is_success());
    assert_eq!(api.agent("bad").await["presence"], "offline");
    let refused = eventually(SOON, "its visit is refused", || async {
        let timeline = api.get("/agents/bad/timeline").await;
        timeline["items"].as_array()?.iter().find(|event| event["kind"] == "agent.refused").cloned()
    })
    .await;
    assert_eq!(refused["reason"], "suspended", "{refused}");
    let before = visits(&master).await;
    let (status, code) = api.refused(Method::POST, "/agents/bad/exec", Some(json!({ "shell": "true" }))).await;
    assert_eq!((status, code.as_str()), (409, "agent_offline"));
    // Two intervals: a visit that is refused is no visit.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!((visits(&master).await - before).abs() < f64::EPSILON);
    assert_eq!(api.agent("bad").await["presence"], "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_standing_line_is_not_affected() {
    let master = Master::start().await;
    let _visitor = visitor(&master, "comes", 1, 0).await;
    let mut agent = master.agent("stays").await;
    let api = master.api();
    let epoch = |agent: &Value| agent["connected_at"].clone();
    let before = api.agent("stays").await;
    visited(&master, 3.0).await;
    let after = api.agent("stays").await;
    assert_eq!(epoch(&before), epoch(&after));
    assert_eq!((&after["presence"], &after["connection_mode"]), (&json!("online"), &json!("persistent")), "{after}");
    assert_eq!(after["visits_every_s"], Value::Null);
    agent.process().terminate(SOON).await;
    api.presence("stays", "offline", SOON).await;
    let asked = Instant::now();
    let refused = api.refused(Method::POST, "/agents/stays/exec", Some(json!({ "shell": "true" }))).await;
    assert_eq!(refused, (409, "agent_offline".to_owned()));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// The panel sees that somebody waits, while the agent is away and until it came.
#[tokio::test(flavor = "multi_thread")]
async fn quickconnect_check_says_that_somebody_waits() {
    let master = Master::start().await;
    let _agent = visitor(&master, "fw", 5, 0).await;
    let api = master.api();
    api.call(Method::PATCH, "/agents/fw", Some(json!({ "external_id": 42 }))).await;
    let check = || async {
        let url = format!("{}/api/quickconnect_check.php?firewall_id=42", master.url());
        let answer = reqwest::Client::new().get(url).bearer_auth(&api.token).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["has_requests"].clone()
    };
    visited(&master, 1.0).await;
    assert_eq!(check().await, false);
    let exec = tokio::spawn(output(landline(&master, &["exec", "fw", "--", "true"])));
    eventually(Duration::from_secs(4), "somebody waits", || async { (check().await == true).then_some(()) }).await;
    assert_eq!(exec.await.unwrap().status.code(), Some(0));
    api.presence("fw", "reachable", SOON).await;
    assert_eq!(check().await, false);
    let target = json!({ "host": "127.0.0.1", "port": answering_target(), "scheme": "tcp" });
    let tunnel = api.post("/tunnels", json!({ "agent_id": "fw", "target": target })).await;
    assert_eq!((&tunnel["status"], check().await), (&json!("pending"), json!(true)));
    api.tunnel_becomes(tunnel["id"].as_str().unwrap(), "active", SOON).await;
    assert_eq!(check().await, false);
}
