//! What keeps a master or an agent from starting, and a database that stops answering: clear words, the right exit code,
//! and nothing left behind.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    master::Master,
    wait::{eventually, until},
};
use reqwest::Method;
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);
/// Exit codes: what the owner wrote is wrong, and everything else.
const USAGE: i32 = 64;
const FAILED: i32 = 1;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Starts the master, which must not come up, and gives its exit code and what it said.
async fn fails(master: &mut Master) -> (i32, String) {
    let before = master.log().len();
    master.spawn();
    until(SOON, "the master gives up", || master.process().exited().is_some()).await;
    let code = master.process().exited().unwrap().code().expect("no signal");
    (code, master.log()[before..].to_owned())
}

/// Each secret of the master, opened to others: it refuses with the command that closes it, and then starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_with_lax_modes_does_not_start() {
    let mut master = Master::start().await;
    assert!(master.terminate(SOON).await.success());
    let data = master.data();
    let cases = [
        (data.clone(), 0o755, 0o700),
        (data.join("ca"), 0o750, 0o700),
        (data.join("ca/ca.key"), 0o644, 0o600),
        (data.join("admin.token"), 0o640, 0o600),
        (data.join("quic.keys"), 0o604, 0o600),
        (data.join("landline.db"), 0o644, 0o600),
    ];
    for (path, lax, closed) in cases {
        assert!(path.exists(), "{} is not there: {:?}", path.display(), names(&data));
        mode(&path, lax);
        let (code, said) = fails(&mut master).await;
        let wanted = format!("chmod {closed:04o} {}", path.display());
        assert!(code == FAILED && said.contains(&wanted), "{}: {code} {said}", path.display());
        mode(&path, closed);
    }
    master.run().await;
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    let below: Vec<_> = names.iter().filter(|path| path.is_dir()).flat_map(std::fs::read_dir).flatten().collect();
    names.extend(below.into_iter().flatten().map(|entry| entry.path()));
    names.into_iter().map(|path| path.display().to_string()).collect()
}

/// The same for the agent.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_lax_modes_does_not_start() {
    let master = Master::start().await;
    let mut agent = master.agent("lax").await;
    agent.process().terminate(SOON).await;
    let state = agent.folder.path().join("state");
    let cases = [
        (state.clone(), 0o755, 0o700),
        (state.join("agent.key"), 0o644, 0o600),
        (state.join("enrolment.toml"), 0o640, 0o600),
    ];
    for (path, lax, closed) in cases {
        assert!(path.exists(), "{} is not there: {:?}", path.display(), names(&state));
        mode(&path, lax);
        let before = agent.log().len();
        agent.start();
        until(SOON, "the agent gives up", || agent.process().exited().is_some()).await;
        let code = agent.process().exited().unwrap().code().expect("no signal");
        let said = agent.log()[before..].to_owned();
        let wanted = format!("chmod {closed:04o} {}", path.display());
        assert!(code == FAILED && said.contains(&wanted), "{}: {code} {said}", path.display());
        mode(&path, closed);
    }
    agent.start();
    master.api().online("lax", SOON).await;
}

/// Every mistake at once, and 64, from the master and from the agent.
#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_a_configuration_is_told_at_once() {
    let mut master = Master::prepare("drain_s = -1\ncolour = \"red\"\ndatabase = \"mysql://x\"", "ttl_s = \"soon\"");
    let (code, said) = fails(&mut master).await;
    assert_eq!(code, USAGE, "{said}");
    for key in ["drain_s", "colour", "database", "tunnel.ttl_s", "4 mistake(s)"] {
        assert!(said.contains(key), "{key} is not told: {said}");
    }
    assert!(!master.data().exists(), "a master that did not start made its folder");

    let mut agent = Agent::new(&json!({ "id": "x", "join_token": "llj1_nonsense" }), Some(ALLOW_ALL));
    agent.set("LANDLINE_WORKER_THREADS", "0");
    agent.set("LANDLINE_KEEP_ALIVE_S", "never");
    agent.start();
    until(SOON, "the agent gives up", || agent.process().exited().is_some()).await;
    assert_eq!(agent.process().exited().unwrap().code(), Some(USAGE), "{}", agent.log());
    for key in ["join token", "worker_threads", "keep_alive_s", "3 mistakes"] {
        assert!(agent.log().contains(key), "{key} is not told: {}", agent.log());
    }
    assert!(!agent.log().contains("llj1_nonsense"), "{}", agent.log());
}

/// A second master on the same folder refuses, and the first one works on.
#[tokio::test(flavor = "multi_thread")]
async fn two_masters_do_not_share_a_folder() {
    let master = Master::start().await;
    let mut second = Master::prepare("", "");
    let config = second.folder.path().join("landline.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (theirs, ours) = (second.data().display().to_string(), master.data().display().to_string());
    std::fs::write(&config, text.replace(&theirs, &ours)).unwrap();
    let (code, said) = fails(&mut second).await;
    assert_eq!(code, FAILED, "{said}");
    assert!(said.contains("another master runs on") && said.contains(&ours), "{said}");
    master.add("still-here").await;
}

/// Each of the three sockets taken by somebody else: the key of the configuration is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_taken_by_someone_else_is_named() {
    let mut master = Master::prepare("", "");
    let address = |port: u16| format!("127.0.0.1:{port}");
    {
        let _other = TcpListener::bind(address(master.internal_port)).unwrap();
        let (code, said) = fails(&mut master).await;
        let named = said.contains("internal.listen") && said.contains(&address(master.internal_port));
        assert!(code == FAILED && named, "{code} {said}");
    }
    {
        let _other = TcpListener::bind(address(master.metrics_port)).unwrap();
        let (code, said) = fails(&mut master).await;
        assert!(code == FAILED && said.contains("metrics.listen"), "{code} {said}");
    }
    {
        let _other = UdpSocket::bind(address(master.public_port)).unwrap();
        let (code, said) = fails(&mut master).await;
        let named = said.contains("public") && said.contains(&address(master.public_port));
        assert!(code == FAILED && named, "{code} {said}");
    }
    master.run().await;
}

/// Somebody holds the database's lock: calls that write fail soon with a code of their own, reads and lines go on, and
/// all is well once it is let go.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_told_and_survived() {
    let master = Master::start().await;
    let _agent = master.agent("steady").await;
    let mut holder = hold_lock(&master.data().join("landline.db"));
    let started = Instant::now();
    let (status, code) =
        master.api().refused(Method::POST, "/agents", Some(json!({ "id": "later", "labels": {} }))).await;
    assert_eq!((status, code.as_str()), (503, "store_unavailable"));
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert_eq!(master.api().agent("steady").await["presence"], "online", "reading needs no lock");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let freed = Instant::now();
    eventually(Duration::from_secs(5), "the master writes again", || async {
        let (status, _) = master.api().call(Method::POST, "/agents", Some(json!({ "id": "later" }))).await;
        (status == 201).then_some(())
    })
    .await;
    println!("written {:?} after the lock was let go", freed.elapsed());
    assert_eq!(master.api().agent("steady").await["presence"], "online");
    assert!(!master.log().contains("panicked"));
}

/// Another program that holds the lock of a SQLite file until it is killed.
fn hold_lock(path: &Path) -> Child {
    const PROGRAM: &str = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=5); \
        c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed by deploy/dev/install-test-tools");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "held");
    child
}
