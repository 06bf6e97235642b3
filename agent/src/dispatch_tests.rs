//! The dispatch across a real line: what is taken, what is refused, and that a failure stays where it is.

use proto::{
    code::Code,
    command::{Command, Reply},
    id::RequestId,
    open::{OpenHead, OpenReply, Operation, Target},
    wire,
};

use crate::{
    service::exec::Patience,
    testing::{Bench, NOW_MS, PATIENCE},
};

fn usage() -> Operation {
    command("system", "getUsage")
}

fn command(service: &str, action: &str) -> Operation {
    let (service, action) = (service.to_owned(), action.to_owned());
    Operation::Command(Command { service, action, payload: String::new(), timeout_ms: 5_000 })
}

fn refused<E: std::fmt::Debug>(reply: Result<OpenReply, E>) -> Code {
    match reply {
        Ok(OpenReply::Refused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn answers(bench: &Bench) {
    let (reply, mut stream) = bench.open(usage()).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    match stream.read_within::<Reply>(PATIENCE).await.unwrap() {
        Reply::Success { data } => assert!(data.contains("\"ram\"")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_runs_once_and_soon() {
    let bench = Bench::start("allow_all = true", Patience::default()).await;
    let id = RequestId::random();
    assert!(matches!(bench.open_as(id, NOW_MS, usage()).await.0, Ok(OpenReply::Opened(_))));
    assert_eq!(refused(bench.open_as(id, NOW_MS, usage()).await.0), Code::REPLAYED);
    for off in [-40_000, 40_000, i64::MIN, i64::MAX] {
        let issued = NOW_MS.saturating_add(off);
        assert_eq!(refused(bench.open_as(RequestId::random(), issued, usage()).await.0), Code::STALE);
    }
    answers(&bench).await;
}

#[tokio::test]
async fn what_is_forbidden_or_unknown_has_its_code() {
    let bench = Bench::start("[commands]\nallow = [\"system.*\", \"odd.*\"]", Patience::default()).await;
    let forward = Operation::Forward(Target { host: "localhost".into(), port: 1 });
    assert_eq!(refused(bench.open(forward).await.0), Code::POLICY);
    assert_eq!(refused(bench.open(command("service", "stop")).await.0), Code::POLICY);
    let (reply, mut stream) = bench.open(command("odd", "thing")).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))));
    match stream.read_within::<Reply>(PATIENCE).await.unwrap() {
        Reply::Failure { code, .. } => assert_eq!(code, Code::UNKNOWN_ACTION),
        other => panic!("{other:?}"),
    }
    let newer = OpenHead { request_id: RequestId::random(), issued_at_ms: NOW_MS, trace_id: [0; 16], operation: 99 };
    let body = wire::encode(&newer);
    let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
    assert_eq!(refused(bench.open_bytes(&frame).await.0), Code::UNKNOWN_OPERATION);
    for garbage in [&[0xff; 8][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 0xff, 0xff]] {
        assert!(bench.open_bytes(garbage).await.0.is_err(), "{garbage:?} was answered");
    }
    answers(&bench).await;
}

#[tokio::test]
async fn a_panic_in_any_handler_closes_its_stream_and_nothing_else() {
    let exec = Operation::Exec(proto::exec::ExecSpec {
        program: proto::exec::Program::Shell("true".into()),
        cwd: None,
        env: Vec::new(),
        timeout_ms: 0,
        stdin: false,
        output_max: 0,
    });
    let forward = Operation::Forward(Target { host: "localhost".into(), port: 1 });
    for (number, operation) in [exec, forward, command("service", "list")].into_iter().enumerate() {
        let planted = operation.word();
        let bench = Bench::start_with("allow_all = true", Patience::default(), |dispatch| {
            dispatch.panic_in = Some((planted, "service"));
        })
        .await;
        let error = format!("{:?}", bench.open(operation).await.0.unwrap_err());
        assert!(error.contains(&Code::INTERNAL.0.to_string()), "{number}: {error}");
        assert_eq!(bench.dispatch.panics(), 1);
        answers(&bench).await;
    }
}

#[tokio::test]
async fn more_streams_are_allowed_with_use() {
    let bench = Bench::start("allow_all = true", Patience::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap());
        }
    });
    let mut streams = Vec::new();
    for _ in 0..600 {
        let (reply, stream) = bench.open(Operation::Forward(target.clone())).await;
        assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{} {reply:?}", streams.len());
        streams.push(stream);
    }
    accepting.abort();
}
