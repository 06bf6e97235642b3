//! Many hostile agents at once under a master that may not grow: floods that nobody reads, readers that never read, and
//! broken rules without end. It stays within its bound, and another agent's commands do not notice (SECURITY R33, R35).

use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use landline_tests::{
    api::Api,
    confined,
    master::Master,
    process::Peak,
    puppet::{Puppet, PuppetLine},
    soak,
};
use proto::{
    control::{FromAgent, Heartbeat},
    net::{frame::encode_frame, stream::FrameStream},
    open::{OpenReply, Opened},
    stats::Stats,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, task::JoinSet};

/// Connections into each hostile agent, half of them flooded and half never read.
const CONNECTIONS: usize = 32;
const COMMANDS: usize = 100;
/// What each line may pin on the master: its receive window, and what waits to be sent.
const PER_LINE: u64 = (8 + 16) << 20;
/// What all together may be given beyond that, and what a master takes that has nobody to serve.
const FOR_ALL: u64 = (512 + 256) << 20;
/// What the plan allows another agent's commands.
const COMMAND_WITHIN: Duration = Duration::from_millis(500);

/// A hostile agent that serves its line until it is dropped.
struct Hostile {
    _line: PuppetLine,
    serving: tokio::task::JoinHandle<()>,
    _clients: Vec<UnixStream>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Hostile {
    async fn new(master: &Master, id: &str, folder: &Path) -> Self {
        let puppet = Puppet::enrolled(&master.add(id).await, folder).await;
        let line = puppet.line().await;
        let connection = line.connection.clone();
        let serving = tokio::spawn(async move {
            let (mut streams, mut number) = (JoinSet::new(), 0);
            while let Some((_, stream)) = PuppetLine::work(&connection).await {
                streams.spawn(misuse(stream, number % 2 == 0));
                number += 1;
            }
        });
        let target = json!({ "host": "127.0.0.1", "port": 443, "scheme": "tcp" });
        let asked = json!({ "agent_id": id, "target": target, "heartbeat": false, "listen": "unix" });
        let tunnel = master.api().post("/tunnels?wait=30s", asked).await;
        assert_eq!(tunnel["status"], "active", "{tunnel}");
        let path = PathBuf::from(tunnel["listen"].as_str().unwrap().trim_start_matches("unix:"));
        let clients = (0..CONNECTIONS).map(|_| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || client(&path))
        });
        let clients = futures_util::future::join_all(clients).await.into_iter().map(Result::unwrap).collect();
        Self { _line: line, serving, _clients: clients }
    }
}

/// A client that reads nothing and writes as long as anything is taken.
fn client(path: &Path) -> UnixStream {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let block = vec![0x5a; 256 << 10];
    // Ends where the buffers on the way are full.
    while socket.write(&block).is_ok_and(|written| written > 0) {}
    socket
}

/// Opened, and then bytes for ever, or nothing is ever read.
async fn misuse(mut stream: FrameStream, floods: bool) {
    let opened = encode_frame(&OpenReply::Opened(Opened { peer: None }));
    let _ = stream.send.write_all(&opened).await;
    let block = vec![0xa5; 64 << 10];
    while floods && stream.send.write_all(&block).await.is_ok() {}
    let _ = stream.send.flush().await;
    stream.send.stopped().await;
}

/// Breaks the rules of one line after the other, for ever.
async fn broken_rules(puppet: Puppet) {
    let beat = FromAgent::Heartbeat(Heartbeat { seq: 1, stats: Stats::default(), rtt_us: 1 });
    let flood = encode_frame(&beat).repeat(2_000);
    for words in [&flood[..], &[0xff; 4096], b"GET / HTTP/1.1\r\n\r\n"].into_iter().cycle() {
        let mut line = puppet.line().await;
        let _ = line.control.send.write_all(words).await;
        let _ = line.control.send.flush().await;
        let _ = tokio::time::timeout(Duration::from_secs(5), line.connection.closed()).await;
    }
}

/// How long commands to the bystander take, sorted.
async fn commands(api: &Api, name: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..COMMANDS {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let call = json!({ "id": format!("{name}-{number}"), "type": "GET_STATS", "timestamp": now });
        let started = Instant::now();
        let answer: Value = api.post("/agents/bystander/commands", call).await;
        times.push(started.elapsed());
        assert_eq!(answer["status"], "success", "{answer}");
    }
    times.sort();
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_hostile_agents_together_stay_within_the_masters_bounds() {
    let agents = soak::count(8, 100);
    let mut master = Master::prepare("", "");
    let limit = FOR_ALL + PER_LINE * agents;
    master.confine(confined::little_memory(limit));
    master.set("MIMALLOC_ARENA_EAGER_COMMIT", "0");
    master.run().await;
    let _bystander = master.agent("bystander").await;
    let (api, folder) = (master.api(), tempfile::tempdir().unwrap());
    let alone = commands(&api, "alone").await;
    let peak = Peak::watch(master.process().pid());
    let rude = Puppet::enrolled(&master.add("rude").await, folder.path()).await;
    let mut hostile = Vec::new();
    for number in 0..agents {
        hostile.push(Hostile::new(&master, &format!("hostile-{number}"), folder.path()).await);
    }
    let rude = tokio::spawn(broken_rules(rude));
    let beside = commands(&api, "beside").await;
    rude.abort();
    assert_eq!(api.agent("bystander").await["presence"], "online");
    assert!(master.process().exited().is_none(), "the master is gone");
    let peak = peak.finish();
    drop(hostile);
    let (half, most) = (COMMANDS / 2, COMMANDS * 99 / 100);
    println!(
        "{agents} hostile agents with {CONNECTIONS} connections each: the master had {} MiB at most of {} allowed; another \
         agent's commands p50 {:?}, p99 {:?} (alone {:?}, {:?})",
        peak >> 20,
        limit >> 20,
        beside[half],
        beside[most],
        alone[half],
        alone[most],
    );
    assert!(beside[most] <= COMMAND_WITHIN, "{beside:?}");
    let log = master.log();
    assert!(!log.contains("panicked") && !log.contains("agent=bystander, code"), "{log}");
}
