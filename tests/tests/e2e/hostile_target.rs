//! Tunnels whose agent turns on them: garbage for an answer, no answer, resets, floods. The tunnel's client gets an end,
//! its owner a reason, the master lives, and the tunnels of others work on.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use landline_tests::{
    api::port_of,
    master::Master,
    puppet::{Puppet, PuppetLine},
    wait::eventually,
};
use proto::{
    code::Code,
    net::{frame::encode_frame, stream::FrameStream},
    open::{OpenReply, Opened, Refused},
};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// The master gives an agent fifteen seconds to answer a forward.
const ANSWER_WITHIN: Duration = Duration::from_secs(17);

/// What the puppet does with the streams that the master opens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    Garbage,
    Oversize,
    /// A refusal with a text that would fool a terminal.
    Escapes,
    Mute,
    Reset,
    /// Opened, then bytes for ever.
    Flood,
}

/// A puppet that serves its line in the background.
struct Served {
    manner: Arc<Mutex<Manner>>,
    /// Bytes its floods got rid of.
    flooded: Arc<AtomicUsize>,
    _line: PuppetLine,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    fn start(line: PuppetLine) -> Self {
        let (manner, flooded) = (Arc::new(Mutex::new(Manner::Honest)), Arc::new(AtomicUsize::new(0)));
        let (connection, shared, count) = (line.connection.clone(), manner.clone(), flooded.clone());
        let task = tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Some((_, stream)) = PuppetLine::work(&connection).await {
                let manner = *shared.lock().unwrap();
                streams.spawn(answer(stream, manner, count.clone()));
            }
        });
        Self { manner, flooded, _line: line, task }
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

async fn answer(mut stream: FrameStream, manner: Manner, flooded: Arc<AtomicUsize>) {
    let opened = encode_frame(&OpenReply::Opened(Opened { peer: None }));
    let message = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nlevel=ERROR forged".to_owned();
    let refused = encode_frame(&OpenReply::Refused(Refused { code: Code(0x7fff_ffff), message }));
    let said = match manner {
        Manner::Honest | Manner::Flood => opened,
        Manner::Garbage => vec![0, 0, 0, 8, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee],
        Manner::Oversize => vec![0xff; 64],
        Manner::Escapes => refused,
        Manner::Mute => Vec::new(),
        Manner::Reset => return stream.abort(Code(0xdead_beef)),
    };
    let _ = stream.send.write_all(&said).await;
    let _ = stream.send.flush().await;
    let block = vec![0x5a; 64 << 10];
    while manner == Manner::Flood && stream.send.write_all(&block).await.is_ok() {
        flooded.fetch_add(block.len(), Ordering::Relaxed);
    }
    // Holds the stream open until the master gives it up.
    stream.send.stopped().await;
}

async fn hostile(master: &Master, folder: &std::path::Path) -> (Served, Value) {
    let puppet = Puppet::enrolled(&master.add("hostile").await, folder).await;
    let served = Served::start(puppet.line().await);
    let tunnel = master.api().open_tunnel("hostile", 443, "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    (served, tunnel)
}

/// How a client's connection through the tunnel ends, and after which time.
async fn end_of_connection(tunnel: &Value) -> (ErrorKind, Duration) {
    let port = port_of(tunnel);
    let ended = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(ANSWER_WITHIN + Duration::from_secs(3))).unwrap();
        // It may be over already, and the kernel tells a reset once: to whichever call comes first.
        let told = client.write_all(b"hello").and_then(|()| client.read(&mut [0; 16]));
        let error = told.map_or_else(|error| error.kind(), |_| ErrorKind::UnexpectedEof);
        (error, started.elapsed())
    });
    ended.await.unwrap()
}

/// Every kind of false answer ends the client's connection with a reset, none the master; the next honest one works.
#[tokio::test(flavor = "multi_thread")]
async fn false_answers_reset_the_client_and_nothing_else() {
    let mut master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (served, tunnel) = hostile(&master, folder.path()).await;
    for manner in [Manner::Garbage, Manner::Oversize, Manner::Escapes, Manner::Reset, Manner::Mute] {
        served.set(manner);
        let (error, after) = end_of_connection(&tunnel).await;
        assert_eq!(error, ErrorKind::ConnectionReset, "{manner:?}");
        let within = if manner == Manner::Mute { ANSWER_WITHIN } else { Duration::from_secs(2) };
        assert!(after < within, "{manner:?}: the client waited {after:?}");
    }
    assert!(master.process().exited().is_none());
    let log = master.log();
    assert!(!log.contains("panicked"), "a handler panicked");
    assert!(!log.contains('\u{1b}') && !log.contains("\nlevel=ERROR"), "foreign bytes stand raw in the log");
    assert_eq!(master.api().agent("hostile").await["presence"], "online");
    // The same tunnel, once its agent is honest.
    served.set(Manner::Flood);
    let mut client = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.read_exact(&mut [0; 1024]).unwrap();
    master.sockets_equal_rows().await;
}

