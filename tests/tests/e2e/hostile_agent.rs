//! The real master under a hostile agent: identity is the certificate with the key on record, whoever breaks the rules
//! loses the line with a code, and nobody else notices.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use landline_tests::{
    liar::now_ms,
    master::Master,
    puppet::{Puppet, PuppetLine, closed, first_packets, hello, knock_without_certificate, new_key},
    wait::{eventually, until},
};
use proto::{
    code::Code,
    control::{FromAgent, Heartbeat, Hello, HelloReply},
    net::frame::encode_frame,
    stats::{Disk, Stats},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(5);
/// The master gives ten seconds from the handshake to a Hello.
const UNTIL_HELLO: Duration = Duration::from_secs(12);

fn refused(reply: &HelloReply) -> Code {
    match reply {
        HelloReply::Refused(refusal) => refusal.code,
        HelloReply::Welcome(_) => panic!("the master took the line"),
    }
}

/// The first event of this kind in the agent's timeline.
async fn told(master: &Master, agent: &str, kind: &str) -> Value {
    eventually(SOON, &format!("{kind} in the timeline of {agent}"), || async {
        let timeline = master.api().get(&format!("/agents/{agent}/timeline?limit=200")).await;
        timeline["items"].as_array()?.iter().find(|event| event["kind"] == kind).cloned()
    })
    .await
}

/// Sends raw bytes as the first thing on the first stream.
async fn first_words(puppet: &Puppet, bytes: &[u8]) -> Code {
    let dialed = puppet.knock().await.expect("a handshake");
    let (mut send, _recv) = dialed.connection.open_bi().await.unwrap();
    // The master may close in the middle of it.
    let _ = send.write_all(bytes).await;
    let _ = send.flush().await;
    closed(&dialed.connection, UNTIL_HELLO).await
}

/// Another CA, another key under the same CA, no certificate at all, and another name in the words.
#[tokio::test(flavor = "multi_thread")]
async fn identity_is_the_certificate_with_the_key_on_record() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut puppet = Puppet::enrolled(&master.add("real").await, folder.path()).await;
    let other = master.agent("other").await;
    let own = puppet.certificate_der.clone();

    // Words change nothing: the line is that of the certificate.
    let mut claims = hello();
    claims.hostname = "other".to_owned();
    claims.capabilities = vec!["id=other".to_owned(), "x-forwarded-for: 10.0.0.1".to_owned()];
    let (reply, line) = puppet.hello(&claims).await.unwrap();
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    master.api().online("real", SOON).await;
    let timeline = master.api().get("/agents/other/timeline?limit=200").await.to_string();
    assert!(!timeline.contains("agent.superseded"), "{timeline}");
    drop(line);
    master.api().presence("real", "offline", SOON).await;

    // The master's own CA, the right name, a key that is not on record: what a thief of the CA's service would have.
    let authority = certs::authority::Authority::load_or_create(&master.data().join("ca")).unwrap();
    let own_key = std::mem::replace(&mut puppet.key, new_key(folder.path(), "thief"));
    let csr = puppet.key.csr_der().unwrap();
    puppet.certificate_der = authority.issue_agent(&csr, &puppet.token.agent_id, now_ms() + 60_000).unwrap().der;
    let (reply, line) = puppet.hello(&hello()).await.unwrap();
    assert_eq!(refused(&reply), Code::UNKNOWN_IDENTITY);
    let on_disk = |name: &str| std::fs::read(master.data().join(name)).unwrap_or_default();
    until(Duration::from_secs(5), "the refusal is in the audit chain", || {
        let bytes = [on_disk("landline.db"), on_disk("landline.db-wal")].concat();
        bytes.windows(12).any(|window| window == b"agent.refuse")
            && bytes.windows(16).any(|window| window == b"unknown_identity")
    })
    .await;
    drop(line);
    let event = told(&master, "real", "agent.refused").await;
    assert_eq!(event["reason"], "unknown_identity", "{event}");
    // The same key for an agent that does not exist.
    puppet.certificate_der = authority.issue_agent(&csr, &"nobody".parse().unwrap(), now_ms() + 60_000).unwrap().der;
    assert_eq!(refused(&puppet.hello(&hello()).await.unwrap().0), Code::UNKNOWN_IDENTITY);

    // Another CA with the same names: the handshake fails, and no application ever hears of it.
    let foreign = certs::authority::Authority::load_or_create(&folder.path().join("foreign")).unwrap();
    puppet.certificate_der = foreign.issue_agent(&csr, &puppet.token.agent_id, now_ms() + 60_000).unwrap().der;
    if let Ok(dialed) = puppet.knock().await {
        let error = tokio::time::timeout(SOON, dialed.connection.closed()).await.expect("closed");
        assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error:?}");
    }

    let dialed = knock_without_certificate(&puppet.token).await.unwrap();
    assert_eq!(closed(&dialed.connection, SOON).await, Code::CERTIFICATE_REQUIRED);

    // None of it hurt the rightful owner.
    (puppet.key, puppet.certificate_der) = (own_key, own);
    drop(puppet.line().await);
    master.api().online("other", SOON).await;
    drop(other);
}

