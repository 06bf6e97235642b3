//! The way from a tunnel to its target: waits for the agent where it is away, opens one stream per connection, and tells
//! the tunnel's owner what the dials found. Owns the live counters of a tunnel; decides nothing about its state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    code::Code,
    id::AgentId,
    limits::FRAME_MAX,
    net::{frame::FrameReader, relay::Meter, stream::RecvHalf},
    open::{OpenReply, Opened, Operation, Target},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    clock::Clock,
    reason::{Failure, is_about_target},
};
use crate::{
    fleet::{Fleet, Line, LinkState, OpenError, WorkStream},
    metrics::{GaugeGuard, Metrics},
};

/// Time for the agent's answer to a forward: it gives the target ten seconds itself.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What a connection learned of the target.
#[derive(Debug)]
pub(super) enum Dial {
    Passed,
    Failed(Failure),
}

/// Shared by the tunnel's owner and all its connections.
pub(super) struct Path {
    pub(super) fleet: Arc<Fleet>,
    pub(super) agent: AgentId,
    pub(super) target: Target,
    pub(super) park: Duration,
    pub(super) meter: Meter,
    /// What the tunnel carried in earlier runs of the master: in, out.
    pub(super) carried: (u64, u64),
    pub(super) traffic: Traffic,
    pub(super) metrics: Arc<Metrics>,
    /// The owner hears of dials here; when it is busy the news is dropped: the next dial brings it again.
    pub(super) dials: mpsc::Sender<Dial>,
}

/// What is going on in a tunnel right now.
#[derive(Debug)]
pub(super) struct Traffic {
    open: AtomicU64,
    /// When the last connection ended, by the tunnel's clock.
    ended_ms: AtomicI64,
    /// A connection reached the target since somebody last asked.
    dialled: AtomicBool,
    /// The owner knows the target to answer: no need to tell it so with each connection.
    pub(super) known_good: AtomicBool,
    clock: Clock,
}

/// Counts one connection while it lives.
pub(super) struct Counted {
    path: Arc<Path>,
    _gauge: GaugeGuard,
}

impl Traffic {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            open: AtomicU64::new(0),
            ended_ms: AtomicI64::new(i64::MIN),
            dialled: AtomicBool::new(false),
            known_good: AtomicBool::new(false),
            clock,
        }
    }

    pub(super) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// When a connection was last open: now, or when the last one ended; `None` before the first.
    pub(super) fn last_ms(&self) -> Option<i64> {
        match (self.open(), self.ended_ms.load(Ordering::Relaxed)) {
            (0, i64::MIN) => None,
            (0, ended) => Some(ended),
            _ => Some(self.clock.now_ms()),
        }
    }

    /// Whether a connection reached the target since the last call.
    pub(super) fn take_dialled(&self) -> bool {
        self.dialled.swap(false, Ordering::Relaxed)
    }
}

impl Counted {
    pub(super) fn new(path: &Arc<Path>) -> Self {
        path.traffic.open.fetch_add(1, Ordering::Relaxed);
        Self { path: path.clone(), _gauge: path.metrics.tunnel_connection() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let traffic = &self.path.traffic;
        traffic.ended_ms.store(traffic.clock.now_ms(), Ordering::Relaxed);
        traffic.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Path {
    /// Bytes from those who connected to the target, ever.
    pub(super) fn bytes_in(&self) -> u64 {
        self.carried.0 + self.meter.to_stream()
    }

    /// Bytes from the target to those who connected, ever.
    pub(super) fn bytes_out(&self) -> u64 {
        self.carried.1 + self.meter.to_socket()
    }

    /// Opens a stream to the target, waiting while the agent is away, [`Self::park`] at most.
    pub(super) async fn open(&self) -> Result<(Arc<Line>, WorkStream), Code> {
        let operation = || Operation::Forward(self.target.clone());
        reach(&self.fleet, &self.agent, self.park, operation).await.map_err(|error| error.code())
    }

    /// Reads the agent's answer to a connection's stream and tells the owner what it means for the target.
    pub(super) async fn answered(&self, recv: &mut RecvHalf) -> Result<(), Code> {
        match answer(recv).await {
            Ok(_) => {
                self.traffic.dialled.store(true, Ordering::Relaxed);
                if !self.traffic.known_good.load(Ordering::Relaxed) {
                    let _ = self.dials.try_send(Dial::Passed);
                }
                Ok(())
            }
            Err((code, message)) => {
                self.metrics.tunnel_dial_failure(code);
                if is_about_target(code) {
                    let _ = self.dials.try_send(Dial::Failed(Failure::from_code(code, &message)));
                }
                Err(code)
            }
        }
    }
}

/// Opens a stream to the agent, waiting while it is away, `park` at most.
pub(super) async fn reach(
    fleet: &Fleet,
    agent: &AgentId,
    park: Duration,
    operation: impl Fn() -> Operation,
) -> Result<(Arc<Line>, WorkStream), OpenError> {
    let _demand = fleet.demand(agent);
    let deadline = Instant::now() + park;
    let mut link = fleet.watch(agent);
    loop {
        let up = link.wait_for(|state| matches!(state, LinkState::Up { .. }));
        if !matches!(timeout_at(deadline, up).await, Ok(Ok(_))) {
            return Err(OpenError::Offline);
        }
        if let Some(line) = fleet.line(agent) {
            match line.open(operation()).await {
                Ok(work) => return Ok((line, work)),
                // The line died a moment ago and nobody has said so yet.
                Err(OpenError::Offline | OpenError::Lost) => {}
                Err(error) => return Err(error),
            }
        }
        if !matches!(timeout_at(deadline, link.changed()).await, Ok(Ok(()))) {
            return Err(OpenError::Offline);
        }
    }
}

/// The agent's answer to a forward, or why there is none.
pub(super) async fn answer(recv: &mut RecvHalf) -> Result<Opened, (Code, String)> {
    match FrameReader::new(recv, FRAME_MAX).next_within::<OpenReply>(ANSWER_WITHIN).await {
        Ok(OpenReply::Opened(opened)) => Ok(opened),
        Ok(OpenReply::Refused(refused)) => Err((refused.code, refused.message)),
        Err(error) => Err((error.code(), String::new())),
    }
}
