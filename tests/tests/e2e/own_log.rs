//! The agent's own log: it has what was done and what was refused, a hostile master cannot reach it by any message, and an
//! edit is named.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    cli::output,
    liar::{Liar, LiarLine, now_ms},
    master::Master,
    wait::{eventually, until},
};
use proto::{
    code::Code,
    exec::{ExecSpec, FromExec, Program},
    file::{ArchiveFormat, FileName, FilePath, FileRequest, FromFile, HashAlgorithm},
    id::RequestId,
    net::stream::FrameStream,
    open::{OpenReply, Operation, Target},
    transfer::{FromWrite, ReadSpec, WriteSpec},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

async fn log(agent: &Agent, arguments: &[&str]) -> (Option<i32>, String) {
    let said = output(agent.command(&[&["log"], arguments].concat())).await;
    (said.status.code(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// The bodies, oldest first.
async fn entries(agent: &Agent) -> Vec<Value> {
    let (_, text) = log(agent, &["--json", "--last", "100000"]).await;
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            serde_json::from_str(line["body"].as_str().unwrap()).unwrap()
        })
        .collect()
}

async fn has(agent: &Agent, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(SOON, &format!("the log has {what}"), || async {
        entries(agent).await.into_iter().find(|entry| entry["what"] == what && holds(entry))
    })
    .await
}

fn file_in_log(agent: &Agent, chain: &str) -> PathBuf {
    let dir = agent.folder.path().join("state/log");
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(chain));
    names.pop().unwrap()
}

/// The script of docs/tasks/audit.md, over one chain.
fn checked_by_the_documented_script(lines: &str, chain: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tasks/audit.md");
    let page = std::fs::read_to_string(page).unwrap();
    let script = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines.lines().filter(|line| line.contains(&format!("\"chain\":\"{chain}\""))) {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let said = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_what_was_done_and_what_was_refused_and_an_edit_is_named() {
    let master = Master::start().await;
    let mut agent = master.agent_under("desk", Some("[forward]\ntargets = [\"localhost:*\"]\n[exec]\nallow = [\"echo *\", \"sleep *\"]\n[commands]\nallow = [\"system.*\"]\n[files]\nroots = [\"/tmp\"]\n")).await;
    let api = master.api();
    let run = async |argv: &[&str]| {
        let request = api.request(reqwest::Method::POST, "/agents/desk/exec").json(&json!({ "argv": argv }));
        request.send().await.unwrap().text().await.unwrap()
    };
    assert!(run(&["echo", "it's", "\u{1b}[2J"]).await.contains("\"code\":0"));
    let refused = run(&["id"]).await;
    assert!(refused.contains("policy"), "{refused}");
    api.post("/agents/desk/commands", json!({ "id": "look", "type": "COMMAND", "service": "system", "action": "getUsage", "timestamp": now_ms() / 1000 })).await;

    let start = has(&agent, "exec.start", |entry| entry["target"].as_str().unwrap().starts_with("echo")).await;
    assert!(start["verdict"].as_str().unwrap().contains("exec.allow") && start["master_time"].is_string(), "{start}");
    let id = start["id"].clone();
    has(&agent, "exec.end", |entry| entry["id"] == id && entry["result"] == "exit 0").await;
    let refused = has(&agent, "exec.refused", |entry| entry["target"] == "id").await;
    assert_eq!(refused["result"], "policy", "{refused}");
    has(&agent, "command", |entry| entry["target"] == "system.getUsage" && entry["result"] == "done").await;
    has(&agent, "line.up", |_| true).await;
    let (_, shown) = log(&agent, &[]).await;
    assert!(
        shown.contains("\\u{1b}[2J") && !shown.contains('\u{1b}'),
        "what the master wrote drives no terminal: {shown}"
    );
    // A start is there before the end is, and before a kill.
    let request = api.request(reqwest::Method::POST, "/agents/desk/exec").json(&json!({ "argv": ["sleep", "600"] }));
    let running = request.send().await.unwrap();
    has(&agent, "exec.start", |entry| entry["target"] == "sleep 600").await;
    agent.kill();
    drop(running);
    agent.start();
    api.online("desk", SOON).await;
    eventually(SOON, "both starts are in the log", || async {
        let all = entries(&agent).await;
        (all.iter().filter(|entry| entry["what"] == "agent.start").count() == 2).then_some(())
    })
    .await;

    let (code, said) = log(&agent, &["verify"]).await;
    assert!(code == Some(0) && said.contains("note elsewhere: acts:"), "{said}");
    let noted = said.split("note elsewhere: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let (_, lines) = log(&agent, &["--json", "--last", "100000"]).await;
    for chain in ["acts", "traffic"] {
        let told = checked_by_the_documented_script(&lines, chain);
        assert!(told.starts_with("whole up to row"), "{chain}: {told}");
    }
    // One letter of one line.
    let path = file_in_log(&agent, "acts");
    let good = std::fs::read_to_string(&path).unwrap();
    let number = good.lines().position(|line| line.contains("sleep 600")).unwrap() + 1;
    std::fs::write(&path, good.replacen("sleep 600", "sleep 601", 1)).unwrap();
    let (code, said) = log(&agent, &["verify"]).await;
    assert!(code == Some(1) && said.contains(&format!("acts: BROKEN at line {number} ")), "{said}");
    assert!(said.contains("it was changed"), "{said}");
    // The tail, while no agent runs: only what was noted tells.
    agent.kill();
    let kept: String = good.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, kept).unwrap();
    assert_eq!(log(&agent, &["verify"]).await.0, Some(0));
    let (code, said) = log(&agent, &["verify", "--noted", &noted]).await;
    assert!(code == Some(1) && said.contains("missing at the end"), "{said}");
}

fn at(path: &Path) -> FilePath {
    FilePath(path.as_os_str().as_encoded_bytes().to_vec())
}

async fn ends_with(stream: &mut FrameStream) -> Code {
    loop {
        match stream.read_within::<FromFile>(SOON).await.unwrap() {
            FromFile::Failed { code, .. } => return code,
            FromFile::Done(_) => return Code::DONE,
            FromFile::Entries(entries) => {
                let names: Vec<_> =
                    entries.iter().map(|entry| String::from_utf8_lossy(&entry.name.0).into_owned()).collect();
                assert!(!names.iter().any(|name| name.ends_with(".jsonl") || name.ends_with("agent.key")), "{names:?}");
            }
            FromFile::Lines(lines) => assert!(lines.is_empty(), "{lines:?}"),
            FromFile::Type { .. } | FromFile::Hash(_) | FromFile::Target(_) => {}
        }
    }
}

/// Every operation that knows a path, at the agent's own folder, by its name, through links, from above and as an archive:
/// refused, nothing read, and afterwards the log verifies and has each attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_liar_with_the_whole_disk_reaches_neither_the_log_nor_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::start(folder.path(), "victim");
    let mut agent = Agent::new(&liar.created(), Some("[files]\nroots = [\"/\"]\n"));
    agent.start();
    let line = liar.line(now_ms()).await;
    let (top, state) = (agent.folder.path().to_owned(), agent.folder.path().join("state"));
    std::os::unix::fs::symlink(&state, top.join("link")).unwrap();
    std::fs::create_dir(top.join("elsewhere")).unwrap();
    until(SOON, "there is a log", || state.join("log").exists() && state.join("enrolment.toml").exists()).await;
    let key = std::fs::read(state.join("agent.key")).unwrap();
    let before: Vec<_> = modes(&state);
    let file = async |request: FileRequest| {
        let open = LiarLine::header(RequestId::random(), now_ms(), Operation::File(request.clone()));
        let (reply, mut stream) = line.open(&open).await;
        assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{request:?}: {reply:?}");
        ends_with(&mut stream).await
    };
    let acts = file_in_log(&agent, "acts");
    let inside = ["agent.key", "log", "lockdown", "enrolment.toml", "status.sock"].map(|name| state.join(name));
    let through = [state.clone(), top.join("link"), top.join("link/log"), top.join("link/agent.key"), acts.clone()];
    for path in inside.iter().chain(&through) {
        for request in asked_of(path, &top) {
            let code = file(request.clone()).await;
            assert!([Code::OUTSIDE_ROOTS, Code::READ_ONLY].contains(&code), "{request:?}: {code}");
        }
        for operation in carried(path) {
            let (reply, mut stream) =
                line.open(&LiarLine::header(RequestId::random(), now_ms(), operation.clone())).await;
            let code = match reply {
                Ok(OpenReply::Refused(refused)) => refused.code,
                Ok(OpenReply::Opened(_)) => match stream.read_within::<FromWrite>(SOON).await {
                    Ok(FromWrite::Failed { code, .. }) => code,
                    other => panic!("{operation:?}: {other:?}"),
                },
                Err(error) => panic!("{operation:?}: {error}"),
            };
            assert_eq!(code, Code::OUTSIDE_ROOTS, "{operation:?}");
        }
    }
    for path in inside.iter().chain([&state]) {
        let (here, free) = (at(path), at(&top.join("elsewhere/free")));
        for request in [
            FileRequest::Remove { path: here.clone(), recursive: true },
            FileRequest::Rename { from: here.clone(), to: free.clone(), replace: true },
            FileRequest::Rename { from: at(&top.join("elsewhere")), to: here.clone(), replace: true },
            FileRequest::Symlink { path: at(&path.join("new")), target: FileName(b"/etc".to_vec()) },
        ] {
            let code = file(request.clone()).await;
            assert!([Code::OUTSIDE_ROOTS, Code::READ_ONLY].contains(&code), "{request:?}: {code}");
        }
    }
    // From above: what is below is passed over, or the whole of it is refused.
    let (whole, to) = (at(&top), at(&top.join("elsewhere/copy")));
    assert_eq!(file(FileRequest::Walk { path: whole.clone() }).await, Code::DONE);
    let grep = FileRequest::Grep { path: whole.clone(), pattern: "PRIVATE KEY".into(), ignore_case: false, limit: 100 };
    assert_eq!(file(grep).await, Code::DONE);
    assert_eq!(
        file(FileRequest::Search { path: whole.clone(), pattern: "*.key".into(), limit: 100 }).await,
        Code::DONE
    );
    assert_eq!(file(FileRequest::Remove { path: whole.clone(), recursive: true }).await, Code::READ_ONLY);
    assert_eq!(file(FileRequest::Rename { from: whole.clone(), to: to.clone(), replace: true }).await, Code::READ_ONLY);
    let archive = top.join("elsewhere/all.tar");
    let pack = FileRequest::Pack { from: vec![whole], to: at(&archive), format: ArchiveFormat::Tar, replace: true };
    file(pack).await;
    let packed = std::fs::read(&archive).unwrap();
    assert!(!packed.windows(20).any(|window| key.windows(20).next() == Some(window)), "the key is in an archive");
    // An archive that would fill it.
    let evil = top.join("evil.tar");
    std::fs::write(top.join("evil.txt"), "x").unwrap();
    let mut made = Command::new("tar");
    made.arg("-C").arg(&top).arg("-cf").arg(&evil).args(["--transform", "s,^evil.txt,state/lockdown,", "evil.txt"]);
    assert!(made.status().unwrap().success());
    let unpack = FileRequest::Unpack { from: at(&evil), to: at(&top), format: ArchiveFormat::Tar, replace: true };
    assert_eq!(file(unpack).await, Code::OUTSIDE_ROOTS);
    assert!(!state.join("lockdown").exists());

    assert_eq!(modes(&state), before, "no name, mode or owner changed");
    assert_eq!(std::fs::read(state.join("agent.key")).unwrap(), key);
    let (code, said) = log(&agent, &["verify"]).await;
    assert_eq!(code, Some(0), "{said}");
    has(&agent, "file.remove.end", |entry| entry["result"] == "read_only").await;
    has(&agent, "file.read.end", |entry| entry["result"] == "outside_roots").await;
    until(SOON, "the agent lives", || agent.process().exited().is_none()).await;
}

/// Names with their modes: what a change from afar would show in.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    use std::os::unix::fs::MetadataExt;
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        // Written by the agent itself when it hears the time.
        .filter(|entry| entry.file_name() != "master-time")
        .map(|entry| (entry.path(), entry.metadata().unwrap().mode()))
        .collect();
    found.sort();
    found
}

fn asked_of(path: &Path, top: &Path) -> Vec<FileRequest> {
    let (here, free) = (at(path), at(&top.join("elsewhere/free")));
    vec![
        FileRequest::Stat { path: here.clone(), follow: true },
        FileRequest::List { path: here.clone(), after: FileName::default(), limit: 10 },
        FileRequest::Walk { path: here.clone() },
        FileRequest::Type { path: here.clone() },
        FileRequest::Mkdir { path: at(&path.join("new")), parents: true, mode: None },
        FileRequest::Chmod { path: here.clone(), mode: 0o777 },
        FileRequest::Touch { path: here.clone(), modified_ns: None },
        FileRequest::Checksum { path: here.clone(), algorithm: HashAlgorithm::Sha256 },
        FileRequest::Grep { path: here.clone(), pattern: ".".into(), ignore_case: false, limit: 10 },
        FileRequest::Copy { from: here.clone(), to: free.clone(), recursive: true, replace: true },
        FileRequest::Pack { from: vec![here], to: free, format: ArchiveFormat::Tar, replace: true },
    ]
}

fn carried(path: &Path) -> [Operation; 2] {
    let path = at(path);
    let read = ReadSpec { path: path.clone(), offset: 0, length: None, whole: false };
    let write =
        WriteSpec { path, offset: 0, size: 1, blake3: None, key: None, mode: None, modified_ns: None, ask: false };
    [Operation::FileRead(read), Operation::FileWrite(write)]
}

/// Whatever else a liar sends, and a flood of it: the log holds, what was run is not washed away by connections, and the
/// agent stays small.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_and_refusals_washes_nothing_away_that_was_run() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::start(folder.path(), "flooded");
    let mut agent = Agent::new(&liar.created(), Some(ALLOW_ALL));
    agent.set("LANDLINE_OWN_LOG_MB", "1");
    agent.start();
    let line = liar.line(now_ms()).await;
    let spec = ExecSpec {
        program: Program::Argv(vec!["true".into(), "first".into()]),
        cwd: None,
        env: vec![("TOKEN".into(), "canary-value".into())],
        timeout_ms: 10_000,
        stdin: false,
        output_max: 0,
    };
    let (_, mut stream) = line.open(&LiarLine::header(RequestId::random(), now_ms(), Operation::Exec(spec))).await;
    while !matches!(stream.read_within::<FromExec>(SOON).await.unwrap(), FromExec::Ended(_)) {}
    let replayed = RequestId::random();
    for number in 0..2_000 {
        // Nothing listens there, and a replay is refused before anything is looked at.
        let target = Target { host: "127.0.0.1".into(), port: 1 };
        let id = if number % 2 == 0 { RequestId::random() } else { replayed };
        line.open(&LiarLine::header(id, now_ms(), Operation::Forward(target))).await.0.unwrap();
    }
    // The last ones are still on their way to the disk; rotation leaves three files of the four.
    let all = eventually(SOON, "the flood is in the log", || async {
        Some(entries(&agent).await).filter(|all| all.len() > 400)
    })
    .await;
    let starts: Vec<_> = all.iter().filter(|entry| entry["what"] == "exec.start").collect();
    assert_eq!(starts.len(), 1, "what was run is still there");
    assert!(!all.iter().any(|entry| entry.to_string().contains("canary-value")), "values of variables are not kept");
    let size: u64 = std::fs::read_dir(agent.folder.path().join("state/log"))
        .unwrap()
        .flatten()
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(size <= 1 << 20, "{size}");
    let (code, said) = log(&agent, &["verify"]).await;
    assert_eq!(code, Some(0), "{said}");
}
