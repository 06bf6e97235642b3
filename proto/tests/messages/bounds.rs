//! Each bound of a message: one inside it passes, one beyond it is refused by name.

use proto::{
    code::Code,
    command::{Command, Reply},
    control::{Attempt, Carrier, FromAgent, Heartbeat, Hello, HelloReply, Refusal, Welcome},
    enrol::{EnrolReply, EnrolRequest, Issued},
    exec::{ExecSpec, FromExec, Program, ToExec},
    id::{InstanceId, LineEpoch, RequestId},
    limits::*,
    open::{Open, OpenReply, Opened, Operation, Refused, Target},
    stats::{Disk, Stats},
    wire::{self, DecodeError, Message},
};

#[track_caller]
fn passes<M: Message + PartialEq + std::fmt::Debug>(message: M) {
    assert_eq!(wire::decode::<M>(&wire::encode(&message)), Ok(message));
}

#[track_caller]
fn refused<M: Message + PartialEq + std::fmt::Debug>(message: M, why: &str) {
    match wire::decode::<M>(&wire::encode(&message)) {
        Err(DecodeError::Invalid(told)) => assert!(told.contains(why), "{told:?} instead of {why:?}"),
        other => panic!("{why}: {other:?}"),
    }
}

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        agent_version: String::new(),
        instance_id: InstanceId::random(),
        os: String::new(),
        arch: String::new(),
        hostname: String::new(),
        capabilities: vec![],
        carrier: Carrier::Udp,
        keep_alive_ms: 1,
    }
}

#[test]
fn control() {
    passes(Hello { versions: vec![1; HELLO_ITEMS_MAX], capabilities: vec!["a".into(); HELLO_ITEMS_MAX], ..hello() });
    refused(Hello { versions: vec![], ..hello() }, "versions");
    refused(Hello { versions: vec![1; HELLO_ITEMS_MAX + 1], ..hello() }, "versions");
    refused(Hello { capabilities: vec![String::new(); 4_000], ..hello() }, "capabilities");
    refused(Hello { hostname: "a".repeat(256), ..hello() }, "too long");
    refused(Hello { capabilities: vec!["a".repeat(256)], ..hello() }, "too long");

    let welcome = |heartbeat_interval_ms| {
        let (master_version, line_epoch) = (String::new(), LineEpoch(1));
        HelloReply::Welcome(Welcome {
            version: 1,
            line_epoch,
            master_time_ms: 0,
            heartbeat_interval_ms,
            master_version,
        })
    };
    passes(welcome(1_000));
    passes(welcome(3_600_000));
    refused(welcome(999), "heartbeat interval");
    refused(welcome(3_600_001), "heartbeat interval");
    let refusal = |message| HelloReply::Refused(Refusal { code: Code::BUSY, message, retry_after_ms: 0 });
    passes(refusal("a".repeat(TEXT_MAX)));
    refused(refusal("a".repeat(TEXT_MAX + 1)), "message too long");

    refused(FromAgent::Policy { text: "a".repeat(16 * 1024 + 1) }, "policy");
    let attempt = |length| Attempt { ago_ms: 0, code: Code::DONE, message: "a".repeat(length) };
    refused(FromAgent::History(vec![attempt(0); HELLO_ITEMS_MAX + 1]), "attempts");
    refused(FromAgent::History(vec![attempt(TEXT_MAX + 1)]), "message");
}

#[test]
fn stats() {
    let heartbeat = |stats| FromAgent::Heartbeat(Heartbeat { seq: 0, stats, rtt_us: 0 });
    let disk = Disk { mount: String::new(), used_bytes: 0, total_bytes: 0 };
    passes(heartbeat(Stats { disks: vec![disk.clone(); STATS_ITEMS_MAX], ..Stats::default() }));
    refused(heartbeat(Stats { disks: vec![disk; STATS_ITEMS_MAX + 1], ..Stats::default() }), "disks");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused(heartbeat(Stats { load: [0.0, bad, 0.0], ..Stats::default() }), "finite");
        refused(heartbeat(Stats { cpu_percent: bad, ..Stats::default() }), "finite");
    }
}

