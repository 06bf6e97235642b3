//! Conversations of released versions, replayed: whatever today's build is, it understands what a version once said,
//! frame by frame and stream by stream. A recording is never edited; a new version gets a new file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proto::{
    VERSIONS,
    code::Code,
    command::Reply,
    control::{FromAgent, FromMaster, Hello, HelloReply},
    enrol::{EnrolReply, EnrolRequest},
    exec::{End, FromExec, ToExec},
    freshness::FreshnessGuard,
    limits::{FRAME_MAX, FRAME_MAX_UNAUTHENTICATED},
    open::{Open, OpenReply, Operation},
    wire::{self, Message},
};

const V1: &str = include_str!("conversations/v1.txt");

/// One stream of a conversation: what each side wrote, in order.
struct Stream {
    name: String,
    turns: std::vec::IntoIter<Turn>,
}

struct Turn {
    agent: bool,
    bytes: Vec<u8>,
}

/// `[name]` opens a stream; `A` and `M` lines are the bytes that agent and master wrote, in hexadecimal.
fn streams(recording: &str) -> Vec<Stream> {
    let mut streams: Vec<(String, Vec<Turn>)> = Vec::new();
    for line in recording.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(name) = line.strip_prefix('[') {
            streams.push((name.trim_end_matches(']').to_owned(), Vec::new()));
        } else if let Some((side, digits)) = line.split_once(' ') {
            let bytes = hex::decode(digits.replace(' ', "")).unwrap();
            streams.last_mut().unwrap().1.push(Turn { agent: side == "A", bytes });
        }
    }
    streams.into_iter().map(|(name, turns)| Stream { name, turns: turns.into_iter() }).collect()
}

impl Stream {
    fn raw(&mut self, agent: bool) -> Vec<u8> {
        let turn = self.turns.next().unwrap_or_else(|| panic!("{} ends early", self.name));
        assert_eq!(turn.agent, agent, "whose turn it is in {}", self.name);
        turn.bytes
    }

    /// One frame within `max` that decodes, and that today's build would still write the same way.
    fn frame<M: Message>(&mut self, agent: bool, max: usize) -> M {
        let bytes = self.raw(agent);
        let (length, body) = bytes.split_first_chunk::<4>().unwrap();
        let length = u32::from_be_bytes(*length) as usize;
        assert!(length == body.len() && length <= max, "the length of a frame in {}", self.name);
        let message = wire::decode::<M>(body).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_eq!(
            hex::encode(wire::encode(&message)),
            hex::encode(body),
            "{} is written differently today",
            self.name
        );
        message
    }

    fn agent<M: Message>(&mut self) -> M {
        self.frame(true, FRAME_MAX)
    }

    fn master<M: Message>(&mut self) -> M {
        self.frame(false, FRAME_MAX)
    }

    fn end(mut self) {
        assert!(self.turns.next().is_none(), "{} has more to say", self.name);
    }
}

#[test]
fn version_1_is_understood() {
    assert!(
        VERSIONS.contains(&1),
        "version 1 is no longer spoken: say so in docs/PROTOCOL.md and retire its recording"
    );
    let mut streams = streams(V1).into_iter();
    let mut next = |name: &str| {
        let stream = streams.next().unwrap_or_else(|| panic!("no stream {name}"));
        assert_eq!(stream.name, name);
        stream
    };
    enrolment(next("enrol"));
    refused_enrolment(next("enrol refused"));
    let master_time_ms = control(next("control"));
    let mut guard = FreshnessGuard::new(30_000, 16);
    let mut fresh = |open: &Open| guard.take(master_time_ms, open.request_id, open.issued_at_ms).unwrap();
    fresh(&forward(next("forward")));
    fresh(&exec(next("exec")));
    fresh(&command(next("command")));
    fresh(&refused(next("forward refused")));
    assert!(streams.next().is_none());
}

fn enrolment(mut stream: Stream) {
    let EnrolRequest::Enrol { agent_id, secret, csr_der } = stream.frame(true, FRAME_MAX_UNAUTHENTICATED) else {
        panic!("an enrolment")
    };
    assert_eq!((agent_id.as_str(), secret.as_str(), csr_der.len()), ("home-1", "once-only", 5));
    let EnrolReply::Issued(issued) = stream.master() else { panic!("a certificate") };
    assert_eq!((issued.certificate_der.len(), issued.ca_der.len()), (6, 7));
    stream.end();
}

