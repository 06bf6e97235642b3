//! A master that is stopped with work under way: new work is refused at once, what is open has its time, the process is
//! gone in time, and nothing that was accepted is lost (SECURITY, reliability figures).

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Child,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::{Api, port_of},
    cli::{Cli, landline},
    copying::{content_file, cp, hash_of, parts_in},
    link::{Link, Shape},
    master::Master,
    ndjson::Lines,
    peers::echo,
    soak,
    terminal::{Terminal, open},
    wait::{eventually, until},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const GRACE_S: u64 = 3;
/// What is promised beyond the grace.
const GONE_WITHIN: Duration = Duration::from_secs(GRACE_S + 2);
const SOON: Duration = Duration::from_secs(20);
/// New work hears no within this, beside everything that goes on.
const AT_ONCE: Duration = Duration::from_secs(1);

fn says(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back)?;
    assert_eq!(back, text.as_bytes());
    Ok(())
}

/// What a caller knows of the short execs that it asked for one after the other.
#[derive(Default)]
struct Asked {
    /// The master said `started`.
    accepted: Vec<(usize, String)>,
    /// It said no.
    refused: Vec<usize>,
    /// The connection ended without a word on it.
    unknown: usize,
}

impl Asked {
    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.refused.extend(other.refused);
        self.unknown += other.unknown;
    }
}

/// Callers that ask for short execs at once.
const CALLERS: usize = 6;

