//! Execs across a real line, with real processes.

use proto::{
    exec::{Attached, End, Outcome, ToExec},
    id::ExecId,
    open::{OpenReply, Operation},
};

use super::*;
use crate::{
    journal::Journal,
    platform,
    testing::{Bench, NOW_MS, PATIENCE, until, until_gone},
};

const ALLOW_ALL: &str = "allow_all = true";
const QUICK: Patience = Patience {
    unread: Duration::from_millis(200),
    grace: Duration::from_millis(100),
    keep_ended: Duration::from_secs(60),
};

fn shell(line: &str) -> ExecSpec {
    let program = Program::Shell(line.into());
    ExecSpec { program, cwd: None, env: Vec::new(), timeout_ms: 0, stdin: false, output_max: 0 }
}

#[derive(Debug, Default, PartialEq)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    fn length(&self) -> u64 {
        (self.stdout.len() + self.stderr.len()) as u64
    }
}

async fn start(bench: &Bench, spec: ExecSpec) -> FrameStream {
    let (reply, mut stream) = bench.open(Operation::Exec(spec)).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    let started: FromExec = stream.read_within(PATIENCE).await.unwrap();
    assert!(matches!(started, FromExec::Started { pid } if pid > 1), "{started:?}");
    stream
}

/// Reads to the end and acknowledges all of it.
async fn finish(stream: &mut FrameStream) -> (Output, Outcome) {
    let mut output = Output::default();
    loop {
        match stream.read_within::<FromExec>(PATIENCE).await.unwrap() {
            FromExec::Stdout(piece) => output.stdout.extend(piece),
            FromExec::Stderr(piece) => output.stderr.extend(piece),
            FromExec::Ended(outcome) => return (output, outcome),
            FromExec::Started { .. } | FromExec::Attached(_) | FromExec::StdinTaken { .. } => panic!("unexpected"),
        }
        let offset = output.length();
        // The agent may have ended the stream already.
        let _ = stream.send.write_frame(&ToExec::Ack { offset }).await;
    }
}

async fn attach(bench: &Bench, exec: RequestId, offset: Option<u64>) -> (Attached, FrameStream) {
    let attach = Operation::ExecAttach(ExecAttach { exec: ExecId(exec.0), offset });
    let (reply, mut stream) = bench.open(attach).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    match stream.read_within(PATIENCE).await.unwrap() {
        FromExec::Attached(attached) => (attached, stream),
        other => panic!("{other:?}"),
    }
}