/// Versions that this master does not speak are refused in words; what is no Hello is closed with a number. Nothing of it
/// costs memory, and others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_hello_is_closed_with_a_code_and_costs_nothing() {
    let mut master = Master::start().await;
    let _bystander = master.agent("bystander").await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("mumbles").await, folder.path()).await;
    for versions in [vec![0], vec![2, 3, u16::MAX]] {
        let mut other = hello();
        other.versions = versions;
        let HelloReply::Refused(refusal) = puppet.hello(&other).await.unwrap().0 else { panic!("not refused") };
        assert_eq!(refusal.code, Code::VERSION);
        assert!(refusal.message.contains("upgrade"), "{}", refusal.message);
    }
    let before = master.process().resident();
    let mut long = hello();
    long.capabilities = vec!["x".repeat(200); 32];
    let long = encode_frame(&long);
    assert!(long.len() > 4 * 1024 + 4, "{}", long.len());
    let cases: [(&str, Vec<u8>, Code); 6] = [
        ("longer than 4 KiB", long, Code::TOO_LARGE),
        ("4 GiB announced", vec![0xff; 4096], Code::TOO_LARGE),
        ("64 KiB announced", [&[0, 1, 0, 0][..], &[0; 4096]].concat(), Code::TOO_LARGE),
        ("noise", [&[0, 0, 0, 64][..], &[0xee; 64]].concat(), Code::MALFORMED),
        ("empty", vec![0, 0, 0, 0], Code::MALFORMED),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), Code::TOO_LARGE),
    ];
    for (what, bytes, code) in &cases {
        assert_eq!(first_words(&puppet, bytes).await, *code, "{what}");
    }
    for _ in 0..100 {
        first_words(&puppet, &[0xff; 4096]).await;
    }
    let grown = master.process().resident().saturating_sub(before);
    println!("after {} frames of 4 GiB the master grew by {} KiB", 100, grown >> 10);
    assert!(grown < 24 << 20, "the master grew by {grown} bytes");
    assert_eq!(master.api().agent("bystander").await["presence"], "online");
    assert!(!master.log().contains("panicked"));
    drop(puppet.line().await);
}

/// Whoever connects and says nothing, or half a Hello, is closed in time.
#[tokio::test(flavor = "multi_thread")]
async fn silence_before_hello_ends_within_ten_seconds() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("shy").await, folder.path()).await;
    let silent = puppet.knock().await.unwrap();
    let started = Instant::now();
    let half = async { first_words(&puppet, &[0, 0, 0, 200, 1, 2, 3]).await };
    let (silent, half) = tokio::join!(closed(&silent.connection, UNTIL_HELLO), half);
    assert_eq!((silent, half), (Code::TOO_SLOW, Code::TOO_SLOW));
    assert!(started.elapsed() > Duration::from_secs(8), "closed before its time: {:?}", started.elapsed());
}