fn refused_enrolment(mut stream: Stream) {
    let EnrolRequest::Renew { .. } = stream.frame(true, FRAME_MAX_UNAUTHENTICATED) else { panic!("a renewal") };
    let EnrolReply::Refused(refusal) = stream.master() else { panic!("a refusal") };
    assert_eq!(refusal.code, Code::SUSPENDED);
    stream.end();
}

/// Returns the master's time that Welcome told.
fn control(mut stream: Stream) -> i64 {
    let hello: Hello = stream.frame(true, FRAME_MAX_UNAUTHENTICATED);
    assert_eq!((hello.versions.as_slice(), hello.hostname.as_str()), ([1].as_slice(), "home-1"));
    let HelloReply::Welcome(welcome) = stream.master() else { panic!("a welcome") };
    assert_eq!((welcome.version, welcome.line_epoch.0), (1, 7));
    let FromAgent::Policy { text } = stream.agent() else { panic!("the policy") };
    assert!(text.contains("forward"));
    let FromAgent::History(attempts) = stream.agent() else { panic!("the history") };
    assert_eq!(attempts[0].code, Code::SILENT);
    let FromAgent::Heartbeat(heartbeat) = stream.agent() else { panic!("a heartbeat") };
    assert_eq!(heartbeat.stats.disks.len(), 1);
    let FromMaster::HeartbeatAck { seq, .. } = stream.master() else { panic!("its answer") };
    assert_eq!(seq, heartbeat.seq);
    let FromMaster::Drain { code, .. } = stream.master() else { panic!("the drain") };
    assert_eq!(code, Code::SHUTDOWN);
    let FromAgent::Goodbye { code } = stream.agent() else { panic!("the goodbye") };
    assert_eq!(code, Code::DONE);
    stream.end();
    welcome.master_time_ms
}

fn forward(mut stream: Stream) -> Open {
    let open: Open = stream.master();
    let Operation::Forward(target) = &open.operation else { panic!("a forward") };
    assert_eq!(target.to_string(), "localhost:443");
    // Sent right behind the header, before the answer.
    assert_eq!(stream.raw(false), b"GET / HTTP/1.0\r\n\r\n");
    let OpenReply::Opened(opened) = stream.agent() else { panic!("opened") };
    assert_eq!(opened.peer.as_deref(), Some("127.0.0.1:443"));
    assert_eq!(stream.raw(true), b"HTTP/1.0 200 OK\r\n\r\n");
    stream.end();
    open
}

fn exec(mut stream: Stream) -> Open {
    let open: Open = stream.master();
    assert!(matches!(&open.operation, Operation::Exec(spec) if spec.stdin));
    let OpenReply::Opened(_) = stream.agent() else { panic!("opened") };
    let FromExec::Started { pid: 4_242 } = stream.agent() else { panic!("started") };
    assert_eq!(stream.master::<ToExec>(), ToExec::Stdin(b"in\n".to_vec()));
    assert_eq!(stream.master::<ToExec>(), ToExec::StdinEnd);
    assert_eq!(stream.agent::<FromExec>(), FromExec::Stdout(b"in\n".to_vec()));
    assert_eq!(stream.agent::<FromExec>(), FromExec::Stderr(b"warned\n".to_vec()));
    assert_eq!(stream.master::<ToExec>(), ToExec::Cancel);
    let FromExec::Ended(outcome) = stream.agent() else { panic!("ended") };
    assert_eq!((outcome.end, outcome.truncated), (End::Killed(Code::CANCELLED), false));
    stream.end();
    open
}

fn command(mut stream: Stream) -> Open {
    let open: Open = stream.master();
    assert!(matches!(&open.operation, Operation::Command(command) if command.action == "getInfo"));
    let OpenReply::Opened(_) = stream.agent() else { panic!("opened") };
    assert_eq!(stream.agent::<Reply>(), Reply::Success { data: "{}".into() });
    stream.end();
    open
}

fn refused(mut stream: Stream) -> Open {
    let open: Open = stream.master();
    let OpenReply::Refused(refused) = stream.agent() else { panic!("a refusal") };
    assert_eq!(refused.code, Code::POLICY);
    stream.end();
    open
}