/// Asks for one short exec after the other until the master is gone; each leaves its number in `marks`.
async fn short_execs(api: Api, marks: std::path::PathBuf, first: usize) -> Asked {
    let mut asked = Asked::default();
    for number in first.. {
        let shell = format!("sleep 0.2; echo {number} >> {}", marks.display());
        let sent = api.request(Method::POST, "/agents/desk/exec").json(&json!({ "shell": shell })).send().await;
        match sent {
            Ok(response) if response.status() == StatusCode::OK => match Lines::new(response).next().await {
                Some(started) if started["type"] == "started" => {
                    asked.accepted.push((number, started["exec_id"].as_str().unwrap().to_owned()));
                }
                Some(_) | None => asked.unknown += 1,
            },
            Ok(_) => asked.refused.push(number),
            Err(error) if error.is_connect() => return asked,
            Err(_) => asked.unknown += 1,
        }
        // A caller's pace.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    asked
}

/// Everything that is under way when the master is stopped.
struct World {
    master: Master,
    agent: Agent,
    exec: String,
    shell: String,
    socket: TcpStream,
    tunnel_port: u16,
    direct: TcpStream,
    _forward: Cli,
    copy: Child,
    file: tempfile::TempDir,
    link: Link,
}

const COUNT: &str = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 7";

impl World {
    async fn new(carrier: &str) -> Self {
        let master = Master::start_with(&format!("drain_s = {GRACE_S}"), "").await;
        let link = Link::start(([127, 0, 0, 1], master.public_port).into(), 7).await;
        let mut agent = Agent::new(&master.add("desk").await, Some(ALLOW_ALL));
        agent.set("LANDLINE_CARRIER", carrier);
        agent.through(&link);
        agent.start();
        let api = master.api();
        api.online("desk", SOON).await;
        assert_eq!(api.agent("desk").await["carrier"], carrier);
        let call = api.request(Method::POST, "/agents/desk/exec").json(&json!({ "shell": COUNT }));
        let started = Lines::new(call.send().await.unwrap()).next().await.unwrap();
        let shell = open(&api, "desk", "stty -opost; read x; echo heard $x; exit 5").await;
        let target = echo();
        let tunnel_port = port_of(&api.open_tunnel("desk", target, "tcp").await);
        let socket = TcpStream::connect(("127.0.0.1", tunnel_port)).unwrap();
        let forward = Cli::start(landline(&master, &["forward", "desk", &format!("0:localhost:{target}")]));
        forward.prints("\n", SOON).await;
        let direct = TcpStream::connect(forward.printed().split_whitespace().next().unwrap()).unwrap();
        let file = tempfile::tempdir().unwrap();
        let (from, to) = (file.path().join("from"), file.path().join("to"));
        content_file(&from, 40 << 20, 3);
        link.shape(Shape { rate: Some(4_000_000), ..Shape::default() });
        let copy = cp(&master, &["-q", from.to_str().unwrap(), &format!("desk:{}", to.display())]).spawn().unwrap();
        let exec = started["exec_id"].as_str().unwrap().to_owned();
        Self { master, agent, exec, shell, socket, tunnel_port, direct, _forward: forward, copy, file, link }
    }

    async fn under_way(&mut self) {
        says(&mut self.socket, "through the tunnel").unwrap();
        says(&mut self.direct, "through the desk").unwrap();
        until(SOON, "the copy is under way", || !parts_in(self.file.path()).is_empty()).await;
    }

    /// New work of each kind, from the moment of the signal: how long until all of it was refused.
    async fn refuses_new_work(&self) -> Duration {
        let (api, started) = (self.master.api(), Instant::now());
        until(AT_ONCE, "the stop is noticed", || self.master.log().contains("draining;")).await;
        let calls = [
            (Method::POST, "/agents/desk/exec", json!({ "argv": ["true"] })),
            (Method::POST, "/agents/desk/shells", json!({ "cols": 80, "rows": 24 })),
            (Method::POST, "/tunnels", json!({ "agent_id": "desk", "target": { "host": "127.0.0.1", "port": 9 } })),
            (Method::POST, "/agents", json!({ "id": "late" })),
        ];
        for (method, path, body) in calls {
            let response = api.request(method, path).json(&body).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(response.headers().contains_key("retry-after"), "{path}");
            assert_eq!(response.json::<Value>().await.unwrap()["code"], "shutting_down", "{path}");
        }
        let ready = reqwest::get(format!("{}/readyz", self.master.url())).await.unwrap();
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
        let mut late = TcpStream::connect(("127.0.0.1", self.tunnel_port)).unwrap();
        assert!(says(&mut late, "too late").is_err(), "a new connection through a tunnel is refused");
        started.elapsed()
    }

    /// Each short exec that was accepted ended, ran once, and none that was refused ran at all.
    async fn judge(&self, asked: &Asked, marks: &std::path::Path) {
        let api = self.master.api();
        for (number, id) in &asked.accepted {
            let row = eventually(SOON, "an accepted exec has its end", || async {
                let row = api.get(&format!("/execs/{id}")).await;
                (!row["end_reason"].is_null()).then_some(row)
            })
            .await;
            assert_eq!((&row["end_reason"], &row["exit_code"]), (&json!("exited"), &json!(0)), "{number}: {row}");
        }
        let ran = std::fs::read_to_string(marks).unwrap();
        let times = |number: usize| ran.lines().filter(|line| *line == number.to_string()).count();
        assert!(asked.accepted.iter().all(|(number, _)| times(*number) == 1), "each once: {ran}");
        assert!(asked.refused.iter().all(|number| times(*number) == 0), "{:?} were refused: {ran}", asked.refused);
        assert!(ran.lines().all(|line| times(line.parse().unwrap()) == 1), "twice: {ran}");
    }
}

async fn a_stop_with_work_under_way(carrier: &str) {
    let mut world = World::new(carrier).await;
    world.under_way().await;
    let marks = world.file.path().join("marks");
    let asking: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(short_execs(world.master.api(), marks.clone(), caller * 10_000)))
        .collect();
    until(SOON, "short execs run", || std::fs::read_to_string(&marks).is_ok_and(|ran| ran.lines().count() > 20)).await;

    world.master.process().signal(rustix::process::Signal::TERM);
    let stopped = Instant::now();
    let refused = world.refuses_new_work().await;
    says(&mut world.socket, "still open").unwrap();
    says(&mut world.direct, "this one as well").unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(GRACE_S), "that was not during the drain");
    until(Duration::from_secs(30), "the master is gone", || world.master.process().exited().is_some()).await;
    let gone = stopped.elapsed();
    assert!(world.master.process().exited().unwrap().success(), "{}", world.master.log());
    assert!(says(&mut world.socket, "over").is_err() && says(&mut world.direct, "over").is_err());
    let told = world.agent.log();
    assert!(told.contains("the master drains this line") && told.contains("retry_after_ms=500"), "{told}");
    let mut asked = Asked::default();
    for caller in asking {
        asked.add(caller.await.unwrap());
    }

    world.link.shape(Shape::default());
    let started = Instant::now();
    world.master.run().await;
    world.master.api().online("desk", SOON).await;
    let back = started.elapsed();
    world.judge(&asked, &marks).await;
    world.goes_on().await;
    let Asked { accepted, refused: no, unknown } = &asked;
    println!(
        "{carrier}: new work refused within {refused:?}, gone after {gone:?} (grace {GRACE_S} s), the agent back {back:?} \
         after the next start; of {} short execs accepted none was lost, {} refused, {unknown} unknown",
        accepted.len(),
        no.len(),
    );
    assert!(gone <= GONE_WITHIN, "{gone:?}");
    assert!(accepted.len() > 20 && !no.is_empty(), "hardly any load");
}

impl World {
    /// What outlives a master: the long exec, the shell, and the copy.
    async fn goes_on(&mut self) {
        let api = self.master.api();
        let row = eventually(SOON, "the long exec ends", || async {
            let row = api.get(&format!("/execs/{}", self.exec)).await;
            (!row["end_reason"].is_null()).then_some(row)
        })
        .await;
        assert_eq!((&row["end_reason"], &row["exit_code"]), (&json!("exited"), &json!(7)), "{row}");
        let mut terminal = Terminal::attach(&api, &self.shell, "offset=0").await.unwrap();
        terminal.send(b"it\n").await;
        assert_eq!(terminal.exit().await["code"], 5);
        until(Duration::from_secs(60), "the copy ends", || self.copy.try_wait().unwrap().is_some()).await;
        assert!(self.copy.try_wait().unwrap().unwrap().success(), "the copy failed");
        assert_eq!(hash_of(&self.file.path().join("from")), hash_of(&self.file.path().join("to")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_stopped_master_loses_nothing_that_it_accepted() {
    for _ in 0..soak::count(1, 5) {
        a_stop_with_work_under_way("udp").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_stopped_master_loses_nothing_inside_websockets() {
    for _ in 0..soak::count(1, 5) {
        a_stop_with_work_under_way("wss").await;
    }
}
