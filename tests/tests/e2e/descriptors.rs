//! A master that has no file descriptor left: it does not spin, what it has open goes on, and it takes new connections
//! again as soon as some are free (SECURITY, reliability figures).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::{Api, port_of},
    confined,
    master::Master,
    peers::echo,
    process::cpu,
    soak,
    sockets::descriptors,
    wait::{eventually, until},
};

/// What the master may have open. It has about forty when nothing is connected.
const LIMIT: usize = 128;
/// Connections that want in: more than there are descriptors.
const CALLERS: usize = 160;
const SOON: Duration = Duration::from_secs(20);
/// Processor time in a second without descriptors; one that spins takes all of one or two cores.
const IDLE_SHARE: f64 = 0.15;
/// What is promised, from the moment when callers leave.
const RECOVERS_WITHIN: Duration = Duration::from_secs(1);

fn says(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back)
}

struct World {
    master: Master,
    _agent: Agent,
    tunnel: u16,
    /// A connection through the tunnel that was there before.
    old: TcpStream,
}

impl World {
    async fn new() -> Self {
        let mut master = Master::prepare("", "");
        master.confine(confined::few_descriptors(LIMIT));
        master.run().await;
        let agent: Agent = master.agent_under("steady", Some(ALLOW_ALL)).await;
        let tunnel = port_of(&master.api().open_tunnel("steady", echo(), "tcp").await);
        let mut old = TcpStream::connect(("127.0.0.1", tunnel)).unwrap();
        says(&mut old, "before").unwrap();
        Self { master, _agent: agent, tunnel, old }
    }

    /// Takes every descriptor through the listener at `port`; gives what came out of it.
    async fn exhausted(&mut self, port: u16, says_so: &str) -> Outcome {
        let pid = self.master.process().pid();
        // On connections of their own that stay: what is asked while nothing new can be opened.
        let api = self.master.api();
        all_online(&api).await;
        let callers: Vec<_> = (0..CALLERS).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let told = self.master.log().len();
        until(SOON, "no descriptor is left", || descriptors(pid) >= LIMIT).await;
        let (watched, began) = (soak::count(Duration::from_secs(2), Duration::from_secs(6)), Instant::now());
        let before = cpu(pid);
        // How much time it takes while it can do nothing is what is measured.
        tokio::time::sleep(watched).await;
        let share = (cpu(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        assert!(descriptors(pid) >= LIMIT, "they were not exhausted all the time");
        assert!(self.master.log()[told..].contains(says_so), "nobody was kept waiting");
        says(&mut self.old, "meanwhile").unwrap();
        all_online(&api).await;
        drop(callers);
        let freed = Instant::now();
        self.answers_again().await;
        Outcome { share, recovered: freed.elapsed() }
    }

    /// Each listener takes a new connection.
    async fn answers_again(&self) {
        eventually(SOON, "new connections are served", || async {
            self.master.api().request(reqwest::Method::GET, "/agents/steady").send().await.ok()?;
            let mut public = TcpStream::connect(("127.0.0.1", self.master.public_port)).ok()?;
            // No TLS: whoever listens says so by an alert.
            public.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            public.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
            (public.read(&mut [0; 16]).ok()? > 0).then_some(())?;
            says(&mut TcpStream::connect(("127.0.0.1", self.tunnel)).ok()?, "after").ok()
        })
        .await;
    }
}

/// Several at once, so that each of the database's connections is asked for.
async fn all_online(api: &Api) {
    let asked = (0..6).map(|_| async { api.agent("steady").await["presence"] == "online" });
    assert!(futures_util::future::join_all(asked).await.into_iter().all(|online| online));
}

struct Outcome {
    share: f64,
    recovered: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_without_descriptors_the_master_waits_and_recovers() {
    let mut world = World::new().await;
    let (internal, public, tunnel) = (world.master.internal_port, world.master.public_port, world.tunnel);
    for (name, port, says_so) in [
        ("internal", internal, "cannot accept an HTTP connection"),
        ("public", public, "cannot accept a connection on the public port"),
        ("tunnel", tunnel, "a tunnel cannot accept connections"),
    ] {
        let Outcome { share, recovered } = world.exhausted(port, says_so).await;
        println!(
            "no descriptors by way of the {name} listener: {:.0} % of a core, back after {recovered:?}",
            share * 100.0
        );
        assert!(share <= IDLE_SHARE, "{name}: it spins, {share}");
        assert!(recovered <= RECOVERS_WITHIN, "{name}: {recovered:?}");
    }
    let log = world.master.log();
    assert!(!log.contains("panicked"), "{log}");
    let timeline = world.master.api().get("/agents/steady/timeline?limit=200").await.to_string();
    assert!(!timeline.contains("agent.offline"), "its line was lost: {timeline}");
}
