//! Shell sessions across a real line, on real terminals.

use proto::{
    exec::End,
    open::{OpenReply, Operation},
    shell::{FromShell, Size, ToShell},
};

use super::*;
use crate::{
    service::exec,
    testing::{Bench, PATIENCE, until, until_gone},
};

const ALLOW_ALL: &str = "allow_all = true";
/// What is put together here from an exec's: unattached sessions end at once.
const QUICK: exec::Patience = exec::Patience {
    unread: Duration::from_millis(200),
    grace: Duration::from_millis(100),
    keep_ended: Duration::from_secs(60),
};

fn on_terminal(line: &str) -> ShellSpec {
    ShellSpec {
        program: Some(Program::Shell(line.into())),
        size: Size { cols: 80, rows: 24 },
        term: "xterm".into(),
        cwd: None,
        env: Vec::new(),
        idle_ms: 0,
    }
}

/// One stream at a session, and what it received.
struct Viewer {
    stream: FrameStream,
    pid: i32,
    /// Offset behind what was received.
    offset: u64,
    lost: u64,
    bytes: Vec<u8>,
}

impl Viewer {
    async fn begin(reply: impl Sized + std::fmt::Debug, mut stream: FrameStream) -> Self {
        let attached = stream.read_within::<FromShell>(PATIENCE).await;
        let Ok(FromShell::Attached { pid, offset, lost, .. }) = attached else { panic!("{reply:?} {attached:?}") };
        Self { stream, pid: i32::try_from(pid).unwrap(), offset, lost, bytes: Vec::new() }
    }

    async fn say(&mut self, message: ToShell) {
        self.stream.send.write_frame(&message).await.unwrap();
    }

    /// Takes and acknowledges one frame; the end, if that was it.
    async fn step(&mut self) -> Option<End> {
        match self.stream.read_within(PATIENCE).await.unwrap() {
            FromShell::Output(piece) => {
                self.offset += piece.len() as u64;
                self.bytes.extend(piece);
                let _ = self.stream.send.write_frame(&ToShell::Ack { offset: self.offset }).await;
            }
            FromShell::Lost { bytes } => {
                self.offset += bytes;
                self.lost += bytes;
            }
            FromShell::Taken { .. } => {}
            FromShell::Ended(end) => return Some(end),
            FromShell::Attached { .. } => panic!("attached twice"),
        }
        None
    }

    async fn last(&mut self) -> End {
        loop {
            if let Some(end) = self.step().await {
                return end;
            }
        }
    }

    async fn sees(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.bytes).contains(text) {
            assert_eq!(self.step().await, None, "ended without {text:?}: {:?}", String::from_utf8_lossy(&self.bytes));
        }
    }
}

async fn open_as(bench: &Bench, id: RequestId, spec: ShellSpec) -> Viewer {
    let (reply, stream) = bench.open_as(id, crate::testing::NOW_MS, Operation::Shell(spec)).await;
    Viewer::begin(reply, stream).await
}

async fn open(bench: &Bench, spec: ShellSpec) -> Viewer {
    open_as(bench, RequestId::random(), spec).await
}

async fn attach(bench: &Bench, id: RequestId, offset: u64) -> Viewer {
    let (reply, stream) = bench.open(Operation::ShellAttach(ShellAttach { session: ShellId(id.0), offset })).await;
    Viewer::begin(reply, stream).await
}

#[tokio::test]
async fn a_program_has_a_terminal_of_the_given_size_and_ends_exactly() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let mut viewer = open(&bench, on_terminal("test -t 0 && stty size; echo $TERM; read x; stty size; exit 7")).await;
    viewer.sees("24 80\r\nxterm\r\n").await;
    viewer.say(ToShell::Resize(Size { cols: 100, rows: 40 })).await;
    viewer.say(ToShell::Input(b"on\r".to_vec())).await;
    viewer.sees("40 100\r\n").await;
    assert_eq!(viewer.last().await, End::Exited(7));
    assert_eq!(open(&bench, on_terminal("kill -9 $$")).await.last().await, End::Signalled(9));
}

#[tokio::test]
async fn the_login_shell_is_typed_into_and_interrupted() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let mut viewer = open(&bench, ShellSpec { program: None, ..on_terminal("") }).await;
    viewer.say(ToShell::Input(b"PS1=re''ady; sh -c 'echo $((40+2))-; exec sleep 1000'\r".to_vec())).await;
    viewer.sees("42-").await;
    viewer.say(ToShell::Input(b"\x03".to_vec())).await;
    // What is typed before the prompt is back may be thrown away with the interrupted line.
    viewer.sees("ready").await;
    viewer.say(ToShell::Input(b"exit 3\r".to_vec())).await;
    assert_eq!(viewer.last().await, End::Exited(3));
}

#[tokio::test]
async fn whoever_comes_back_goes_on_at_its_byte_and_takes_over() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let id = RequestId::random();
    // Without echo: what is typed early would stand between two digits.
    let mut first = open_as(&bench, id, on_terminal("stty -echo; seq 1 20000; read x; seq 20001 40000")).await;
    first.sees("\r\n500\r\n").await;
    let mut second = attach(&bench, id, first.offset).await;
    assert_eq!((second.offset, second.lost), (first.offset, 0));
    // The first is told that it was replaced, behind what was already on its way.
    while first.stream.read_within::<FromShell>(PATIENCE).await.is_ok() {}
    second.say(ToShell::Input(b"\r".to_vec())).await;
    assert_eq!(second.last().await, End::Exited(0));
    let whole = [first.bytes, second.bytes].concat();
    let numbers = String::from_utf8(whole.clone()).unwrap();
    let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.into_iter().eq(1..=40_000), "a gap or a repeat");
    // Its end and last output can still be had.
    let mut late = attach(&bench, id, whole.len() as u64 - 7).await;
    assert_eq!((late.last().await, late.bytes.as_slice()), (End::Exited(0), &whole[whole.len() - 7..]));
}

