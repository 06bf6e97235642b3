//! Addresses change under a line in the middle of what runs on it: the router forgets its mappings, gets another address,
//! and the machine itself gets one. Forwarded connections, shells and copies go on; how long they stood still is printed
//! (SECURITY, reliability figures).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use landline_tests::{
    api::port_of,
    copying::{content, cp, parts_in},
    lab::{
        Lab,
        gaps::{Gaps, Ticker},
    },
    link::Shape,
    master::Master,
    soak,
    terminal::{Terminal, open},
    wait::{eventually, until},
};
use tokio_util::task::AbortOnDropHandle;

/// A home's way out: 20 ms there, 20 back, 20 Mb/s.
const DELAY: Duration = Duration::from_millis(20);
const RATE: u64 = 2_500_000;
/// What is promised of a line that is in use; and past a gap of three seconds.
const PROMISED: Duration = Duration::from_secs(2);
const PAST_A_GAP: Duration = Duration::from_secs(3);
/// What is promised of a new connection on a quiet line.
const SOON: Duration = Duration::from_secs(1);
/// The same after sleep: a second until the clock of the test moves, and one until it is looked at.
const AFTER_SLEEP: Duration = Duration::from_secs(3);
/// How long anything may stand still before the test says that it does not go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often everything has to go on after a change before the next.
fn steady() -> usize {
    soak::count(8, 20)
}

/// What else is on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Upload,
    Download,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Mappings,
    RoutersAddress,
    OwnAddress,
}

const CHANGES: [Change; 3] = [Change::Mappings, Change::RoutersAddress, Change::OwnAddress];

impl Change {
    fn make(self, lab: &Lab) {
        match self {
            Self::Mappings => lab.rebind(),
            Self::RoutersAddress => _ = lab.readdress(),
            Self::OwnAddress => _ = lab.move_agent(),
        }
    }
}

