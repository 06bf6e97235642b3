//! Cells of the table in docs/tasks/README.md that no other test holds: what a suspension, a new policy and a short silence
//! do to what is under way.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    cli::{Cli, landline, output},
    link::Shape,
    master::Master,
    peers::echo,
    wait::{eventually, until},
};
use reqwest::Method;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// `landline forward` to a port behind the agent, and where it listens.
async fn forward(master: &Master, agent: &str, port: u16) -> (Cli, String) {
    let cli = Cli::start(landline(master, &["forward", agent, &format!("0:localhost:{port}")]));
    cli.prints("\n", SOON).await;
    let listen = cli.printed().split_whitespace().next().unwrap().to_owned();
    (cli, listen)
}

fn says(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back)?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

async fn set_status(master: &Master, agent: &str, status: &str) {
    let change = Some(json!({ "status": status }));
    assert!(master.api().call(Method::PATCH, &format!("/agents/{agent}"), change).await.0.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_execs_and_connections_and_a_copy_waits_for_its_end() {
    let master = Master::start().await;
    let (mut agent, link) = master.agent_behind("desk", 3).await;
    let mut exec = Cli::start(landline(&master, &["exec", "desk", "--shell", "echo runs; sleep 600"]));
    exec.prints("runs", SOON).await;
    let (_forward, listen) = forward(&master, "desk", echo()).await;
    let mut connection = TcpStream::connect(&listen).unwrap();
    assert_eq!(says(&mut connection, "before").unwrap(), "before");
    let (here, there) = (agent.folder.path().join("here"), agent.folder.path().join("there"));
    let mut content = vec![0; 12 << 20];
    blake3::Hasher::new().update(b"copy").finalize_xof().fill(&mut content);
    std::fs::write(&here, &content).unwrap();
    link.shape(Shape { rate: Some(2_000_000), ..Shape::default() });
    let to = format!("desk:{}", there.display());
    let mut copy = Cli::start(landline(&master, &["cp", here.to_str().unwrap(), &to]));
    until(SOON, "the copy is under way", || {
        let parts = std::fs::read_dir(agent.folder.path()).unwrap().flatten();
        parts
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
            .any(|part| part.metadata().is_ok_and(|meta| meta.len() > 1 << 20))
    })
    .await;
    link.shape(Shape::default());

    let suspended = Instant::now();
    set_status(&master, "desk", "suspended").await;
    assert_eq!(exec.exit(Duration::from_secs(5)).await, Some(255));
    println!("the exec was told of the suspension after {:?}", suspended.elapsed());
    assert!(exec.stderr().contains("suspended"), "{}", exec.stderr());
    assert!(says(&mut connection, "after").is_err());
    assert!(TcpStream::connect(&listen).and_then(|mut socket| says(&mut socket, "new")).is_err());
    set_status(&master, "desk", "active").await;
    // It would come by itself, within its patience after a refusal.
    agent.kill();
    agent.start();
    assert_eq!(copy.exit(Duration::from_secs(60)).await, Some(0), "{}", copy.stderr());
    assert!(std::fs::read(&there).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_holds_when_the_agent_starts_again() {
    let master = Master::start().await;
    let mut agent: Agent = master.agent_under("desk", Some(ALLOW_ALL)).await;
    let mut exec = Cli::start(landline(&master, &["exec", "desk", "--shell", "echo runs; sleep 600"]));
    exec.prints("runs", SOON).await;
    let mut shell = Cli::start(landline(&master, &["shell", "desk"]));
    let mut keys = shell.stdin();
    keys.write_all(b"echo shell-$((6*7))\n").unwrap();
    shell.prints("shell-42", SOON).await;
    let (_forward, listen) = forward(&master, "desk", echo()).await;
    let mut connection = TcpStream::connect(&listen).unwrap();
    assert_eq!(says(&mut connection, "before").unwrap(), "before");

    std::fs::write(agent.folder.path().join("policy.toml"), "[exec]\nallow = [\"true\"]\n").unwrap();
    assert_eq!(output(landline(&master, &["exec", "desk", "--", "echo", "still"])).await.status.code(), Some(0));
    agent.process().terminate(SOON).await;
    agent.start();
    assert_eq!(exec.exit(SOON).await, Some(255));
    assert!(exec.stderr().contains("outcome_unknown"), "{}", exec.stderr());
    assert_eq!(shell.exit(SOON).await, Some(255));
    println!("the shell: {}", shell.stderr());
    assert!(says(&mut connection, "after").is_err());
    let ran = eventually(SOON, "the agent is back", || async {
        let ran = output(landline(&master, &["exec", "desk", "--", "echo", "no more"])).await;
        let why = String::from_utf8_lossy(&ran.stderr).into_owned();
        (!why.contains("agent_offline")).then_some(why)
    })
    .await;
    assert!(ran.contains("policy"), "{ran}");
    assert!(TcpStream::connect(&listen).and_then(|mut socket| says(&mut socket, "new")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_a_line_that_is_silent_for_less_than_ten_seconds() {
    let master = Master::start().await;
    let (_agent, link) = master.agent_behind("far", 9).await;
    let (_forward, listen) = forward(&master, "far", echo()).await;
    let mut connection = TcpStream::connect(&listen).unwrap();
    assert_eq!(says(&mut connection, "before").unwrap(), "before");
    link.readdress();
    assert_eq!(says(&mut connection, "elsewhere").unwrap(), "elsewhere");
    link.cut();
    let spoken = std::thread::spawn(move || says(&mut connection, "meanwhile").unwrap());
    tokio::time::sleep(Duration::from_secs(4)).await;
    link.restore();
    until(SOON, "it goes on", || spoken.is_finished()).await;
    assert_eq!(spoken.join().unwrap(), "meanwhile");
}
