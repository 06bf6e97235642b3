//! What the owner of a machine has in hand, whatever the master wants: the lockdown.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::Agent,
    api::port_of,
    cli::{Cli, landline, output},
    liar::now_ms,
    link::Shape,
    master::Master,
    terminal::{Terminal, open},
    wait::{eventually, until},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// SECURITY R29.
const CUT_WITHIN: Duration = Duration::from_secs(1);

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

async fn owner(agent: &Agent, arguments: &[&str]) -> (Option<i32>, String) {
    let said = output(agent.command(arguments)).await;
    (said.status.code(), told(&said))
}

/// A process that a shell or an exec started wrote its number there.
fn is_alive(pid_file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // A corpse that nobody has buried yet runs no more.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Takes one connection and holds it.
fn silent_target() -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            // Probes say nothing; what says something is held until it is cut.
            if socket.read_exact(&mut [0]).is_ok() {
                let _ = socket.read(&mut [0]);
                return;
            }
        }
    });
    (port, held)
}

/// The figures of each thing's end are printed; all of them count from before the command was started.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_cuts_everything_within_a_second() {
    let master = Master::start().await;
    let (agent, link) = master.agent_behind("desk", 11).await;
    let api = master.api();
    let at = |name: &str| agent.folder.path().join(name);
    let (shell_pid, exec_pid, fled_pid) = (at("shell.pid"), at("exec.pid"), at("fled.pid"));
    // One that does not listen to a hang-up, and one that left its session but not its environment.
    let line = format!(
        "trap '' HUP; setsid sleep 600 & echo $! >{}; echo $$ >{}; echo up; while :; do sleep 1; done",
        fled_pid.display(),
        shell_pid.display()
    );
    let shell = open(&api, "desk", &line).await;
    let mut terminal = Terminal::attach(&api, &shell, "offset=0").await.unwrap();
    terminal.until_text("up").await;
    let script = format!("echo $$ >{}; echo runs; sleep 600", exec_pid.display());
    let mut exec = Cli::start(landline(&master, &["exec", "desk", "--shell", &script]));
    exec.prints("runs", SOON).await;
    let (port, held) = silent_target();
    let tunnel = api.open_tunnel("desk", port, "tcp").await;
    let mut client = TcpStream::connect(("127.0.0.1", port_of(&tunnel))).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"!").unwrap();
    let (here, there) = (at("here"), at("there"));
    std::fs::write(&here, vec![7; 32 << 20]).unwrap();
    link.shape(Shape { rate: Some(2_000_000), ..Shape::default() });
    let to = format!("desk:{}", there.display());
    let _copy = Cli::start(landline(&master, &["cp", here.to_str().unwrap(), &to]));
    until(SOON, "the copy is under way", || part(&agent).is_some_and(|bytes| bytes > 1 << 20)).await;
    assert!(is_alive(&shell_pid) && is_alive(&exec_pid) && is_alive(&fled_pid));

    let begun = Instant::now();
    let locking = tokio::spawn(output(agent.command(&["lockdown", "--reason", "odd logins since Monday"])));
    let reset = tokio::task::spawn_blocking(move || client.read(&mut [0]));
    until(CUT_WITHIN, "the shell is gone", || !is_alive(&shell_pid)).await;
    let shell_gone = begun.elapsed();
    until(CUT_WITHIN, "the exec is gone", || !is_alive(&exec_pid)).await;
    let exec_gone = begun.elapsed();
    until(CUT_WITHIN, "what left the shell's session is gone", || !is_alive(&fled_pid)).await;
    let fled_gone = begun.elapsed();
    until(CUT_WITHIN, "the target is let go", || held.is_finished()).await;
    let target_gone = begun.elapsed();
    assert!(begun.elapsed() < CUT_WITHIN, "{:?}", begun.elapsed());
    let locked = locking.await.unwrap();
    println!(
        "gone after: shell {shell_gone:?}, exec {exec_gone:?}, fled {fled_gone:?}, connection {target_gone:?}; {}",
        told(&locked).trim()
    );
    assert!(locked.status.success(), "{}", told(&locked));
    reset.await.unwrap().expect_err("the caller's connection is reset");
    let stood = part(&agent);

    // The master was told why, and tells whoever asks.
    let left = eventually(SOON, "it is offline", || async {
        let left = api.agent("desk").await;
        (left["presence"] == "offline").then_some(left)
    })
    .await;
    assert_eq!(left["disconnect_reason"], "locked_down_by_owner", "{left}");
    assert_eq!(exec.exit(SOON).await, Some(255));
    assert!(exec.stderr().contains("locked_down_by_owner"), "{}", exec.stderr());
    assert_eq!(terminal.exit().await["reason"], "locked_down_by_owner");
    let id = tunnel["id"].as_str().unwrap();
    assert_eq!(api.tunnel_becomes(id, "disconnected", SOON).await["closed_reason"], "locked_down_by_owner");
    let timeline = api.get("/agents/desk/timeline").await.to_string();
    assert!(timeline.contains("locked_down_by_owner"), "{timeline}");
    let info = told(&output(landline(&master, &["agents", "info", "desk"])).await);
    assert!(info.contains("locked_down_by_owner"), "{info}");
    assert!(!info.contains("Monday") && !timeline.contains("Monday") && !master.log().contains("Monday"));
    assert_eq!(part(&agent), stood, "nothing is written any more");
}

