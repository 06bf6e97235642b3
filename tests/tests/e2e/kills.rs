//! kill -9 of master and agent in turn, at random points under writes, execs, connections and copies: what was acknowledged
//! is there, nothing was done twice, the database is whole at each kill, and the master is soon up (SECURITY, reliability
//! figures).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::{Api, port_of},
    cli::{landline, output},
    copying::{content_file, hash_of},
    master::Master,
    ndjson::Lines,
    peers::echo,
    soak,
    wait::eventually,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SEED: u64 = 20;
const SOON: Duration = Duration::from_secs(30);
/// From the start of the process to its first answer.
const UP_WITHIN: Duration = Duration::from_secs(2);

/// What the load was told, by whoever was there to tell it.
#[derive(Default)]
struct Told {
    /// Agents whose registration was acknowledged.
    written: Vec<String>,
    /// Execs of which the master said `started`: their number and id.
    accepted: Vec<(usize, String)>,
    /// Connections that brought back what was said, and copies that said they are done.
    echoed: usize,
    copied: usize,
}

/// The load: callers that go on whatever dies under them, until told to stop.
struct Load {
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    callers: JoinSet<()>,
}

impl Load {
    fn start(master: &Arc<tokio::sync::Mutex<Master>>, api: &Api, tunnel: u16, folder: &Path) -> Self {
        let (told, stop, mut callers) = (Arc::<Mutex<Told>>::default(), CancellationToken::new(), JoinSet::new());
        let one = (told.clone(), stop.clone());
        callers.spawn(write(api.clone(), one.clone()));
        callers.spawn(exec(api.clone(), folder.join("marks"), one.clone()));
        callers.spawn(connect(tunnel, one.clone()));
        callers.spawn(copy(master.clone(), folder.to_owned(), one));
        Self { told, stop, callers }
    }

    async fn end(mut self) -> Arc<Mutex<Told>> {
        self.stop.cancel();
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        self.told
    }
}

type Caller = (Arc<Mutex<Told>>, CancellationToken);

/// A caller's pace, and how soon it tries again.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

async fn write(api: Api, (told, stop): Caller) {
    for number in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let id = format!("written-{number}");
        let sent = api.request(Method::POST, "/agents").json(&json!({ "id": id })).send().await;
        if sent.is_ok_and(|response| response.status() == StatusCode::CREATED) {
            told.lock().unwrap().written.push(id);
        }
        pause().await;
    }
}

async fn exec(api: Api, marks: PathBuf, (told, stop): Caller) {
    for number in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let shell = format!("echo {number} >> {}; sleep 0.1", marks.display());
        let sent = api.request(Method::POST, "/agents/steady/exec").json(&json!({ "shell": shell })).send().await;
        if let Ok(response) = sent
            && response.status() == StatusCode::OK
            && let Some(line) = Lines::new(response).next().await
            && line["type"] == "started"
        {
            told.lock().unwrap().accepted.push((number, line["exec_id"].as_str().unwrap().to_owned()));
        }
        pause().await;
    }
}

async fn connect(port: u16, (told, stop): Caller) {
    while !stop.is_cancelled() {
        let talk = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut socket = TcpStream::connect(("127.0.0.1", port))?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            let mut back = [0; 4];
            for _ in 0..20 {
                socket.write_all(b"ping")?;
                socket.read_exact(&mut back)?;
            }
            Ok(())
        });
        if talk.await.unwrap().is_ok() {
            told.lock().unwrap().echoed += 1;
        }
        pause().await;
    }
}

/// Copies of another file each time, to the same place.
async fn copy(master: Arc<tokio::sync::Mutex<Master>>, folder: PathBuf, (told, stop): Caller) {
    for seed in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let (from, to) = (folder.join("from"), folder.join("to"));
        let hash = content_file(&from, 24 << 20, seed);
        let mut command = {
            let master = master.lock().await;
            landline(&master, &["cp", "-q", from.to_str().unwrap(), &format!("steady:{}", to.display())])
        };
        command.stdin(std::process::Stdio::null());
        let done = output(command).await;
        if done.status.success() {
            assert_eq!(hash_of(&to), hash, "a copy that said it was done");
            told.lock().unwrap().copied += 1;
        }
        pause().await;
    }
}