/// A line whose owner breaks the rules after Welcome ends with the code of the rule.
#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_end_the_line_with_their_code() {
    let master = Master::start().await;
    let _bystander = master.agent("bystander").await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("rude").await, folder.path()).await;
    let beat = |stats: Stats| FromAgent::Heartbeat(Heartbeat { seq: 1, stats, rtt_us: 1 });

    let line = puppet.line().await;
    let (mut extra, _recv) = line.connection.open_bi().await.unwrap();
    extra.write_all(b"me too").await.unwrap();
    assert_eq!(closed(&line.connection, SOON).await, Code::UNEXPECTED, "a second stream");

    let wrong = [
        Stats { cpu_percent: f32::NAN, ..Stats::default() },
        Stats { load: [0.0, f32::INFINITY, 0.0], ..Stats::default() },
        Stats { disks: vec![disk(8); 17], ..Stats::default() },
        Stats { disks: vec![disk(1025)], ..Stats::default() },
    ];
    for stats in wrong {
        let said = format!("{stats:?}");
        assert_eq!(ends_after(&puppet, &encode_frame(&beat(stats))).await, Code::MALFORMED, "{said:.200}");
    }
    assert_eq!(ends_after(&puppet, &[0xff; 8]).await, Code::TOO_LARGE);
    assert_eq!(ends_after(&puppet, &[0, 0, 0, 2, 0x7f, 0x7f]).await, Code::MALFORMED);

    let policy = FromAgent::Policy { text: "x".repeat(16_000) };
    assert_eq!(ends_after(&puppet, &encode_frame(&policy).repeat(2)).await, Code::UNEXPECTED, "a second policy");
    let history = FromAgent::History(Vec::new());
    assert_eq!(ends_after(&puppet, &encode_frame(&history).repeat(2)).await, Code::UNEXPECTED, "a second history");
    let flood = encode_frame(&beat(Stats::default())).repeat(10_000);
    assert_eq!(ends_after(&puppet, &flood).await, Code::BUSY, "a flood of heartbeats");

    drop(puppet.line().await);
    assert_eq!(master.api().agent("bystander").await["presence"], "online");
    assert!(!master.log().contains("panicked"));
}

fn disk(name: usize) -> Disk {
    Disk { mount: "/".repeat(name), used_bytes: u64::MAX, total_bytes: 0 }
}

/// What the line ends with when these bytes go over its control stream.
async fn ends_after(puppet: &Puppet, bytes: &[u8]) -> Code {
    let mut line = puppet.line().await;
    let _ = line.control.send.write_all(bytes).await;
    closed(&line.connection, SOON).await
}

/// The same process replaces its line at once; another one does not while the old one answers, and does when it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn one_line_per_agent() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("twice").await, folder.path()).await;
    let same = hello();
    let (_, first) = puppet.hello(&same).await.unwrap();
    let started = Instant::now();
    let (reply, second) = puppet.hello(&same).await.unwrap();
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    assert_eq!(closed(&first.connection, SOON).await, Code::SUPERSEDED);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    let (reply, clone) = puppet.hello(&hello()).await.unwrap();
    assert_eq!(refused(&reply), Code::CLONE);
    drop(clone);
    let event = told(&master, "twice", "agent.refused").await;
    assert_eq!(event["reason"], "clone", "{event}");
    assert!(second.connection.close_reason().is_none(), "the old line went with the clone");

    // The old one falls silent without a word, as under kill -STOP or behind a dead router.
    let (runtime, _frozen) = frozen_line(&puppet, &same);
    assert_eq!(closed(&second.connection, SOON).await, Code::SUPERSEDED);
    let started = Instant::now();
    let (reply, _third) = puppet.hello(&hello()).await.unwrap();
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    println!("another process won after {:?}", started.elapsed());
    assert!(started.elapsed() > Duration::from_secs(3), "it won unchallenged: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    runtime.shutdown_background();
}