/// Keys typed into a shell, one after the other, each after the echo of the one before.
async fn typing(master: &Master) -> (Gaps, AbortOnDropHandle<()>) {
    let api = master.api();
    let id = open(&api, "far", "stty raw -echo; echo ready; exec cat").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("ready").await;
    let gaps = Gaps::default();
    let marks = gaps.clone();
    let typist = async move {
        loop {
            let length = terminal.shown.len();
            terminal.send(b"k").await;
            terminal.until(|terminal| terminal.shown.len() > length).await;
            assert!(terminal.closed.is_none(), "the shell ended: {:?}", terminal.closed);
            marks.mark();
            // The pace of a fast typist's key that repeats.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    (gaps, AbortOnDropHandle::new(tokio::spawn(typist)))
}

/// A connection through a tunnel to an echo behind the agent.
async fn forwarded(master: &Master, echo: u16) -> Ticker {
    let tunnel = master.api().open_tunnel("far", echo, "tcp").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    Ticker::start(TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap())
}

/// Marked whenever a file that is not finished has grown.
fn growing(folder: &Path) -> (Gaps, AbortOnDropHandle<()>) {
    let (gaps, folder) = (Gaps::default(), folder.to_owned());
    let marks = gaps.clone();
    let watch = async move {
        let mut known = 0;
        loop {
            let sizes = parts_in(&folder).into_iter().filter_map(|part| std::fs::metadata(folder.join(part)).ok());
            let size = sizes.map(|meta| meta.len()).sum::<u64>();
            if size > known {
                marks.mark();
            }
            known = size;
            // How often it is looked at.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    (gaps, AbortOnDropHandle::new(tokio::spawn(watch)))
}

/// Makes a change and waits until everything that goes on has gone on; the longest that any of them stood still.
async fn stall(lab: &Lab, change: Change, all: &[&Gaps]) -> Duration {
    let settled = Instant::now();
    until(PATIENCE, "everything flows", || all.iter().all(|gaps| gaps.count_since(settled) > steady())).await;
    let changed = Instant::now();
    change.make(lab);
    until(PATIENCE, "everything goes on", || all.iter().all(|gaps| gaps.count_since(changed) > steady())).await;
    all.iter().map(|gaps| gaps.worst_since(changed)).max().unwrap()
}

/// Goes through the changes with a copy beside, or none, and prints the stalls.
async fn roam(lab: &Lab, master: &Master, beside: Beside, gaps: &[&Gaps]) -> Vec<Duration> {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = content(60_000_000, 4);
    let path = |folder: &tempfile::TempDir| folder.path().join("f").display().to_string();
    let (local, remote) = (path(&here), format!("far:{}", path(&there)));
    let (source, target, arguments) = match beside {
        Beside::Download => (&there, &here, ["-q", &remote, &local]),
        Beside::Upload | Beside::Nothing => (&here, &there, ["-q", &local, &remote]),
    };
    let mut copy = None;
    if beside != Beside::Nothing {
        std::fs::write(path(source), &bytes).unwrap();
        copy = Some(cp(master, &arguments).spawn().unwrap());
    }
    let (grows, _watch) = growing(target.path());
    let mut all = gaps.to_vec();
    all.extend(copy.is_some().then_some(&grows));
    let mut stalls = Vec::new();
    for change in CHANGES {
        let stood = stall(lab, change, &all).await;
        println!("{change:?}, beside {beside:?}: nothing stood still for more than {stood:.2?}");
        stalls.push(stood);
    }
    if let Some(mut copy) = copy {
        assert!(copy.try_wait().unwrap().is_none(), "the copy was over before the changes were");
        lab.shape(Shape { delay: DELAY, ..Shape::default() });
        until(PATIENCE, "the copy ends", || copy.try_wait().unwrap().is_some()).await;
        assert!(copy.wait_with_output().unwrap().status.success());
        assert!(std::fs::read(path(target)).unwrap() == bytes, "the file is another one");
    }
    stalls
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_addresses_change_and_nobody_notices() {
    let Some(lab) = Lab::start(31) else { return };
    let master = Master::start_in(&lab).await;
    let _agent = master.agent_in(&lab, "far").await;
    let since = master.api().agent("far").await["connected_at"].clone();
    let shape = Shape { delay: DELAY, rate: Some(RATE), ..Shape::default() };
    let ticker = forwarded(&master, lab.agent_side().echoing()).await;
    let (keys, typist) = typing(&master).await;
    for beside in [Beside::Nothing, Beside::Upload, Beside::Download] {
        let mut stalls = Vec::new();
        for _ in 0..soak::count(1, 5) {
            lab.shape(shape);
            stalls.extend(roam(&lab, &master, beside, &[&ticker.gaps, &keys]).await);
        }
        let worst = stalls.iter().max().unwrap();
        println!("beside {beside:?}, {} changes: stood still {worst:.2?} at most", stalls.len());
        assert!(*worst <= PROMISED, "{worst:?} beside {beside:?}");
    }
    assert_eq!(ticker.ended(), None, "the forwarded connection lives");
    assert!(!typist.is_finished(), "the shell lives");
    let now = master.api().agent("far").await["connected_at"].clone();
    println!("the line is {}", if now == since { "the same all along" } else { "another one" });
}

/// The link is down for three seconds, and everything has another port when it returns.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_short_gap_with_a_new_address_behind_it() {
    let Some(lab) = Lab::start(33) else { return };
    let master = Master::start_in(&lab).await;
    let _agent = master.agent_in(&lab, "far").await;
    lab.shape(Shape { delay: DELAY, rate: Some(RATE), ..Shape::default() });
    let ticker = forwarded(&master, lab.agent_side().echoing()).await;
    let (keys, _typist) = typing(&master).await;
    let mut worst = Duration::ZERO;
    for change in CHANGES.into_iter().cycle().take(soak::count(1, 9)) {
        lab.down();
        change.make(&lab);
        // The length of the gap is what is asked for.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let returned = Instant::now();
        lab.up();
        let both = [&ticker.gaps, &keys];
        until(PATIENCE, "both go on", || both.iter().all(|gaps| gaps.count_since(returned) > 0)).await;
        println!("{change:?}, in a gap of 3 s: went on {:.2?} after it", returned.elapsed());
        worst = worst.max(returned.elapsed());
        until(PATIENCE, "both are steady", || both.iter().all(|gaps| gaps.count_since(returned) > steady())).await;
    }
    assert_eq!(ticker.ended(), None, "the forwarded connection lives");
    assert!(worst <= PAST_A_GAP, "{worst:?}");
}

/// Nothing was said for a while when the machine gets another address, and then somebody connects: nobody reaches the agent
/// before it says where it is, so it says so at once.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_quiet_line_whose_machine_moved_takes_a_connection_at_once() {
    let Some(lab) = Lab::start(35) else { return };
    let master = Master::start_in(&lab).await;
    let agent = master.agent_in(&lab, "far").await;
    lab.shape(Shape { delay: DELAY, ..Shape::default() });
    let tunnel = master.api().open_tunnel("far", lab.agent_side().echoing(), "tcp").await;
    let mut times = Vec::new();
    for round in 0..soak::count(4_u64, 20) {
        // At another moment between two signs of life each time.
        tokio::time::sleep(Duration::from_millis(1_000 + 700 * (round % 7))).await;
        lab.move_agent();
        times.push(first_answer(port_of(&tunnel)));
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "a quiet line, {} addresses: a new connection answers after {median:.2?}, {worst:.2?} at worst",
        times.len()
    );
    assert!(worst <= SOON, "{worst:?}");
    let moves = agent.log().matches("the line moved over").count();
    assert_eq!(moves, times.len(), "one move for each address:\n{}", agent.log());
    let told = || async {
        let timeline = master.api().get("/agents/far/timeline?limit=200").await.to_string();
        assert!(!timeline.contains("agent.offline"), "{timeline}");
        timeline.contains("agent.address").then_some(())
    };
    eventually(PATIENCE, "the timeline says that the line goes on from another address", told).await;
}

/// The machine sleeps, and its router forgets it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_machine_that_slept_says_where_it_is() {
    let Some(lab) = Lab::start(36) else { return };
    let master = Master::start_in(&lab).await;
    let mut agent = master.agent_in(&lab, "far").await;
    agent.kill();
    // A wall clock that moves while the other stands still is what a process sees of sleep.
    agent.adjustable_clock();
    agent.start();
    master.api().online("far", PATIENCE).await;
    lab.shape(Shape { delay: DELAY, ..Shape::default() });
    let tunnel = master.api().open_tunnel("far", lab.agent_side().echoing(), "tcp").await;
    let mut times = Vec::new();
    for hour in 1..=soak::count(2, 7) {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        lab.rebind();
        agent.set_clock(hour);
        times.push(first_answer(port_of(&tunnel)));
    }
    println!("after sleep a new connection answers after {times:.2?}");
    assert!(agent.log().contains("this machine slept for"), "{}", agent.log());
    assert!(times.iter().all(|time| *time <= AFTER_SLEEP), "{times:?}");
}

/// How long a new connection takes to say something back.
fn first_answer(port: u16) -> Duration {
    let asked = Instant::now();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"?").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    asked.elapsed()
}

/// Nothing was said for a while when the router forgets, and then the master's side speaks first: nobody reaches the agent
/// before it says something by itself. That is its sign of life, every five seconds: two seconds are promised, and missed.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_quiet_line_whose_router_forgot_answers_again() {
    let Some(lab) = Lab::start(34) else { return };
    let master = Master::start_in(&lab).await;
    let _agent = master.agent_in(&lab, "far").await;
    lab.shape(Shape { delay: DELAY, ..Shape::default() });
    let tunnel = master.api().open_tunnel("far", lab.agent_side().echoing(), "tcp").await;
    let mut socket = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut times = Vec::new();
    for round in 0..soak::count(3_u64, 15) {
        // At another moment between two signs of life each time.
        tokio::time::sleep(Duration::from_millis(1_000 + 700 * (round % 7))).await;
        lab.rebind();
        let asked = Instant::now();
        socket.write_all(b"?").unwrap();
        socket.read_exact(&mut [0]).unwrap();
        times.push(asked.elapsed());
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "a quiet line, {} flushes: median {median:.2?}, worst {worst:.2?}; {PROMISED:?} are promised",
        times.len()
    );
    assert!(worst < Duration::from_secs(7), "{worst:?}");
}