async fn refused(bench: &Bench, exec: RequestId, offset: Option<u64>) -> Code {
    match bench.open(Operation::ExecAttach(ExecAttach { exec: ExecId(exec.0), offset })).await.0 {
        Ok(OpenReply::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    }
}

async fn start_as(bench: &Bench, id: RequestId, spec: ExecSpec) -> FrameStream {
    let (reply, mut stream) = bench.open_as(id, NOW_MS, Operation::Exec(spec)).await;
    assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
    assert!(matches!(stream.read_within(PATIENCE).await.unwrap(), FromExec::Started { .. }));
    stream
}

async fn run(bench: &Bench, spec: ExecSpec) -> (Output, Outcome) {
    finish(&mut start(bench, spec).await).await
}

/// Reads stdout up to the first whole line and gives its words as process numbers.
async fn pids(stream: &mut FrameStream) -> Vec<i32> {
    let mut text = String::new();
    while !text.contains('\n') {
        match stream.read_within::<FromExec>(PATIENCE).await.unwrap() {
            FromExec::Stdout(piece) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    text.lines().next().unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn ended(end: End) -> Outcome {
    Outcome { end, truncated: false }
}

#[tokio::test]
async fn exit_codes_signals_and_both_outputs_are_exact() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let (output, outcome) = run(&bench, shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(outcome, ended(End::Exited(7)));
    assert_eq!(run(&bench, shell("kill -9 $$")).await.1, ended(End::Signalled(9)));
    let argv = ExecSpec {
        program: Program::Argv(vec!["printf".into(), "%s|".into(), "a b".into(), "$HOME".into()]),
        ..shell("")
    };
    assert_eq!(run(&bench, argv).await.0.text(), "a b|$HOME|");
    let folder = ExecSpec { cwd: Some("/usr".into()), ..shell("pwd") };
    assert_eq!(run(&bench, folder).await.0.text(), "/usr\n");
}

#[tokio::test]
async fn what_cannot_start_is_refused() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let absent = ExecSpec { program: Program::Argv(vec!["/nonexistent/program".into()]), ..shell("") };
    let no_folder = ExecSpec { cwd: Some("/nonexistent".into()), ..shell("pwd") };
    for spec in [absent, no_folder] {
        match bench.open(Operation::Exec(spec)).await.0 {
            Ok(OpenReply::Refused(refused)) => {
                assert_eq!(refused.code, Code::SPAWN_FAILED);
                assert!(refused.message.contains("/nonexistent"), "{}", refused.message);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_environment_is_small_and_holds_nothing_of_ours() {
    let bench = Bench::start("[exec]\nshell = true\nenv = [\"LC_*\"]", Patience::default()).await;
    let spec = ExecSpec { env: vec![("LC_ALL".into(), "C".into())], ..shell("env | cut -d= -f1 | sort") };
    let (output, _) = run(&bench, spec).await;
    let known = [
        "HOME",
        "LANG",
        "LANDLINE_REQUEST_ID",
        "LC_ALL",
        "LOGNAME",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHELL",
        "SHLVL",
        "TZ",
        "USER",
        "_",
    ];
    for name in output.text().lines() {
        assert!(known.contains(&name), "{name} was passed on");
    }
    let (reply, _) =
        bench.open(Operation::Exec(ExecSpec { env: vec![("LD_PRELOAD".into(), "x".into())], ..shell("true") })).await;
    assert!(matches!(reply, Ok(OpenReply::Refused(refused)) if refused.code == Code::POLICY));
}

#[tokio::test]
async fn input_goes_in_and_its_end_arrives() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let stream = start(&bench, ExecSpec { stdin: true, ..shell("cat") }).await;
    let (mut send, recv) = stream.into_halves();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let feed = async {
        for piece in sent.chunks(30_000) {
            send.write_frame(&ToExec::Stdin(piece.to_vec())).await.unwrap();
        }
        send.write_frame(&ToExec::StdinEnd).await.unwrap();
    };
    let mut reader = proto::net::frame::FrameReader::new(recv, proto::limits::FRAME_MAX);
    let read = async {
        let mut got = Vec::new();
        loop {
            match reader.next_within::<FromExec>(PATIENCE).await.unwrap() {
                FromExec::Stdout(piece) => got.extend(piece),
                FromExec::StdinTaken { .. } => {}
                FromExec::Ended(outcome) => return (got, outcome),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), (got, outcome)) = tokio::join!(feed, read);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    assert_eq!(outcome, ended(End::Exited(0)));
    assert_eq!(run(&bench, shell("cat")).await.1, ended(End::Exited(0)), "without input there is an empty one");
}

#[tokio::test]
async fn output_beyond_its_bound_is_dropped_and_flagged_and_none_before() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let big = "head -c 300000 /dev/zero";
    let (output, outcome) = run(&bench, ExecSpec { output_max: 100_001, ..shell(big) }).await;
    assert_eq!((output.stdout.len(), outcome), (100_001, Outcome { end: End::Exited(0), truncated: true }));
    let (output, outcome) = run(&bench, ExecSpec { output_max: 300_000, ..shell(big) }).await;
    assert_eq!((output.stdout.len(), outcome), (300_000, ended(End::Exited(0))));
    let (output, outcome) = run(&bench, shell("head -c 8000000 /dev/zero")).await;
    assert_eq!((output.stdout.len(), outcome), (8_000_000, ended(End::Exited(0))));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let mut stream = start(&bench, ExecSpec { timeout_ms: 300, ..shell("sleep 600 & echo $$ $!; wait") }).await;
    let pids = pids(&mut stream).await;
    assert_eq!(finish(&mut stream).await.1, ended(End::Killed(Code::TIMED_OUT)));
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn a_cancel_ends_even_what_ignores_it() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let line = "trap '' TERM; (trap '' TERM; exec sleep 600) & echo $$ $!; while :; do wait; done";
    let mut stream = start(&bench, shell(line)).await;
    let pids = pids(&mut stream).await;
    stream.send.write_frame(&ToExec::Cancel).await.unwrap();
    assert_eq!(finish(&mut stream).await.1, ended(End::Killed(Code::CANCELLED)));
    for pid in pids {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn numbered_output_goes_on_without_gap_or_repeat_over_streams_and_lines() {
    let mut bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let id = RequestId::random();
    // More than the window, so that the program is held back between the streams.
    let mut stream = start_as(&bench, id, shell("seq 1 800000; echo done >&2; exit 5")).await;
    // Two pipes have no order between them: each is looked at apart, the offset counts both.
    let (mut got, mut rounds) = (Output::default(), 0);
    let outcome = loop {
        rounds += 1;
        let mut here = 0;
        let ended = loop {
            match stream.read_within::<FromExec>(PATIENCE).await.unwrap() {
                FromExec::Stdout(piece) => {
                    here += piece.len();
                    got.stdout.extend(piece);
                }
                FromExec::Stderr(piece) => got.stderr.extend(piece),
                FromExec::Ended(outcome) => break Some(outcome),
                other => panic!("{other:?}"),
            }
            if here > 1_000_000 {
                break None;
            }
        };
        if let Some(outcome) = ended {
            break outcome;
        }
        if rounds % 2 == 0 {
            bench.another_line().await;
        }
        let (attached, next) = attach(&bench, id, Some(got.length())).await;
        assert!(attached.output >= got.length(), "{attached:?}");
        stream = next;
    };
    let expected: String = (1..=800_000).map(|n| format!("{n}\n")).collect();
    let (length, whole) = (got.stdout.len(), expected.len());
    assert!(got.stdout == expected.as_bytes(), "{length} of {whole} bytes after {rounds} streams");
    assert_eq!((got.stderr.as_slice(), outcome), (&b"done\n"[..], ended(End::Exited(5))));
    let (attached, mut again) = attach(&bench, id, Some(got.length() - 5)).await;
    assert_eq!(attached.outcome, Some(ended(End::Exited(5))));
    let (tail, outcome) = finish(&mut again).await;
    assert_eq!((tail.length(), outcome), (5, ended(End::Exited(5))));
    assert!(got.stdout.ends_with(&tail.stdout) && got.stderr.ends_with(&tail.stderr), "{tail:?}");
    assert_eq!(refused(&bench, id, Some(0)).await, Code::OUTPUT_GONE);
    assert_eq!(refused(&bench, id, Some(1 << 40)).await, Code::OUTPUT_GONE);
    assert_eq!(refused(&bench, RequestId::random(), None).await, Code::NO_SESSION);
}

#[tokio::test]
async fn input_goes_on_over_streams_and_nothing_is_fed_twice() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let id = RequestId::random();
    let mut first = start_as(&bench, id, ExecSpec { stdin: true, ..shell("cat") }).await;
    first.send.write_frame(&ToExec::Stdin(b"one ".to_vec())).await.unwrap();
    assert!(matches!(
        first.read_within(PATIENCE).await.unwrap(),
        FromExec::StdinTaken { offset: 4 } | FromExec::Stdout(_)
    ));
    let (attached, mut second) = attach(&bench, id, None).await;
    assert_eq!((attached.stdin, attached.stdin_open), (4, true));
    second.send.write_frame(&ToExec::Stdin(b"two".to_vec())).await.unwrap();
    // The same bytes from the stream before, which does not know of them.
    first.send.write_frame(&ToExec::Stdin(b"two".to_vec())).await.unwrap();
    second.send.write_frame(&ToExec::StdinEnd).await.unwrap();
    let (attached, mut reader) = attach(&bench, id, Some(0)).await;
    assert!(attached.stdin <= 7, "{attached:?}");
    let (output, outcome) = finish(&mut reader).await;
    assert_eq!((output.text().as_str(), outcome), ("one two", ended(End::Exited(0))));
    let superseded = first.read_within::<FromExec>(PATIENCE).await;
    let superseded = match superseded {
        Ok(_) => first.read_within::<FromExec>(PATIENCE).await,
        error => error,
    };
    assert!(superseded.is_err(), "{superseded:?}");
}

#[tokio::test]
async fn input_to_a_program_that_has_closed_it_is_swallowed_and_too_much_of_it_refused() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let spec = ExecSpec { stdin: true, ..shell("exec <&-; echo closed; sleep 600") };
    let mut closed = start(&bench, spec).await;
    assert!(matches!(closed.read_within(PATIENCE).await.unwrap(), FromExec::Stdout(_)));
    let mut sent = 0;
    while sent < 3_000_000 {
        closed.send.write_frame(&ToExec::Stdin(vec![0; 30_000])).await.unwrap();
        sent += 30_000;
        while let FromExec::StdinTaken { offset } = closed.read_within(PATIENCE).await.unwrap() {
            if offset + 900_000 > sent {
                break;
            }
        }
    }
    closed.send.write_frame(&ToExec::Cancel).await.unwrap();
    let mut unread = start(&bench, ExecSpec { stdin: true, ..shell("sleep 600") }).await;
    for _ in 0..60 {
        // It is reset somewhere on the way.
        let _ = unread.send.write_frame(&ToExec::Stdin(vec![0; 32_000])).await;
    }
    let error = loop {
        if let Err(error) = unread.read_within::<FromExec>(PATIENCE).await {
            break format!("{error:?}");
        }
    };
    assert!(error.contains(&Code::TOO_LARGE.0.to_string()), "{error}");
}

#[tokio::test]
async fn output_that_nobody_takes_holds_the_program_and_then_ends_it() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let id = RequestId::random();
    let mut stream = start_as(&bench, id, shell("echo $$; exec yes")).await;
    let pids = pids(&mut stream).await;
    drop(stream);
    until_gone(pids[0]).await;
    let (attached, mut stream) = attach(&bench, id, Some(0)).await;
    assert!(attached.output <= (2 << 20) + (320 << 10), "held back: {attached:?}");
    let (_, outcome) = finish(&mut stream).await;
    assert_eq!(outcome.end, End::Killed(Code::UNREAD));
}

#[tokio::test]
async fn a_quiet_program_is_not_ended_because_nobody_is_attached() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let id = RequestId::random();
    drop(start_as(&bench, id, shell("sleep 1; echo late")).await);
    tokio::time::sleep(4 * QUICK.unread).await;
    let (_, mut stream) = attach(&bench, id, Some(0)).await;
    let (output, outcome) = finish(&mut stream).await;
    assert_eq!((output.text().as_str(), outcome), ("late\n", ended(End::Exited(0))));
}

#[tokio::test]
async fn sent_away_and_cancelled_from_aside_it_ends_with_what_left_its_group() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let line = "setsid sh -c 'echo $$ >&2; exec sleep 600' 2>mark >/dev/null & \
                until [ -s mark ]; do sleep 0.01; done; echo $$ $(cat mark); rm mark; exec sleep 601";
    let id = RequestId::random();
    let mut stream = start_as(&bench, id, shell(line)).await;
    let first = pids(&mut stream).await;
    let (_, mut aside) = attach(&bench, id, None).await;
    aside.send.write_frame(&ToExec::Cancel).await.unwrap();
    assert!(matches!(
        aside.read_within(PATIENCE).await.unwrap(),
        FromExec::Ended(Outcome { end: End::Killed(Code::CANCELLED), .. })
    ));
    assert_eq!(finish(&mut stream).await.1.end, End::Killed(Code::CANCELLED));
    for pid in first {
        until_gone(pid).await;
    }
    let mut stream = start(&bench, shell(line)).await;
    let second = pids(&mut stream).await;
    bench.dispatch.sent_away(Code::SUSPENDED);
    assert_eq!(finish(&mut stream).await.1.end, End::Killed(Code::SUSPENDED));
    for pid in second {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_everything() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let mut stream = start(&bench, shell("trap '' TERM; echo $$; sleep 600")).await;
    let pids = pids(&mut stream).await;
    bench.shutdown.cancel();
    tokio::time::timeout(PATIENCE, bench.dispatch.execs.finished()).await.unwrap();
    until_gone(pids[0]).await;
}

#[tokio::test]
async fn a_daemon_that_lets_go_of_its_output_lives_on() {
    let bench = Bench::start(ALLOW_ALL, Patience::default()).await;
    let (output, outcome) = run(&bench, shell("sleep 600 >/dev/null 2>&1 & echo $!")).await;
    assert_eq!(outcome, ended(End::Exited(0)));
    let pid: i32 = output.text().trim().parse().unwrap();
    assert!(platform::start_time(pid).is_some());
    platform::signal_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn the_journal_knows_it_while_it_runs() {
    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let mut stream = start(&bench, shell("echo $$; sleep 600")).await;
    let pids = pids(&mut stream).await;
    // A second reader sees what a next start after kill -9 would see.
    let copy = bench.master.folder.path().join("copy");
    let read = || {
        certs::state::open_dir(&copy).unwrap();
        let bytes = std::fs::read(bench.journal_dir().join("requests")).unwrap();
        certs::state::write_secret(&copy.join("requests"), &bytes).unwrap();
        Journal::open(&copy).unwrap().1
    };
    let recovered = read();
    assert_eq!((recovered.taken.len(), recovered.leftovers.len()), (1, 1));
    let mark = recovered.leftovers[0].process.clone().unwrap();
    assert_eq!(mark.group, pids[0]);
    assert!(mark.is_alive());
    stream.send.write_frame(&ToExec::Cancel).await.unwrap();
    finish(&mut stream).await;
    until("the journal has the end", || read().leftovers.is_empty()).await;
    assert_eq!(read().taken.len(), 1, "the id stays taken");
}