#[test]
fn enrolment() {
    let enrol = |secret: usize, csr: usize| EnrolRequest::Enrol {
        agent_id: "a".parse().unwrap(),
        secret: "s".repeat(secret),
        csr_der: vec![0; csr],
    };
    passes(enrol(256, 2048));
    refused(enrol(257, 1), "secret");
    refused(enrol(1, 2049), "certificate request");
    refused(enrol(1, 0), "certificate request");
    refused(EnrolRequest::Renew { csr_der: vec![] }, "certificate request");
    // An agent id is checked by its type.
    let bad_id = b"\x00\x02/a\x00\x010";
    assert_eq!(wire::decode::<EnrolRequest>(bad_id), Err(DecodeError::Malformed));
    let issued =
        |length| EnrolReply::Issued(Issued { certificate_der: vec![0; length], ca_der: vec![0], master_time_ms: 0 });
    passes(issued(8 * 1024));
    refused(issued(8 * 1024 + 1), "certificate length");
    refused(issued(0), "certificate length");
}

fn open(operation: Operation) -> Open {
    Open { request_id: RequestId::random(), issued_at_ms: 0, trace_id: [0; 16], operation }
}

#[test]
fn targets_and_commands() {
    let forward = |host: &str, port| open(Operation::Forward(Target { host: host.into(), port }));
    passes(forward("::1", 65_535));
    passes(forward(&"a".repeat(HOST_MAX), 1));
    refused(forward("localhost", 0), "port 0");
    refused(forward("", 1), "host");
    refused(forward(&"a".repeat(HOST_MAX + 1), 1), "host");
    for bad in ["a b", "a/b", "a\0", "é", "[::1]", "a@b", "a\r\nb"] {
        refused(forward(bad, 1), "character");
    }
    let command = |service: &str, payload: usize| {
        open(Operation::Command(Command {
            service: service.into(),
            action: "a".into(),
            payload: " ".repeat(payload),
            timeout_ms: 0,
        }))
    };
    passes(command("system", COMMAND_JSON_MAX));
    refused(command("system", COMMAND_JSON_MAX + 1), "payload");
    for bad in ["", "a.b", "../a", "a/b", "a b", &"a".repeat(65)] {
        refused(command(bad, 0), "service and action");
    }
    refused(Reply::Success { data: " ".repeat(COMMAND_JSON_MAX + 1) }, "data");
    refused(Reply::Failure { code: Code::BUSY, message: " ".repeat(TEXT_MAX + 1) }, "message");
    refused(OpenReply::Opened(Opened { peer: Some("a".repeat(HOST_MAX + 1)) }), "peer");
    let message = "a".repeat(TEXT_MAX + 1);
    refused(OpenReply::Refused(Refused { code: Code::POLICY, message }), "message");
}

#[test]
fn execs() {
    let spec = || ExecSpec {
        program: Program::Shell("true".into()),
        cwd: None,
        env: vec![],
        timeout_ms: 0,
        stdin: false,
        output_max: 0,
    };
    let exec = |spec| open(Operation::Exec(spec));
    let argv = |argv: Vec<String>| open(Operation::Exec(ExecSpec { program: Program::Argv(argv), ..spec() }));
    let env = |name: &str| open(Operation::Exec(ExecSpec { env: vec![(name.into(), "v".into())], ..spec() }));
    passes(argv(vec!["a".into(); EXEC_ITEMS_MAX]));
    refused(argv(vec!["a".into(); EXEC_ITEMS_MAX + 1]), "arguments");
    refused(argv(vec![]), "argv is empty");
    refused(argv(vec![String::new()]), "argv is empty");
    refused(argv(vec!["a".into(), "b\0c".into()]), "NUL");
    refused(exec(ExecSpec { program: Program::Shell(String::new()), ..spec() }), "shell line");
    refused(exec(ExecSpec { program: Program::Shell("a\0".into()), ..spec() }), "shell line");
    refused(exec(ExecSpec { cwd: Some("/\0".into()), ..spec() }), "working directory");
    let many = vec![("A".to_owned(), String::new()); EXEC_ITEMS_MAX + 1];
    refused(exec(ExecSpec { env: many, ..spec() }), "variables");
    passes(env("A"));
    for bad in ["", "A=B", "A\0"] {
        refused(env(bad), "variable's name");
    }
    passes(ToExec::Stdin(vec![0; EXEC_PIECE_MAX]));
    refused(ToExec::Stdin(vec![0; EXEC_PIECE_MAX + 1]), "piece");
    refused(FromExec::Stdout(vec![0; EXEC_PIECE_MAX + 1]), "piece");
    refused(FromExec::Stderr(vec![0; EXEC_PIECE_MAX + 1]), "piece");
}
