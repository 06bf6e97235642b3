//! The database is gone, or its disk is full, with sessions and connections open: callers are told at once, what runs goes
//! on, nothing is done that cannot be recorded, and all is well soon after it is back (SECURITY, reliability figures).

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::Agent,
    api::{Api, port_of},
    confined::{seen_by, small_disk},
    link::Link,
    master::Master,
    peers::echo,
    postgres::Postgres,
    soak,
    terminal::{Terminal, open},
    wait::eventually,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// What is promised to callers, and how soon all is well again.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// What is open while the database is not.
struct World {
    master: Master,
    agent: Agent,
    terminal: Terminal,
    socket: TcpStream,
    tunnel: u16,
    ran: PathBuf,
}

impl World {
    async fn around(master: Master) -> Self {
        let agent = master.agent("steady").await;
        let api = master.api();
        let shell = open(&api, "steady", "stty -opost; while read x; do echo heard $x; done").await;
        let terminal = Terminal::attach(&api, &shell, "offset=0").await.unwrap();
        let tunnel = port_of(&api.open_tunnel("steady", echo(), "tcp").await);
        let socket = TcpStream::connect(("127.0.0.1", tunnel)).unwrap();
        let ran = agent.folder.path().join("ran");
        Self { master, agent, terminal, socket, tunnel, ran }
    }

    /// The shell, the open connection, and a new one.
    async fn lives(&mut self, word: &str) {
        self.terminal.send(format!("{word}\n").as_bytes()).await;
        self.terminal.until_text(&format!("heard {word}")).await;
        assert!(self.terminal.closed.is_none(), "the shell was closed: {:?}", self.terminal.closed);
        says(&mut self.socket, word);
        says(&mut TcpStream::connect(("127.0.0.1", self.tunnel)).unwrap(), word);
    }

    fn run(&self) -> Value {
        json!({ "shell": format!("echo ran >> {}", self.ran.display()) })
    }

    /// One round of what cannot be recorded; the slowest answer.
    async fn refuses_writes(&self) -> Duration {
        let api = self.master.api();
        let mut slowest = Duration::ZERO;
        for (path, body) in [
            ("/agents", json!({ "id": "late" })),
            ("/tokens", json!({ "name": "late", "permissions": ["agents:read"] })),
            ("/agents/steady/exec", self.run()),
        ] {
            slowest = slowest.max(told(&api, Method::POST, path, Some(body)).await);
        }
        assert!(!self.ran.exists(), "an exec ran that could not be recorded");
        slowest
    }

    /// How long after `returned` everything is as it was.
    async fn recovered(&mut self, returned: Instant) -> Duration {
        let api = self.master.api();
        eventually(SOON, "the master writes again", || async {
            let (status, answer) = api.call(Method::POST, "/agents", Some(json!({ "id": "late" }))).await;
            assert!(status == StatusCode::CREATED || answer["code"] == "store_unavailable", "{status} {answer}");
            (status == StatusCode::CREATED).then_some(())
        })
        .await;
        let said = api.request(Method::POST, "/agents/steady/exec").json(&self.run()).send().await.unwrap();
        assert!(said.text().await.unwrap().contains("\"code\":0"));
        let took = returned.elapsed();
        assert_eq!(std::fs::read_to_string(&self.ran).unwrap(), "ran\n");
        self.lives("afterwards").await;
        assert!(!self.master.log().contains("panicked"));
        let timeline = api.get("/agents/steady/timeline?limit=200").await.to_string();
        assert!(!timeline.contains("agent.offline"), "the line was lost: {timeline}");
        took
    }
}

fn says(socket: &mut TcpStream, text: &str) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back).unwrap();
    assert_eq!(back, text.as_bytes());
}

/// That a call is told that the database cannot be used, and how long that took.
async fn told(api: &Api, method: Method, path: &str, body: Option<Value>) -> Duration {
    let started = Instant::now();
    let refused = api.refused(method, path, body).await;
    let took = started.elapsed();
    assert_eq!(refused, (503, "store_unavailable".into()), "{path}");
    took
}

