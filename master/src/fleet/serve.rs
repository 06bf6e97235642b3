//! The life of one line after Welcome: heartbeats in, acknowledgements out, silence noticed, one reason at the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proto::{
    code::Code,
    control::{Attempt, FromAgent, FromMaster, Heartbeat},
    limits::HEARTBEATS_MISSED_MAX,
    net::{
        frame::FrameError,
        stream::{FrameStream, close, close_code},
    },
};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Fleet, line::Line, succession};
use crate::events::Draft;

/// How often silence is looked for. The line is suspect at the first look past its bound.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A control message that cannot be written for this long means a dead line.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Control messages an agent may send within a second: what waited through 45 seconds of silence at the shortest interval,
/// and to spare.
const MESSAGES_PER_SECOND: u32 = 100;
/// What runs on a line that was replaced may run for as long as a tunnel lasts by default; shells and transfers go on
/// elsewhere by themselves.
const DRAINED_WITHIN: Duration = Duration::from_secs(1_800);
/// Between two addresses of a line that are told: a router that gives it another port each time writes no more than this.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Keep-alives without which a line is suspect, in tenths: 2.4 of them.
const SUSPECT_TENTHS: u32 = 24;

/// What an agent may say once, and how much in a second: each message costs the master time, some of them a row.
struct Manners {
    policy: bool,
    history: bool,
    second: Instant,
    messages: u32,
}

impl Manners {
    fn new() -> Self {
        Self { policy: false, history: false, second: Instant::now(), messages: 0 }
    }

    /// The code to close with when `message` is one too many.
    fn broken_by(&mut self, message: &FromAgent) -> Option<Code> {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.second, self.messages) = (Instant::now(), 0);
        }
        self.messages += 1;
        if self.messages > MESSAGES_PER_SECOND {
            return Some(Code::BUSY);
        }
        let again = match message {
            FromAgent::Policy { .. } => std::mem::replace(&mut self.policy, true),
            FromAgent::History(_) => std::mem::replace(&mut self.history, true),
            FromAgent::Heartbeat(_) | FromAgent::Goodbye { .. } => false,
        };
        again.then_some(Code::UNEXPECTED)
    }
}

/// What an agent that visits was told about the need of it.
struct Needs {
    watched: Option<watch::Receiver<usize>>,
    told: bool,
}

impl Needs {
    fn new(fleet: &Fleet, line: &Line) -> Self {
        let watched = line.hello.visits().map(|_| fleet.demands.watch(&line.agent));
        Self { watched, told: true }
    }

    /// What to tell the agent now, once that changed; for ever for one that stays anyway. Cancel-safe.
    async fn changed(&mut self) -> bool {
        let Some(watched) = &mut self.watched else { return std::future::pending().await };
        let told = self.told;
        // Nobody counts any more: the master ends.
        let ended = watched.wait_for(|count| (*count > 0) != told).await.is_err();
        if ended {
            return std::future::pending().await;
        }
        self.told = !told;
        self.told
    }
}

/// When something was last heard, by two measures.
struct Ears {
    datagrams: u64,
    heard: Instant,
    heartbeat: Instant,
    suspect: bool,
    address: SocketAddr,
    /// When another address was last told.
    moved: Option<Instant>,
    suspect_after: Duration,
    heartbeat_within: Duration,
}

impl Ears {
    fn new(line: &Line, heartbeat_interval: Duration) -> Self {
        let now = Instant::now();
        let keep_alive = Duration::from_millis(line.hello.keep_alive_ms.into()).max(Duration::from_secs(1));
        Self {
            datagrams: line.datagrams_received(),
            heard: now,
            heartbeat: now,
            suspect: false,
            address: line.remote_address(),
            moved: None,
            suspect_after: keep_alive * SUSPECT_TENTHS / 10,
            heartbeat_within: heartbeat_interval * HEARTBEATS_MISSED_MAX + heartbeat_interval / 2,
        }
    }
}

/// Serves a line until it ends, and says why; or until a newer one took its place.
pub(super) async fn serve(
    fleet: &Fleet,
    line: &Arc<Line>,
    connection: &quinn::Connection,
    control: &mut FrameStream,
    mut outbox: mpsc::Receiver<FromMaster>,
) -> Option<Code> {
    let mut ears = Ears::new(line, fleet.heartbeat_interval);
    let mut manners = Manners::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut needs = Needs::new(fleet, line);
    if line.hello.visits().is_some()
        && let Some(code) = tell(control, &FromMaster::Work { pending: true }).await
    {
        close(connection, code);
        return Some(code);
    }
    loop {
        let ended = tokio::select! {
            biased;
            error = connection.closed() => Some(line.cut_code().unwrap_or_else(|| lost_code(&error))),
            () = line.replaced().cancelled() => return None,
            Some(message) = outbox.recv() => tell(control, &message).await,
            pending = needs.changed() => tell(control, &FromMaster::Work { pending }).await,
            frame = control.recv.next::<FromAgent>() => match frame {
                Ok(message) => match manners.broken_by(&message) {
                    None => hear(fleet, line, control, &mut ears, message).await,
                    broken => broken,
                },
                Err(error) => Some(frame_code(&error)),
            },
            stream = connection.accept_bi() => stream.is_ok().then_some(Code::UNEXPECTED),
            _ = look.tick() => listen(fleet, line, &mut ears),
        };
        if let Some(code) = ended {
            // A line that this end cut may be noticed by its control stream first.
            let code = line.cut_code().unwrap_or(code);
            close(connection, code);
            return Some(code);
        }
    }
}