/// SQLite's own check of what the kill left, on a copy, so that the check mends nothing.
async fn whole(data: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["landline.db", "landline.db-wal"] {
        let (from, to) = (data.join(name), copy.path().join(name));
        assert!(std::fs::copy(from, to).is_ok() || name.ends_with("-wal"), "no {name}");
    }
    let check =
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone()[0])";
    let mut command = Command::new("python3");
    command.args(["-c", check]).arg(copy.path().join("landline.db"));
    let said = output(command).await;
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "ok", "{}", String::from_utf8_lossy(&said.stderr));
}

struct World {
    master: Arc<tokio::sync::Mutex<Master>>,
    agent: Agent,
    api: Api,
    folder: tempfile::TempDir,
}

impl World {
    /// Kills the master and starts it again; from its start to the first answer of the API.
    async fn kill_master(&self) -> Duration {
        let mut master = self.master.lock().await;
        master.kill();
        whole(&master.data()).await;
        let started = Instant::now();
        master.spawn();
        eventually(SOON, "a first answer", || async {
            let answer = self.api.request(Method::GET, "/agents?limit=1").send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        started.elapsed()
    }

    fn kill_agent(&mut self) {
        self.agent.kill();
        self.agent.start();
    }

    /// The agent works, and what was left running is over.
    async fn settled(&self) {
        eventually(SOON, "the agent works", || async {
            let call = self.api.request(Method::POST, "/agents/steady/exec").json(&json!({ "argv": ["true"] }));
            call.send().await.ok()?.text().await.ok()?.contains("\"code\":0").then_some(())
        })
        .await;
    }

    async fn judge(&self, told: &Told) -> usize {
        for id in &told.written {
            assert_eq!(self.api.agent(id).await["id"], **id, "an acknowledged write is gone");
        }
        let ran = std::fs::read_to_string(self.folder.path().join("marks")).unwrap();
        let mut times = std::collections::BTreeMap::<&str, usize>::new();
        ran.lines().for_each(|line| *times.entry(line).or_default() += 1);
        assert!(times.values().all(|times| *times == 1), "done twice: {times:?}");
        let mut unknown = 0;
        for (number, id) in &told.accepted {
            let row = self.ended(id).await;
            let ran = times.contains_key(number.to_string().as_str());
            match row["end_reason"].as_str().unwrap() {
                "exited" => assert!(ran, "{number} is said to have run: {row}"),
                "outcome_unknown" => unknown += 1,
                other => panic!("{number} was accepted and is {other}: {row}"),
            }
        }
        unknown
    }

    async fn ended(&self, id: &str) -> Value {
        eventually(SOON, "an accepted exec has its end", || async {
            let row = self.api.get(&format!("/execs/{id}")).await;
            (!row["end_reason"].is_null()).then_some(row)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_whoever_is_killed_nothing_acknowledged_is_lost_and_nothing_done_twice() {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let agent = master.agent_under("steady", Some(ALLOW_ALL)).await;
    let api = master.api();
    let target = json!({ "host": "127.0.0.1", "port": echo(), "scheme": "tcp" });
    let standing = json!({ "agent_id": "steady", "target": target, "standing": true });
    let tunnel = port_of(&api.post("/tunnels?wait=30s", standing).await);
    let mut world = World { master: Arc::new(tokio::sync::Mutex::new(master)), agent, api, folder };
    let load = Load::start(&world.master, &world.api, tunnel, world.folder.path());
    let mut dice = StdRng::seed_from_u64(SEED);
    let (mut slowest, kills) = (Duration::ZERO, soak::count(4, 50));
    for kill in 0..kills {
        // When it dies is what the seed decides.
        tokio::time::sleep(Duration::from_millis(dice.random_range(300..2_500))).await;
        if kill % 2 == 0 {
            slowest = slowest.max(world.kill_master().await);
        } else {
            world.kill_agent();
        }
    }
    world.settled().await;
    let told = load.end().await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    let unknown = world.judge(&told).await;
    let mut master = world.master.lock().await;
    let verified = output(landline(&master, &["audit", "verify"])).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    master.kill();
    whole(&master.data()).await;
    println!(
        "{kills} kills: up {slowest:?} after a start at worst; {} writes and {} execs acknowledged, {unknown} of them of unknown \
         outcome, {} connections and {} copies whole",
        told.written.len(),
        told.accepted.len(),
        told.echoed,
        told.copied,
    );
    assert!(told.written.len() > 10 && told.accepted.len() > 5 && told.echoed > 0, "hardly any load");
    assert!(slowest <= UP_WITHIN, "{slowest:?}");
}
