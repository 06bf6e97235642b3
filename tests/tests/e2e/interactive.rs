//! Somebody waits for an answer while bulk fills a slow line: the answer does not queue behind what bulk has written.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use landline_tests::{
    api::port_of,
    copying::{content_file, cp, parts_in},
    link::{Link, Shape},
    master::Master,
    terminal::{Terminal, open},
    wait::until,
};
use serde_json::json;

/// More than fills both windows of a line: 2 MiB each.
const STREAMS: usize = 10;
/// Bytes a second: the 8 MiB that the line takes are more than six seconds of it.
const RATE: u64 = 1_250_000;

/// A target that pours and drinks as fast as it can, until told to stop.
fn flood(stop: Arc<AtomicBool>, carried: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().take(2 * STREAMS + 1).flatten() {
            let mut reader = socket.try_clone().unwrap();
            let (halt, count) = (stop.clone(), carried.clone());
            std::thread::spawn(move || pour(socket, &halt));
            std::thread::spawn(move || drink(&mut reader, &count));
        }
    });
    port
}

fn pour(mut socket: TcpStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) && socket.write_all(&[7; 16 * 1024]).is_ok() {}
}

fn drink(socket: &mut TcpStream, carried: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = socket.read(&mut buffer) {
        carried.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// The slowest of some commands, asked one after the other.
async fn slowest_answer(master: &Master, label: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..5 {
        let started = Instant::now();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let call = json!({ "id": format!("{label}-{number}"), "type": "GET_STATS", "timestamp": now });
        let answer = master.api().post("/agents/far/commands", call).await;
        assert_eq!(answer["status"], "success", "{answer}");
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_an_answer_does_not_wait_behind_bulk_on_a_slow_line() {
    let master = Master::start().await;
    let (_agent, link): (_, Link) = master.agent_behind("far", 1).await;
    let (stop, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let port = flood(stop.clone(), carried.clone());
    let tunnel = master.api().open_tunnel("far", port, "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let listen = port_of(&tunnel);
    link.shape(Shape { delay: Duration::from_millis(10), rate: Some(RATE), queue: 64 * 1024, ..Shape::default() });
    let idle = slowest_answer(&master, "idle").await;
    let received = Arc::new(AtomicU64::new(0));
    for _ in 0..STREAMS {
        let client = TcpStream::connect(("127.0.0.1", listen)).unwrap();
        let mut reader = client.try_clone().unwrap();
        let (halt, count) = (stop.clone(), received.clone());
        std::thread::spawn(move || pour(client, &halt));
        std::thread::spawn(move || drink(&mut reader, &count));
    }
    // Both directions have filled whatever there is to fill once this much came through.
    let flowing = |count: &AtomicU64| count.load(Ordering::Relaxed) > 2_000_000;
    until(Duration::from_secs(60), "both directions flow", || flowing(&received) && flowing(&carried)).await;
    let busy = slowest_answer(&master, "busy").await;
    stop.store(true, Ordering::Relaxed);
    println!(
        "slowest of five answers: {idle:?} on the idle line, {busy:?} behind {STREAMS} floods each way at {RATE} B/s"
    );
    assert!(busy < Duration::from_millis(1_500), "{busy:?}; idle {idle:?}");
}

/// A keystroke and its echo while tunnels saturate the line on loopback, nothing impaired. Printed; the bound is wide,
/// because everything shares two cores.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_keystroke_is_echoed_beside_bulk() {
    let master = Master::start().await;
    let _agent = master.agent("near").await;
    let api = master.api();
    let id = open(&api, "near", "stty raw -echo; echo ready; exec cat").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("ready").await;
    let idle = echoes(&mut terminal).await;
    let (stop, carried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let port = flood(stop.clone(), carried.clone());
    let tunnel = api.open_tunnel("near", port, "tcp").await;
    let listen = port_of(&tunnel);
    let received = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let mut client = TcpStream::connect(("127.0.0.1", listen)).unwrap();
        let count = received.clone();
        std::thread::spawn(move || drink(&mut client, &count));
    }
    until(Duration::from_secs(30), "bulk flows", || received.load(Ordering::Relaxed) > 20_000_000).await;
    let (before, started) = (received.load(Ordering::Relaxed), Instant::now());
    let busy = echoes(&mut terminal).await;
    let rate = (received.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64() / 1e6;
    stop.store(true, Ordering::Relaxed);
    println!("echo p50/p99: idle {idle:?}; beside {rate:.0} MB/s of download {busy:?}");
    assert!(busy.1 < Duration::from_millis(200), "{busy:?}");
}

/// The same while a copy in each direction takes what the line has.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_keystroke_is_echoed_beside_transfers() {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let _agent = master.agent("near").await;
    let api = master.api();
    let id = open(&api, "near", "stty raw -echo; echo ready; exec cat").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("ready").await;
    let idle = echoes(&mut terminal).await;
    content_file(&folder.path().join("large"), 4 << 30, 1);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut worst = Duration::ZERO;
    for (what, from, to) in [
        ("upload", path("large"), format!("near:{}", path("up"))),
        ("download", format!("near:{}", path("large")), path("down")),
    ] {
        let mut copy = cp(&master, &["-q", &from, &to]).spawn().unwrap();
        let arrived = || parts_in(folder.path()).iter().map(|part| size(&folder.path().join(part))).sum::<u64>();
        until(Duration::from_secs(60), "bytes flow", || arrived() > 64 << 20).await;
        let (before, started) = (arrived(), Instant::now());
        let busy = echoes(&mut terminal).await;
        let rate = (arrived() - before) as f64 / started.elapsed().as_secs_f64() / 1e6;
        assert!(copy.try_wait().unwrap().is_none(), "the {what} was over before the keystrokes were");
        copy.kill().unwrap();
        copy.wait().unwrap();
        println!("echo p50/p99: idle {idle:?}; beside an {what} of {rate:.0} MB/s {busy:?}");
        worst = worst.max(busy.1);
        parts_in(folder.path()).iter().for_each(|part| std::fs::remove_file(folder.path().join(part)).unwrap());
    }
    assert!(worst < Duration::from_millis(200), "{worst:?}");
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// p50 and p99 of 300 keystrokes, one after the other.
async fn echoes(terminal: &mut Terminal) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..300 {
        let (length, typed) = (terminal.shown.len(), Instant::now());
        terminal.send(b"k").await;
        terminal.until(|terminal| terminal.shown.len() > length).await;
        times.push(typed.elapsed());
    }
    times.sort();
    (times[150], times[296])
}