/// Holds a line that was replaced for as long as something runs on it. The agent sends no more heartbeats there; QUIC's own
/// silence tells when it is dead.
pub(super) async fn wind_down(line: &Line, connection: &quinn::Connection) -> Code {
    let start = Instant::now();
    // Whoever found the line before it was replaced has opened its stream by the first look.
    let mut look = tokio::time::interval_at(start + LOOK_EVERY, LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            error = connection.closed() => return line.cut_code().unwrap_or_else(|| lost_code(&error)),
            now = look.tick() => if !line.busy() || now >= start + DRAINED_WITHIN {
                close(connection, Code::SUPERSEDED);
                return Code::SUPERSEDED;
            }
        }
    }
}

/// A line that this end did not cut, yet closed, lost what carried it.
fn lost_code(error: &quinn::ConnectionError) -> Code {
    match error {
        quinn::ConnectionError::LocallyClosed => Code::LINE_LOST,
        other => close_code(other),
    }
}

/// A control stream that ended without a close says no more than that the line is of no use.
fn frame_code(error: &FrameError) -> Code {
    match error {
        FrameError::Ended | FrameError::Io(_) => Code::LINE_LOST,
        FrameError::Cut | FrameError::TooLarge { .. } | FrameError::TooSlow(_) | FrameError::Decode(_) => error.code(),
    }
}

async fn tell(control: &mut FrameStream, message: &FromMaster) -> Option<Code> {
    match tokio::time::timeout(WRITE_WITHIN, control.send.write_frame(message)).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some(Code::LINE_LOST),
        Err(_) => Some(Code::SILENT),
    }
}

async fn hear(
    fleet: &Fleet,
    line: &Arc<Line>,
    control: &mut FrameStream,
    ears: &mut Ears,
    message: FromAgent,
) -> Option<Code> {
    match message {
        FromAgent::Heartbeat(Heartbeat { seq, stats, rtt_us: _ }) => {
            ears.heartbeat = Instant::now();
            fleet.metrics.heartbeat("ok");
            fleet.metrics.line_rtt(line.rtt().as_secs_f64());
            fleet.metrics.line_lost_packets(line.newly_lost_packets());
            let now_ms = fleet.clock.now_ms();
            fleet.history.push(&line.agent, now_ms, &stats);
            line.heard(stats, now_ms);
            fleet.beat(&line.agent);
            tell(control, &FromMaster::HeartbeatAck { seq, master_time_ms: now_ms }).await
        }
        FromAgent::Goodbye { code: Code::VISIT_OVER } if line.hello.visits().is_some() => {
            if fleet.release(line) {
                return Some(Code::VISIT_OVER);
            }
            tell(control, &FromMaster::Work { pending: true }).await
        }
        FromAgent::Goodbye { code } => Some(code),
        FromAgent::Policy { text } => {
            keep_policy(fleet, line, &text).await;
            None
        }
        FromAgent::History(attempts) => {
            record_history(fleet, line, &attempts);
            None
        }
    }
}

pub(super) async fn keep_policy(fleet: &Fleet, line: &Line, text: &str) {
    if let Err(error) = fleet.store.agents().set_policy(&line.agent, text).await {
        tracing::warn!(agent = %line.agent, error = %error, "the agent's policy could not be recorded");
    }
}

/// The agent's own view of the time it was away becomes part of its timeline.
pub(super) fn record_history(fleet: &Fleet, line: &Line, attempts: &[Attempt]) {
    if attempts.is_empty() {
        return;
    }
    succession::learn_why(fleet, line, attempts);
    let now_ms = fleet.clock.now_ms();
    let attempts: Vec<_> = attempts
        .iter()
        .map(|attempt| {
            let at_ms = now_ms.saturating_sub(i64::try_from(attempt.ago_ms).unwrap_or(i64::MAX));
            json!({ "at_ms": at_ms, "code": attempt.code.to_string(), "message": attempt.message })
        })
        .collect();
    fleet.events.publish(Draft::new("agent.attempts").agent(&line.agent).detail(json!({ "attempts": attempts })));
}

/// A line goes on when its agent's address changes; that it did is part of the timeline.
fn follow(fleet: &Fleet, line: &Line, ears: &mut Ears, now: Instant) {
    let (from, to) = (ears.address, line.remote_address());
    if to != from && ears.moved.is_none_or(|moved| now.duration_since(moved) >= TOLD_EVERY) {
        (ears.address, ears.moved) = (to, Some(now));
        tracing::info!(agent = %line.agent, %from, %to, "the line goes on from another address");
        let detail = json!({ "from": from.to_string(), "to": to.to_string() });
        fleet.events.publish(Draft::new("agent.address").agent(&line.agent).detail(detail));
    }
}

/// Looks for another address, then for silence: suspect at first, then too many heartbeats missed.
fn listen(fleet: &Fleet, line: &Line, ears: &mut Ears) -> Option<Code> {
    let now = Instant::now();
    follow(fleet, line, ears, now);
    let datagrams = line.datagrams_received();
    if datagrams != ears.datagrams {
        ears.datagrams = datagrams;
        ears.heard = now;
    }
    let suspect = now.duration_since(ears.heard) >= ears.suspect_after;
    if suspect != ears.suspect {
        ears.suspect = suspect;
        fleet.set_suspect(line, suspect.then_some(now));
    }
    if now.duration_since(ears.heartbeat) > ears.heartbeat_within {
        fleet.metrics.heartbeat("missed");
        return Some(Code::HEARTBEAT_LOST);
    }
    None
}