/// Size of what a copy has written so far.
fn part(agent: &Agent) -> Option<u64> {
    let mut entries = std::fs::read_dir(agent.folder.path()).unwrap().flatten();
    let part = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(".part"))?;
    Some(part.metadata().ok()?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lockdown_outlives_kills_and_starts_and_ends_by_the_owners_hand_alone() {
    let master = Master::start().await;
    let mut agent = master.agent("desk").await;
    let api = master.api();
    let (code, said) = owner(&agent, &["lockdown", "--reason", "away for a month"]).await;
    assert!(code == Some(0) && said.contains("locked down in"), "{said}");
    let (code, said) = owner(&agent, &["status"]).await;
    assert!(code == Some(1) && said.contains("LOCKED DOWN") && said.contains("away for a month"), "{said}");
    let since = status(&agent).await["since"].clone();
    for _ in 0..2 {
        agent.kill();
        let (code, said) = owner(&agent, &["status"]).await;
        assert!(code == Some(1) && said.contains("locked down by the owner since"), "{said}");
        agent.start();
        eventually(SOON, "it starts locked", || async { (status(&agent).await["line"] == "locked").then_some(()) })
            .await;
        assert_eq!(status(&agent).await["since"], since, "since when stays");
    }
    let (code, said) = owner(&agent, &["enrol"]).await;
    assert!(code == Some(1) && said.contains("lockdown --off"), "{said}");
    // A line takes a fraction of a second here: what stays away for five does not come.
    let away = tokio::time::timeout(Duration::from_secs(5), api.online("desk", Duration::from_secs(60)));
    assert!(away.await.is_err(), "it came back");

    let (code, said) = owner(&agent, &["lockdown", "--off"]).await;
    assert!(code == Some(0) && said.contains("connects again"), "{said}");
    api.online("desk", Duration::from_secs(5)).await;
    let ran = api.post("/agents/desk/commands", usage()).await;
    assert_eq!(ran["status"], "success", "{ran}");
    let (code, said) = owner(&agent, &["lockdown", "--off"]).await;
    assert!(code == Some(0) && said.contains("there was no lockdown"), "{said}");
    // What the agent brings along says why it was away, also where its goodbye was lost.
    let told = eventually(SOON, "the timeline has the agent's own view", || async {
        let timeline = api.get("/agents/desk/timeline").await.to_string();
        timeline.contains("agent.attempts").then_some(timeline)
    })
    .await;
    assert!(told.contains("the owner locked this machine down"), "{told}");

    // And with no agent that runs.
    agent.kill();
    let (code, said) = owner(&agent, &["lockdown"]).await;
    assert!(code == Some(0) && said.contains("no agent is running"), "{said}");
    agent.start();
    eventually(SOON, "it starts locked", || async { (status(&agent).await["line"] == "locked").then_some(()) }).await;
}

async fn status(agent: &Agent) -> Value {
    let said = output(agent.command(&["status", "--json"])).await;
    serde_json::from_slice(&said.stdout).unwrap_or_default()
}

fn usage() -> Value {
    json!({ "id": "look", "type": "COMMAND", "service": "system", "action": "getUsage", "timestamp": now_ms() / 1000 })
}
