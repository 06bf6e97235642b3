//! One probe: a stream to the target as any connection would open it, and for https a ClientHello. Says what it found.

use std::time::Duration;

use proto::{
    code::Code,
    net::stream::{RecvHalf, SendHalf},
    open::{Operation, Target},
};
use rand::Rng as _;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::{
    lifecycle::Depth,
    path,
    reason::{Failure, is_about_target},
    tls_probe::{self, ANSWER_MAX, Answer},
};
use crate::{fleet::Line, store::tunnels::Scheme};

/// Time for a target to answer a ClientHello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Passed(Report),
    Failed(Report, Failure),
    /// The line went away; nothing was learned.
    Lost,
}

/// What was found, as the API shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) at_ms: i64,
    pub(super) ok: bool,
    /// `tcp`, `tls`, `http` or `other`.
    pub(super) found: Option<&'static str>,
    pub(super) tls_version: Option<&'static str>,
    /// The number of the TLS alert that was the answer.
    pub(super) tls_alert: Option<u8>,
    /// The address that the agent dialled.
    pub(super) peer: Option<String>,
    pub(super) took_ms: u64,
    /// One sentence for people.
    pub(super) detail: String,
}

/// Probes once. `at_ms` dates the report.
pub(super) async fn probe(line: &Line, target: &Target, scheme: Scheme, depth: Depth, at_ms: i64) -> Outcome {
    let started = Instant::now();
    let mut report = Report {
        at_ms,
        ok: false,
        found: None,
        tls_version: None,
        tls_alert: None,
        peer: None,
        took_ms: 0,
        detail: String::new(),
    };
    let hello = match (scheme, depth) {
        (Scheme::Https, Depth::Full) => true,
        (Scheme::Https, Depth::Connect) | (Scheme::Http | Scheme::Tcp, _) => false,
    };
    let result = run(line, target, hello, &mut report).await;
    report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(()) => {
            report.ok = true;
            Outcome::Passed(report)
        }
        Err(Some(failure)) => {
            report.detail.clone_from(&failure.message);
            Outcome::Failed(report, failure)
        }
        Err(None) => Outcome::Lost,
    }
}

/// `Err(None)`: the line failed.
async fn run(line: &Line, target: &Target, hello: bool, report: &mut Report) -> Result<(), Option<Failure>> {
    let work = line.open(Operation::Forward(target.clone())).await.map_err(|error| failure(error.code(), ""))?;
    let (mut send, mut recv, _guard) = work.into_halves();
    if hello {
        // Right behind the header, so that it reaches the target as soon as the agent does.
        let mut random = [0; 64];
        rand::rng().fill(&mut random[..]);
        send.write_all(&tls_probe::client_hello(&target.host, random)).await.map_err(|_| None)?;
    }
    let opened = path::answer(&mut recv).await.map_err(|(code, message)| failure(code, &message))?;
    report.peer = opened.peer;
    report.found = Some("tcp");
    report.detail = "The target took a TCP connection.".to_owned();
    let result = if hello { tls_answer(&mut recv, report).await } else { Ok(()) };
    end(&mut send, &mut recv);
    result
}

fn failure(code: Code, message: &str) -> Option<Failure> {
    is_about_target(code).then(|| Failure::from_code(code, message))
}

async fn tls_answer(recv: &mut RecvHalf, report: &mut Report) -> Result<(), Option<Failure>> {
    let Ok(answer) = timeout(HELLO_WITHIN, read_answer(recv)).await else {
        let text = "The target took the connection but did not answer a TLS greeting.";
        return Err(Some(Failure::new("tls_silent", text)));
    };
    match answer {
        Some(Answer::Tls { version, alert }) => {
            report.found = Some("tls");
            report.tls_version = Some(version);
            report.tls_alert = alert;
            report.detail = match alert {
                None => format!("The target speaks {version}."),
                Some(alert) => format!("The target speaks TLS and answered with alert {alert}."),
            };
            Ok(())
        }
        Some(Answer::PlainHttp) => {
            report.found = Some("http");
            let text = "This target speaks plain HTTP; use the scheme http.";
            Err(Some(Failure::new("plain_http", text)))
        }
        Some(Answer::Foreign) => {
            report.found = Some("other");
            Err(Some(Failure::new("not_tls", "This target does not speak TLS; use the scheme tcp or http.")))
        }
        None => Err(Some(Failure::new("tls_closed", "The target closed the connection on a TLS greeting."))),
    }
}

/// `None` if the target ended the connection without a byte.
async fn read_answer(recv: &mut RecvHalf) -> Option<Answer> {
    let mut bytes = Vec::with_capacity(ANSWER_MAX);
    loop {
        let mut piece = [0; ANSWER_MAX];
        // A reset by the target is an end like another; a lost line shows in the link's state.
        let read = recv.read(&mut piece).await.unwrap_or(0);
        bytes.extend_from_slice(&piece[..read]);
        let ended = read == 0;
        if ended && bytes.is_empty() {
            return None;
        }
        if let Some(answer) = tls_probe::judge(&bytes, ended) {
            return Some(answer);
        }
    }
}

fn end(send: &mut SendHalf, recv: &mut RecvHalf) {
    send.reset(Code::DONE);
    recv.stop(Code::DONE);
}
