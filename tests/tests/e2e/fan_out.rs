//! `landline exec` on many agents: so many at once, stopped when too many fail or somebody says so, and the same answers
//! told once (SECURITY R20).

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use landline_tests::{
    agent::Agent,
    cli::{Cli, landline, output},
    master::Master,
    process::resident,
    wait::{eventually, until},
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// A master and agents `a1`, `a2`, … that allow everything, labelled `env=prod`.
async fn world(agents: usize) -> (Master, Vec<Agent>) {
    let master = Master::start().await;
    let mut all = Vec::new();
    for number in 1..=agents {
        let agent = master.agent(&format!("a{number}")).await;
        label(&master, &agent.id).await;
        all.push(agent);
    }
    (master, all)
}

async fn label(master: &Master, id: &str) {
    let change = Some(json!({ "labels": { "env": "prod" } }));
    assert!(master.api().call(Method::PATCH, &format!("/agents/{id}"), change).await.0.is_success());
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

/// How many programs of a fan-out left their pid in this folder and still live.
fn alive(folder: &Path) -> usize {
    let pids = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    pids.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count()
}

fn started(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_agents_one_offline_one_failing() {
    let (master, mut agents) = world(5).await;
    agents[3].process().terminate(SOON).await;
    master.api().presence("a4", "offline", SOON).await;
    // What tells them apart is their parent, the agent itself.
    let folder = agents[4].folder.path().display();
    let line = format!("echo same; if grep -q {folder} /proc/$PPID/environ; then echo odd >&2; exit 3; fi");
    let ran = output(landline(&master, &["exec", "--selector", "env=prod", "--shell", &line])).await;
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(1), "{out}\n{err}");
    for agent in ["a1", "a2", "a3", "a5"] {
        assert!(out.contains(&format!("{agent} | same\n")), "{out}");
    }
    assert!(err.contains("a5 | odd\n") && err.contains("a5 failed, exit 3") && err.contains("a4 offline"), "{err}");
    let alike = out.lines().find(|line| line.starts_with("3 ")).unwrap_or_else(|| panic!("no group of three: {out}"));
    assert!(alike.ends_with("a1, a2, a3"), "{alike}");
    assert!(out.trim_end().ends_with("5 agents: 3 ok, 1 failed, 1 offline"), "{out}");

    let ran = output(landline(&master, &["exec", "--agents", "a1,a2,a5,a1", "--grouped", "--shell", &line])).await;
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(out.starts_with("=== 2 agents, exit 0: a1, a2 ===\nsame\n=== 1 agent, exit 3: a5 ===\n"), "{out}");
    assert_eq!(ran.status.code(), Some(1));

    let ran = output(landline(&master, &["exec", "--all", "-o", "json", "--shell", &line])).await;
    let lines = json_lines(&ran.stdout);
    let summary = lines.last().unwrap();
    assert_eq!(summary["type"], "summary");
    let counts =
        ["agents", "ok", "failed", "offline", "not_started", "exit_code"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [5, 3, 1, 1, 0, 1], "{summary}");
    assert_eq!(summary["groups"][0]["agents"], json!(["a1", "a2", "a3"]));
    let of_a5: Vec<_> = lines.iter().filter(|line| line["agent"] == "a5").map(|line| line["type"].clone()).collect();
    assert_eq!(of_a5.first().unwrap(), "started");
    assert_eq!(of_a5.last().unwrap(), "result");

    // All of them succeed; nothing can be run; a name that is not there.
    let code = async |arguments: &[&str]| output(landline(&master, arguments)).await.status.code();
    assert_eq!(code(&["exec", "--agents", "a1,a2", "--", "true"]).await, Some(0));
    assert_eq!(code(&["exec", "--agents", "a4", "--", "true"]).await, Some(255));
    assert_eq!(code(&["exec", "--agents", "a1,typo", "--", "true"]).await, Some(255));
    assert_eq!(code(&["exec", "--selector", "env=none", "--", "true"]).await, Some(255));
    // Input goes to each of them.
    let mut cli = Cli::start(landline(&master, &["exec", "--agents", "a1,a2", "-i", "--", "cat"]));
    std::io::Write::write_all(&mut cli.stdin(), b"typed\n").unwrap();
    assert_eq!(cli.exit(SOON).await, Some(0));
    assert!(cli.printed().contains("a1 | typed\n") && cli.printed().contains("a2 | typed\n"), "{}", cli.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_stop_it_and_no_more_run_at_once_than_allowed() {
    let (master, agents) = world(5).await;
    let folder = tempfile::tempdir().unwrap();
    let line = format!("touch {}/$$; exit 1", folder.path().display());
    let call = ["exec", "--all", "--concurrency", "1", "--fail-at", "40%", "-o", "json", "--shell", &line];
    let ran = output(landline(&master, &call)).await;
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(started(folder.path()), 2);
    let lines = json_lines(&ran.stdout);
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["failed"], &summary["not_started"], &summary["stopped"]),
        (&json!(2), &json!(3), &json!("fail_at"))
    );
    let result = lines.iter().find(|line| line["agent"] == "a5").unwrap();
    assert_eq!((&result["type"], &result["result"]), (&json!("result"), &json!("not_started")));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let line = format!("touch {path}/$$; ls {path} | wc -l; sleep 0.5; rm {path}/$$");
    let ran = output(landline(&master, &["exec", "--all", "--concurrency", "2", "--shell", &line])).await;
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{out}");
    let at_once =
        out.lines().filter_map(|line| line.split_once(" | ")).map(|(_, count)| count.trim().parse::<u32>().unwrap());
    assert_eq!(at_once.max(), Some(2), "{out}");
    drop(agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_programs_that_print_for_ever_even_into_a_pipe_that_nobody_reads() {
    let (master, agents) = world(4).await;
    let folder = tempfile::tempdir().unwrap();
    let line = format!("touch {}/$$; exec yes", folder.path().display());
    let call = ["exec", "--all", "--concurrency", "3", "--shell", &line];
    let mut command = landline(&master, &call);
    let mut stuck = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    until(SOON, "three of them run", || started(folder.path()) == 3).await;
    let stopped = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&stuck), Signal::INT).unwrap();
    until(Duration::from_secs(5), "nothing is left running", || alive(folder.path()) == 0).await;
    let took = stopped.elapsed();
    println!("three floods were gone {took:?} after Ctrl-C");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let mut status = None;
    until(SOON, "landline ends", || {
        status = stuck.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!((status.unwrap().code(), started(folder.path())), (Some(130), 3), "the fourth was never started");
    let running = master.api().get("/execs?running=true").await;
    assert_eq!(running["items"], json!([]));

    // The same while it is read, with what became of each.
    let mut cli =
        Cli::start(landline(&master, &["exec", "--all", "--concurrency", "2", "-o", "json", "--", "sleep", "600"]));
    eventually(SOON, "two of them run", || async { (cli.printed().matches("\"started\"").count() == 2).then_some(()) })
        .await;
    cli.signal(Signal::INT);
    assert_eq!(cli.exit(SOON).await, Some(130));
    let lines = json_lines(&cli.stdout());
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["cancelled"], &summary["not_started"], &summary["stopped"]),
        (&json!(2), &json!(2), &json!("interrupted"))
    );
    drop(agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_of_two_costs_little_memory_and_is_complete() {
    let (master, agents) = world(2).await;
    let line = "head -c 67108864 /dev/zero | tr '\\0' x | fold -w 1023";
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = landline(&master, &["exec", "--all", "--shell", line]);
    let mut cli = command.stdin(Stdio::null()).stdout(file.reopen().unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let (mut most, mut status) = (0, None);
    until(Duration::from_secs(240), "both are done", || {
        most = most.max(resident(cli.id()));
        status = cli.try_wait().unwrap();
        status.is_some()
    })
    .await;
    println!("2 × 64 MiB of output: at most {} MiB resident", most >> 20);
    assert_eq!(status.unwrap().code(), Some(0));
    assert!(most < 64 << 20, "{most}");
    let printed = std::fs::read(file.path()).unwrap();
    assert_eq!(printed.iter().filter(|byte| **byte == b'x').count(), 2 << 26);
    let end = String::from_utf8_lossy(&printed[printed.len() - 500..]).into_owned();
    assert!(end.contains("a1, a2") && end.contains("2 agents: 2 ok"), "{end}");
    drop(agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_does_not_end_it() {
    let (mut master, agents) = world(3).await;
    let line = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; sleep 0.05; done";
    let mut cli = Cli::start(landline(&master, &["exec", "--all", "--concurrency", "2", "--shell", line]));
    cli.prints("a1 | 20\n", SOON).await;
    master.kill();
    master.run().await;
    assert_eq!(cli.exit(Duration::from_secs(90)).await, Some(0), "{}\n{}", cli.stderr(), cli.printed());
    let printed = cli.printed();
    for agent in &agents {
        let prefix = format!("{} | ", agent.id);
        let counted: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let expected: Vec<_> = (1..=100).map(|number: u32| number.to_string()).collect();
        assert_eq!(counted, expected, "{}", agent.id);
    }
}