#[tokio::test]
async fn what_nobody_took_is_counted_to_the_byte() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let id = RequestId::random();
    // Leaves at once; the flood runs on, and the ring keeps its end.
    drop(open_as(&bench, id, on_terminal("stty -opost; head -c 5000000 /dev/zero")).await);
    let mut late = attach(&bench, id, 0).await;
    assert_eq!(late.last().await, End::Exited(0));
    assert_eq!(late.lost + late.bytes.len() as u64, 5_000_000);
}

#[tokio::test]
async fn closed_abandoned_and_sent_away_sessions_end_with_all_they_started() {
    let line = "trap '' HUP; sleep 1000 & echo pid $! end; wait; wait";
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let mut viewer = open(&bench, on_terminal(line)).await;
    viewer.sees("end\r\n").await;
    bench.dispatch.sent_away(Code::SUSPENDED);
    assert_eq!(viewer.last().await, End::Killed(Code::SUSPENDED));
    let text = String::from_utf8_lossy(&viewer.bytes).into_owned();
    until_gone(text.split_whitespace().nth(1).unwrap().parse().unwrap()).await;
    until_gone(viewer.pid).await;

    let bench = Bench::start(ALLOW_ALL, QUICK).await;
    let mut viewer = open(&bench, on_terminal(line)).await;
    viewer.say(ToShell::Close).await;
    assert_eq!(viewer.last().await, End::Killed(Code::CANCELLED));
    let mut viewer = open(&bench, ShellSpec { idle_ms: 50, ..on_terminal("sleep 1000") }).await;
    assert_eq!(viewer.last().await, End::Killed(Code::IDLE));
    let id = RequestId::random();
    let pid = open_as(&bench, id, on_terminal("sleep 1000")).await.pid;
    until_gone(pid).await;
    assert_eq!(attach(&bench, id, 0).await.last().await, End::Killed(Code::UNATTACHED));
}

#[tokio::test]
async fn a_line_that_is_only_lost_ends_nothing_and_a_shutdown_everything() {
    let mut bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let viewer = open(&bench, on_terminal("sleep 1000")).await;
    bench.lose_line();
    assert!(rustix::process::test_kill_process(rustix::process::Pid::from_raw(viewer.pid).unwrap()).is_ok());
    bench.shutdown.cancel();
    until_gone(viewer.pid).await;
}

#[tokio::test]
async fn unknown_sessions_and_bytes_are_refused() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let id = RequestId::random();
    let gone = Operation::ShellAttach(ShellAttach { session: ShellId(id.0), offset: 0 });
    let (reply, _) = bench.open(gone).await;
    assert!(matches!(reply, Ok(OpenReply::Refused(refused)) if refused.code == Code::NO_SESSION));
    let _viewer = open_as(&bench, id, on_terminal("sleep 1000")).await;
    let beyond = Operation::ShellAttach(ShellAttach { session: ShellId(id.0), offset: 1 << 40 });
    let (reply, _) = bench.open(beyond).await;
    assert!(matches!(reply, Ok(OpenReply::Refused(refused)) if refused.code == Code::OUTPUT_GONE));
}

#[tokio::test]
async fn many_opened_at_once_are_no_more_than_there_is_room_for() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    let one = || bench.open(Operation::Shell(on_terminal("read x")));
    let opened = futures_util::future::join_all((0..SESSIONS_MAX + 16).map(|_| one())).await;
    let (mut streams, mut refused) = (Vec::new(), 0);
    for (reply, stream) in opened {
        match reply.unwrap() {
            OpenReply::Opened(_) => streams.push(stream),
            OpenReply::Refused(reason) => {
                assert_eq!(reason.code, Code::BUSY);
                refused += 1;
            }
        }
    }
    assert_eq!((streams.len(), refused), (SESSIONS_MAX, 16));
    // One that ended makes room for another.
    let ended = streams.pop().unwrap();
    let mut ended = Viewer::begin("", ended).await;
    ended.say(ToShell::Input(b"\r".to_vec())).await;
    assert_eq!(ended.last().await, End::Exited(0));
    let (reply, _stream) = one().await;
    assert!(matches!(reply.unwrap(), OpenReply::Opened(_)));
}

#[tokio::test]
async fn a_session_that_is_being_started_is_waited_for() {
    let bench = Bench::start(ALLOW_ALL, exec::Patience::default()).await;
    for _ in 0..10 {
        let id = RequestId::random();
        let first = Operation::Shell(on_terminal("read x"));
        let first = bench.open_as(id, crate::testing::NOW_MS, first);
        let second = async {
            let shells = &bench.dispatch.shells;
            let known = || shells.starting.is_busy() || shells.lock().contains_key(&ShellId(id.0));
            until("it is being started", known).await;
            bench.open(Operation::ShellAttach(ShellAttach { session: ShellId(id.0), offset: 0 })).await
        };
        let (_first, (reply, _second)) = tokio::join!(first, second);
        // The opener's own stream may have taken it over meanwhile.
        assert!(!matches!(reply, Ok(OpenReply::Refused(_))), "{reply:?}");
    }
}