/// A line in a runtime that nobody drives any more: its socket stands, and nothing answers.
fn frozen_line(puppet: &Puppet, hello: &Hello) -> (tokio::runtime::Runtime, PuppetLine) {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (reply, line) = runtime.block_on(puppet.hello(hello)).unwrap();
            assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
            (runtime, line)
        });
        made.join().unwrap()
    })
}

/// Suspended while its Hello is on the way: no line, and no new certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_agent_gets_no_line() {
    let master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("banned").await, folder.path()).await;
    let dialed = puppet.knock().await.unwrap();
    let (status, body) =
        master.api().call(Method::PATCH, "/agents/banned", Some(json!({ "status": "suspended" }))).await;
    assert!(status.is_success(), "{body}");
    let (mut send, _recv) = dialed.connection.open_bi().await.unwrap();
    send.write_all(&encode_frame(&hello())).await.unwrap();
    assert_eq!(closed(&dialed.connection, SOON).await, Code::SUSPENDED);
    assert_eq!(master.api().agent("banned").await["presence"], "offline");

    // Many at once race with the suspension: whoever got in is cut.
    let (status, body) = master.api().call(Method::PATCH, "/agents/banned", Some(json!({ "status": "active" }))).await;
    assert!(status.is_success(), "{body}");
    let line = puppet.line().await;
    master.api().call(Method::PATCH, "/agents/banned", Some(json!({ "status": "suspended" }))).await;
    assert_eq!(closed(&line.connection, Duration::from_secs(2)).await, Code::SUSPENDED);
    assert_eq!(refused(&puppet.hello(&hello()).await.unwrap().0), Code::SUSPENDED);
}

/// A thousand handshakes that never finish: who means it still gets in.
#[tokio::test(flavor = "multi_thread")]
async fn alone_half_open_connections_do_not_keep_others_out() {
    const HALF_OPEN: usize = 1_000;
    const TRIES: usize = 40;
    const PER_TRY: usize = 25;
    let mut master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("patient").await, folder.path()).await;
    let before = master.process().resident();
    let target: SocketAddr = puppet.token.address.parse().unwrap();
    let packets = first_packets(&puppet.token, HALF_OPEN + TRIES * PER_TRY).await;
    // Addresses of their own, as a botnet would have: 127.1.x.y.
    let sources: Vec<_> = (0..HALF_OPEN)
        .map(|number| {
            let source = format!("127.1.{}.{}:0", number / 250, number % 250 + 1);
            let socket = std::net::UdpSocket::bind(source).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let send = |number: usize| sources[number % HALF_OPEN].send_to(&packets[number], target).unwrap();
    let answered = |number: usize| sources[number].recv(&mut [0; 2048]).is_ok();
    // As fast as the master answers: its socket's buffer drops what comes faster.
    for first in (0..HALF_OPEN).step_by(PER_TRY) {
        let mut open: Vec<_> = (first..first + PER_TRY).collect();
        until(SOON, "the master answers each stranger", || {
            open.retain(|number| !answered(*number));
            open.iter().for_each(|number| {
                send(*number);
            });
            open.is_empty()
        })
        .await;
    }
    let mut times = Vec::new();
    for round in 0..TRIES {
        // The flood goes on while others connect.
        for number in 0..PER_TRY {
            send(HALF_OPEN + round * PER_TRY + number);
        }
        let started = Instant::now();
        drop(puppet.line().await);
        times.push(started.elapsed());
    }
    times.sort();
    let grown = master.process().resident().saturating_sub(before);
    println!(
        "{HALF_OPEN} half-open: median {:?}, p99 {:?}, master grew {} MiB",
        times[TRIES / 2],
        times[TRIES * 99 / 100],
        grown >> 20
    );
    assert!(times[TRIES * 99 / 100] <= Duration::from_secs(2), "{times:?}");
    assert!(grown < 128 << 20, "{grown}");
}