/// Whoever was not known before the database went: a token it never saw, and one that was revoked.
async fn nobody_new_gets_in(fresh: &Api, revoked: &Api) -> Duration {
    let took = told(fresh, Method::GET, "/agents/steady", None).await;
    let (status, _) = revoked.call(Method::GET, "/agents/steady", None).await;
    assert!(matches!(status.as_u16(), 401 | 503), "a revoked token reads: {status}");
    took
}

async fn token(api: &Api, name: &str) -> (String, Api) {
    let made = api.post("/tokens", json!({ "name": name, "permissions": ["agents:read"] })).await;
    (made["id"].as_str().unwrap().to_owned(), api.with_token(made["secret"].as_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_database_that_is_away_ends_nothing_and_lets_nobody_in() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let link = Link::start(([127, 0, 0, 1], server.port).into(), 1).await;
    let url = format!("postgres://postgres@{}/postgres", link.address);
    let master = Master::start_with(&format!("database = {url:?}"), "").await;
    let mut world = World::around(master).await;
    let api = world.master.api();
    let (_, fresh) = token(&api, "fresh").await;
    let (id, revoked) = token(&api, "revoked").await;
    assert!(revoked.call(Method::GET, "/agents/steady", None).await.0.is_success());
    assert_eq!(api.call(Method::DELETE, &format!("/tokens/{id}"), None).await.0, StatusCode::NO_CONTENT);
    world.lives("before").await;

    link.cut();
    let (away, started) = (soak::count(Duration::from_secs(5), Duration::from_secs(60)), Instant::now());
    let (mut slowest, mut rounds) = (Duration::ZERO, 0);
    while started.elapsed() < away {
        slowest = slowest.max(world.refuses_writes().await);
        slowest = slowest.max(nobody_new_gets_in(&fresh, &revoked).await);
        world.lives(&format!("round-{rounds}")).await;
        rounds += 1;
    }
    link.restore();
    let recovered = world.recovered(Instant::now()).await;
    println!(
        "database away for {away:?}: {rounds} rounds, the slowest 503 after {slowest:?}, well again after {recovered:?}"
    );
    assert!(slowest <= TOLD_WITHIN, "{slowest:?}");
    assert!(recovered <= RECOVERED_WITHIN, "{recovered:?}");
    assert_eq!(fresh.agent("steady").await["presence"], "online");
    world.agent.process().terminate(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_full_disk_under_the_database_ends_nothing() {
    const DISK: u64 = 24 << 20;
    let mut master = Master::prepare("", "");
    let data = master.data();
    std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    master.confine(small_disk(&data, DISK));
    master.spawn();
    master.ready(SOON).await;
    // The test's own view of the folder is the one beneath the disk: the token is needed there.
    let seen = seen_by(master.process().pid(), &data);
    std::fs::copy(seen.join("admin.token"), data.join("admin.token")).unwrap();
    let mut world = World::around(master).await;
    world.lives("before").await;

    let rest = seen.join("rest");
    assert!(std::fs::write(&rest, vec![1; DISK as usize]).is_err(), "the disk is full");
    let (away, started) = (soak::count(Duration::from_secs(5), Duration::from_secs(60)), Instant::now());
    let (mut slowest, mut rounds) = (Duration::ZERO, 0);
    while started.elapsed() < away {
        slowest = slowest.max(world.refuses_writes().await);
        assert_eq!(world.master.api().agent("steady").await["presence"], "online", "reading needs no room");
        world.lives(&format!("round-{rounds}")).await;
        rounds += 1;
    }
    std::fs::remove_file(&rest).unwrap();
    let recovered = world.recovered(Instant::now()).await;
    println!(
        "disk full for {away:?}: {rounds} rounds, the slowest 503 after {slowest:?}, well again after {recovered:?}"
    );
    assert!(slowest <= TOLD_WITHIN, "{slowest:?}");
    assert!(recovered <= RECOVERED_WITHIN, "{recovered:?}");
}
