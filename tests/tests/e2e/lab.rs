//! The lab does to real programs what it is asked for, and leaves nothing behind. Without the rights for it these tests
//! fail by name, unless LANDLINE_SKIP_LAB=1 skips them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use landline_tests::{
    lab::{
        Lab, Lost, Side,
        probe::{Echo, Probe},
    },
    link::{Blocked, Direction, Loss, Shape},
    process::Process,
    tools::tool,
    wait::until,
};

/// How long nothing must come before it counts as lost. The links of these tests are far faster.
const LOST: Duration = Duration::from_millis(300);
/// Bytes a second: 10 Mb/s.
const RATE: u64 = 1_250_000;
const DELAY: Duration = Duration::from_millis(20);
/// Of 1,500 bytes that a full segment takes on the wire, what is the program's.
const PAYLOAD: f64 = 1_448.0 / 1_500.0;

fn near(measured: f64, asked: f64, what: &str) {
    println!("{what}: {measured:.1}, asked for {asked:.1}");
    assert!((measured / asked - 1.0).abs() <= 0.1, "{what}: {measured:.1}, asked for {asked:.1}");
}

/// A connection from the agent's side, and the master's end of it.
fn connection(lab: &Lab) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((lab.master_side().address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let client = connect(lab.agent_side(), address, Duration::from_secs(5)).unwrap();
    (client, listener.accept().unwrap().0)
}

fn connect(side: &Side, to: SocketAddr, within: Duration) -> std::io::Result<TcpStream> {
    side.inside(|| TcpStream::connect_timeout(&to, within))
}

#[test]
fn alone_the_lab_delays_and_slows_as_asked() {
    let Some(lab) = Lab::start(1) else { return };
    lab.shape(Shape { delay: DELAY, rate: Some(RATE), queue: 64 * 1024, ..Shape::default() });
    let rtt = 2.0 * DELAY.as_secs_f64() * 1e3;
    let echo = Echo::start(lab.master_side());
    let probe = Probe::new(lab.agent_side(), &echo);
    near(probe.round_trip(21).as_secs_f64() * 1e3, rtt, "round trip of a datagram, ms");
    near(handshake(&lab), rtt, "TCP handshake, ms");
    near(ping(&lab), rtt, "round trip of a ping, ms");
    near(poured(&lab), RATE as f64 * PAYLOAD / 1e3, "TCP upload of our own, kB/s");
    fetched(&lab);
}

/// The middle one of nine handshakes, ms: other work on the machine is in the way of one.
fn handshake(lab: &Lab) -> f64 {
    let listener = TcpListener::bind((lab.master_side().address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shake = |_| {
        lab.agent_side().inside(|| {
            let started = Instant::now();
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
            started.elapsed().as_secs_f64() * 1e3
        })
    };
    landline_tests::median(&(0..9).map(shake).collect::<Vec<_>>())
}

/// The median that busybox's ping measures, ms.
fn ping(lab: &Lab) -> f64 {
    let mut ping = lab.agent_side().command(tool("busybox"));
    let output = ping.args(["ping", "-c", "5", "-A", &lab.master_side().address.to_string()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let time = |line: &str| line.split_once("time=")?.1.trim_end_matches(" ms").parse::<f64>().ok();
    let times: Vec<f64> = text.lines().filter_map(time).collect();
    assert_eq!(times.len(), 5, "{text}");
    landline_tests::median(&times)
}

/// What a flow carries once it is going, kB/s.
fn poured(lab: &Lab) -> f64 {
    let (mut client, mut server) = connection(lab);
    let sender = std::thread::spawn(move || while client.write_all(&[7; 16 * 1024]).is_ok() {});
    let mut buffer = vec![0; 64 * 1024];
    let mut drink = |time: Duration| {
        let (started, mut carried) = (Instant::now(), 0);
        while started.elapsed() < time {
            carried += server.read(&mut buffer).unwrap();
        }
        carried as f64 / started.elapsed().as_secs_f64() / 1e3
    };
    drink(Duration::from_millis(700));
    let rate = drink(Duration::from_secs(2));
    drop(server);
    sender.join().unwrap();
    rate
}

/// curl here fetches from Python there: not faster than the rate, nor a tenth slower than a flow that starts slowly.
fn fetched(lab: &Lab) {
    let folder = tempfile::tempdir().unwrap();
    let size = 2_500_000;
    std::fs::write(folder.path().join("file"), vec![7; size]).unwrap();
    let (address, port) = (lab.master_side().address, landline_tests::peers::free_port());
    let mut python = Command::new("python3");
    python.args(["-m", "http.server", "--bind", &address.to_string(), &port.to_string()]).current_dir(folder.path());
    let _python = Process::start(python, &folder.path().join("log"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((address, port)).is_err() {
        assert!(Instant::now() < deadline, "Python serves");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut curl = lab.agent_side().command("curl");
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{time_total}", &format!("http://{address}:{port}/file")]);
    let output = curl.output().unwrap();
    let took: f64 = String::from_utf8_lossy(&output.stdout).parse().unwrap_or_else(|_| panic!("{output:?}"));
    let least = size as f64 / PAYLOAD / RATE as f64;
    // A handshake, a question, and the two round trips in which its window grows.
    let most = 1.1 * (least + 8.0 * DELAY.as_secs_f64());
    println!("curl took {took:.2} s, between {least:.2} and {most:.2} s were asked for");
    assert!((least..=most).contains(&took), "curl took {took:.2} s, not {least:.2} to {most:.2} s");
}

#[test]
fn alone_the_lab_loses_doubles_and_reorders_as_asked() {
    let Some(lab) = Lab::start(2) else { return };
    let echo = Echo::start(lab.master_side());
    let probe = Probe::new(lab.agent_side(), &echo);
    let stream = |shape: Shape| {
        lab.shape_one(Direction::Up, shape);
        probe.stream(3_000, Duration::from_micros(150), LOST)
    };
    assert_eq!(stream(Shape::default()).len(), 3_000, "nothing is lost unasked");
    // Four standard deviations about 150 of 3,000, and about as many in bursts of five, which vary more.
    let uniform = 3_000 - stream(Shape { loss: Loss::Uniform(0.05), ..Shape::default() }).len();
    let bursts = stream(Shape { loss: Loss::bursts(0.05, 5.0), ..Shape::default() });
    let runs = bursts.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    let lost = 3_000 - bursts.len();
    println!("lost of 3,000 at 5 %: {uniform}; in bursts of 5: {lost} in {runs} bursts");
    assert!((102..=198).contains(&uniform), "{uniform} of 3,000 lost");
    assert!((40..=300).contains(&lost), "{lost} of 3,000 lost");
    assert!((3.0..=8.0).contains(&(lost as f64 / runs as f64)), "{lost} lost in {runs} bursts");

    let doubled = stream(Shape { duplicate: 0.05, ..Shape::default() });
    let reordered = stream(Shape { reorder: 0.05, ..Shape::default() });
    let late = reordered.windows(2).filter(|pair| pair[1] < pair[0]).count();
    println!("of 3,000 at 5 %: {} doubled, {late} passed by others", doubled.len() - 3_000);
    assert!((3_102..=3_198).contains(&doubled.len()), "{} arrived", doubled.len());
    assert_eq!((reordered.len(), reordered.iter().collect::<BTreeSet<_>>().len()), (3_000, 3_000));
    assert!((80..=198).contains(&late), "{late} passed by others");
    assert!(lab.seen().up >= 14_000, "{:?}", lab.seen());
}

#[test]
fn the_lab_blocks_by_protocol_and_pulls_the_cable() {
    let Some(lab) = Lab::start(3) else { return };
    let echo = Echo::start(lab.master_side());
    let probe = Probe::new(lab.agent_side(), &echo);
    let listener = TcpListener::bind((lab.master_side().address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let passes = || (probe.ask(LOST).is_some(), connect(lab.agent_side(), address, LOST).is_ok());
    assert_eq!(passes(), (true, true));
    for (blocked, pass) in
        [(Blocked::UDP, (false, true)), (Blocked::TCP, (true, false)), (Blocked::BOTH, (false, false))]
    {
        lab.block(blocked);
        assert_eq!(passes(), pass, "{blocked:?}");
    }
    lab.block(Blocked::NOTHING);
    lab.down();
    assert_eq!(passes(), (false, false), "down");
    lab.up();
    assert_eq!(passes(), (true, true), "up again");
    let dropped = lab.seen().dropped;
    assert!(dropped["blocked"] >= 4 && dropped["down"] >= 2, "{dropped:?}");
}

#[test]
fn a_flow_through_the_lab_changes_its_addresses_as_behind_a_router() {
    let Some(lab) = Lab::start(4) else { return };
    let echo = Echo::start(lab.master_side());
    let probe = Probe::new(lab.agent_side(), &echo);
    let seen = || {
        probe.ask(LOST).expect("the datagrams go on");
        echo.last().unwrap()
    };
    let first = seen();
    assert_ne!(first.ip(), lab.agent_side().address, "translated");
    assert_eq!(seen(), first, "it keeps its address");
    lab.rebind();
    let second = seen();
    assert!(second.ip() == first.ip() && second.port() != first.port(), "{first} then {second}");
    let router = lab.readdress();
    assert_eq!(seen().ip(), router);
    let own = lab.move_agent();
    assert_ne!(own, lab.agent_side().address);
    let moved = seen();
    assert_eq!(moved.ip(), router, "the router is the same");
    lab.without_nat();
    assert_eq!(seen().ip(), own, "without a router its own address is seen");
}

#[test]
fn a_connection_whose_mapping_is_gone_is_reset_or_hangs() {
    let Some(lab) = Lab::start(5) else { return };
    for (lost, ends) in [(Lost::Reset, true), (Lost::Silent, false)] {
        lab.lost(lost);
        let (mut client, mut server) = connection(&lab);
        client.write_all(b"before").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        lab.rebind();
        client.write_all(b"after").unwrap();
        client.set_read_timeout(Some(LOST)).unwrap();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind() == std::io::ErrorKind::ConnectionReset, ends, "{lost:?}: {error}");
        let (mut client, mut server) = connection(&lab);
        client.write_all(b"anew").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_fates() {
    let lost = |seed: u64| {
        let lab = Lab::start(seed)?;
        lab.shape_one(Direction::Up, Shape { loss: Loss::Uniform(0.2), ..Shape::default() });
        let echo = Echo::start(lab.master_side());
        Some(Probe::new(lab.agent_side(), &echo).stream(600, Duration::from_micros(150), LOST))
    };
    let Some(first) = lost(6) else { return };
    assert_eq!(Some(&first), lost(6).as_ref());
    assert_ne!(Some(&first), lost(7).as_ref());
}

/// The namespace is gone with its lab, also when the test that had it panicked or was killed.
#[tokio::test]
async fn the_lab_leaves_nothing_behind() {
    let Some(lab) = Lab::start(8) else { return };
    let names = || {
        let output = Command::new(tool("ip")).args(["netns", "list"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    let own = lab.agent_side().prefix()[1].rsplit('/').next().unwrap().to_owned();
    assert!(names().contains(&own), "{own} is not in {:?}", names());
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("as a failed test does");
    });
    assert!(panicked.join().is_err());
    assert!(!names().contains(&own), "{own} is still in {:?}", names());
    // As a killed test leaves it: a namespace, and nobody who holds its number. The highest is nobody's.
    let left = "landline-255-a";
    assert!(Command::new(tool("ip")).args(["netns", "add", left]).status().unwrap().success());
    drop(Lab::start(8));
    until(Duration::from_secs(5), "it is removed", || !names().contains(left)).await;
}
