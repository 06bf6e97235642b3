//! The real agent under a hostile master: what its owner's policy forbids stays undone, nothing runs twice, and nothing
//! the master sends breaks it.

use std::time::Duration;

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    liar::{Liar, LiarLine, now_ms},
    wait::until,
};
use proto::{
    code::Code,
    command::{Command, Reply},
    exec::{End, ExecSpec, FromExec, Program},
    id::RequestId,
    net::frame::FrameError,
    open::{OpenReply, Operation, Target},
};

fn usage() -> Operation {
    Operation::Command(Command {
        service: "system".into(),
        action: "getUsage".into(),
        payload: String::new(),
        timeout_ms: 5_000,
    })
}

fn exec(script: &str) -> Operation {
    Operation::Exec(ExecSpec {
        program: Program::Shell(script.to_owned()),
        cwd: None,
        env: Vec::new(),
        timeout_ms: 10_000,
        stdin: false,
        output_max: 0,
    })
}

fn refused_with(reply: Result<OpenReply, FrameError>) -> Code {
    match reply {
        Ok(OpenReply::Refused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn runs(line: &LiarLine, request_id: RequestId, script: &str) {
    let open = LiarLine::header(request_id, now_ms(), exec(script));
    let (reply, mut stream) = line.open(&open).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    loop {
        match stream.read_within::<FromExec>(Duration::from_secs(10)).await.unwrap() {
            FromExec::Ended(outcome) => return assert_eq!(outcome.end, End::Exited(0)),
            FromExec::Started { .. }
            | FromExec::Attached(_)
            | FromExec::StdinTaken { .. }
            | FromExec::Stdout(_)
            | FromExec::Stderr(_) => {}
        }
    }
}

/// Replays, also after a kill -9 of the agent, and times out of the window: nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn replays_and_stale_requests_never_run() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::start(folder.path(), "victim");
    let mut agent = Agent::new(&liar.created(), Some(ALLOW_ALL));
    agent.start();
    let line = liar.line(now_ms()).await;
    let mark = folder.path().join("mark");
    let script = format!("echo x >> {}", mark.display());
    let ran = || std::fs::read_to_string(&mark).unwrap_or_default().lines().count();

    let id = RequestId::random();
    runs(&line, id, &script).await;
    assert_eq!(ran(), 1);
    for _ in 0..500 {
        let (reply, _) = line.open(&LiarLine::header(id, now_ms(), exec(&script))).await;
        assert_eq!(refused_with(reply), Code::REPLAYED);
    }
    for off in [-31_000, 31_000, i64::MIN / 2, i64::MAX / 2] {
        let issued_at_ms = now_ms().saturating_add(off);
        let (reply, _) = line.open(&LiarLine::header(RequestId::random(), issued_at_ms, exec(&script))).await;
        assert_eq!(refused_with(reply), Code::STALE, "off by {off}");
    }
    assert_eq!(ran(), 1);

    agent.kill();
    drop(line);
    agent.start();
    let line = liar.line(now_ms()).await;
    let (reply, _) = line.open(&LiarLine::header(id, now_ms(), exec(&script))).await;
    assert_eq!(refused_with(reply), Code::REPLAYED, "after kill -9 of the agent");
    assert_eq!(ran(), 1);
    runs(&line, RequestId::random(), &script).await;
    assert_eq!(ran(), 2);
}

/// Without a policy file only loopback and `system.*` are open, whatever the master asks for.
#[tokio::test(flavor = "multi_thread")]
async fn the_owners_policy_holds_at_each_stream() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::start(folder.path(), "guarded");
    let mut agent = Agent::new(&liar.created(), None);
    agent.start();
    let line = liar.line(now_ms()).await;
    let forward = |host: &str| Operation::Forward(Target { host: host.to_owned(), port: 80 });
    let command = |service: &str, action: &str| {
        let (service, action) = (service.to_owned(), action.to_owned());
        Operation::Command(Command { service, action, payload: String::new(), timeout_ms: 5_000 })
    };
    let forbidden = [
        forward("169.254.169.254"),
        forward("10.0.0.1"),
        forward("::ffff:10.0.0.1"),
        exec("id"),
        command("process", "list"),
        command("service", "stop"),
    ];
    for operation in forbidden {
        let (reply, _) = line.open(&LiarLine::header(RequestId::random(), now_ms(), operation.clone())).await;
        assert_eq!(refused_with(reply), Code::POLICY, "{operation:?}");
    }
    let (reply, mut stream) = line.open(&LiarLine::header(RequestId::random(), now_ms(), usage())).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    let reply = stream.read_within::<Reply>(Duration::from_secs(10)).await.unwrap();
    assert!(matches!(reply, Reply::Success { .. }), "{reply:?}");
    // A policy that cannot be read allows nothing at all.
    agent.kill();
    let policy = agent.folder.path().join("policy.toml");
    std::fs::write(&policy, "allow_everything_please = true\n").unwrap();
    agent.set("LANDLINE_POLICY_FILE", &policy.display().to_string());
    agent.start();
    let line = liar.line(now_ms()).await;
    let (reply, _) = line.open(&LiarLine::header(RequestId::random(), now_ms(), usage())).await;
    assert_eq!(refused_with(reply), Code::POLICY);
}

/// Garbage in headers ends its own stream with a code and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_one_stream_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::start(folder.path(), "pelted");
    let mut agent = Agent::new(&liar.created(), Some(ALLOW_ALL));
    agent.start();
    let line = liar.line(now_ms()).await;
    let mut frames = vec![vec![0xff; 4], vec![0, 1, 0, 1], vec![0, 0, 0, 0], vec![0, 0, 0, 3, 1, 2, 3], vec![0x7f; 64]];
    frames.push([&[0, 0, 1, 0][..], &[0x80; 256]].concat());
    for bytes in &frames {
        let (reply, _) = line.open_bytes(bytes).await;
        assert!(!matches!(reply, Ok(OpenReply::Opened(_))), "{bytes:?} was taken");
    }
    let (reply, _) = line.open(&LiarLine::header(RequestId::random(), now_ms(), usage())).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    until(Duration::from_secs(1), "the agent lives", || agent.process().exited().is_none()).await;
}