/// A refusal about the target shows in the tunnel's health with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_agents_tunnel_tells_what_its_probe_found() {
    let master = Master::start_with("", "pending_timeout_s = 2").await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("hostile").await, folder.path()).await;
    let served = Served::start(puppet.line().await);
    let found = [
        (Manner::Garbage, "failing", "malformed"),
        (Manner::Oversize, "failing", "too_large"),
        (Manner::Escapes, "failing", "unknown_code"),
        // A reset is what a lost line looks like: nothing was learned of the target.
        (Manner::Reset, "unknown", "no_answer"),
    ];
    for (manner, health, reason) in found {
        served.set(manner);
        let tunnel = master.api().open_tunnel("hostile", 443, "https").await;
        assert_eq!(tunnel["status"], "timeout", "{manner:?}: {tunnel}");
        assert_eq!((&tunnel["health"], &tunnel["closed_reason"]), (&health.into(), &reason.into()), "{tunnel}");
    }
    // Opened, but no TLS behind it.
    served.set(Manner::Flood);
    let tunnel = master.api().open_tunnel("hostile", 443, "https").await;
    assert_eq!((&tunnel["health"], &tunnel["closed_reason"]), (&"failing".into(), &"not_tls".into()), "{tunnel}");
    master.sockets_equal_rows().await;
}

/// One agent floods two hundred clients that do not read: what it pins is bounded, and another agent's tunnel works on.
#[tokio::test(flavor = "multi_thread")]
async fn alone_an_agent_that_pins_its_window_delays_nobody_else() {
    const CLIENTS: usize = 200;
    let mut master = Master::start().await;
    let _honest = master.agent("honest").await;
    let echo = echo();
    let folder = tempfile::tempdir().unwrap();
    let (served, tunnel) = hostile(&master, folder.path()).await;
    let other = master.api().open_tunnel("honest", echo, "tcp").await;
    let alone = round_trips(&other).await;
    let before = master.process().resident();
    served.set(Manner::Flood);
    let stalled: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap()).collect();
    let mut last = (0, Instant::now());
    eventually(Duration::from_secs(30), "the flood stands still", || {
        let now = served.flooded.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        std::future::ready((now > 0 && last.1.elapsed() > Duration::from_secs(1)).then_some(()))
    })
    .await;
    let beside = round_trips(&other).await;
    let grown = master.process().resident().saturating_sub(before);
    println!(
        "{} MiB flooded into {CLIENTS} stalled clients; master grew {} MiB; round trip {alone:?} alone, {beside:?} beside",
        last.0 >> 20,
        grown >> 20
    );
    // The window may hold 72 MiB. What it holds are pieces of larger receive buffers, so memory is up to three times that.
    // Without the bound it would be 2 MiB for each client, and three times that.
    assert!(grown < 300 << 20, "the master grew by {grown} bytes");
    assert!(beside < Duration::from_millis(100), "{beside:?}");
    assert_eq!(master.api().agent("honest").await["presence"], "online");
    drop(stalled);
    drop(served);
    assert!(!master.log().contains("panicked"));
}

/// Answers each connection with what it got.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut socket.try_clone().unwrap(), &mut &socket));
        }
    });
    port
}

/// The slowest of twenty round trips through a tunnel.
async fn round_trips(tunnel: &Value) -> Duration {
    let port = port_of(tunnel);
    let slowest = tokio::task::spawn_blocking(move || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut once = || {
            let started = Instant::now();
            client.write_all(&[7; 1024]).unwrap();
            client.read_exact(&mut [0; 1024]).unwrap();
            started.elapsed()
        };
        // The first one pays for the dial.
        once();
        (0..20).map(|_| once()).max()
    });
    slowest.await.unwrap().unwrap()
}
