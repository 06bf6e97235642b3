//! One agent's live connection. The only way to an agent: [`Line::open`].

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use proto::{
    code::Code,
    control::{Carrier, FromMaster, Hello},
    id::{AgentId, LineEpoch, RequestId},
    limits::{FRAME_MAX, HEADER_WITHIN},
    net::{
        credit::LineCredit,
        preference::Class,
        quic::{AGENT_STREAMS_MAX, master_send_window},
        stream::{FrameStream, RecvHalf, SendHalf, close},
    },
    open::{Open, Operation},
    stats::Stats,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    steady::SteadyClock,
    work::{OpenError, StreamGuard, WorkStream},
};
use crate::metrics::Metrics;

/// What a connected agent is and lately said. Dropping the last handle does not close the line: its control task owns it.
pub struct Line {
    pub agent: AgentId,
    pub epoch: LineEpoch,
    pub hello: Hello,
    pub since: Instant,
    connection: quinn::Connection,
    credit: Arc<LineCredit>,
    permits: Arc<Semaphore>,
    latest: Mutex<Latest>,
    control: mpsc::Sender<FromMaster>,
    ended: CancellationToken,
    cut: OnceLock<Code>,
    replaced: CancellationToken,
    released: AtomicBool,
    carrier_story: Mutex<CarrierStory>,
    lost_packets: AtomicU64,
    clock: SteadyClock,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default, Clone)]
struct Latest {
    stats: Option<Stats>,
    heartbeat_ms: Option<i64>,
}

/// Since when an agent is on its carrier, and why, as it says itself.
#[derive(Debug, Clone, PartialEq)]
pub struct CarrierStory {
    /// The master's time, Unix milliseconds.
    pub since_ms: i64,
    pub why: Option<(Code, String)>,
}

/// What a line is made of.
pub(super) struct LineParts {
    pub(super) agent: AgentId,
    pub(super) epoch: LineEpoch,
    pub(super) hello: Hello,
    pub(super) connection: quinn::Connection,
    pub(super) credit: Arc<LineCredit>,
    pub(super) control: mpsc::Sender<FromMaster>,
    pub(super) clock: SteadyClock,
    pub(super) metrics: Arc<Metrics>,
}

impl Line {
    pub(super) fn new(parts: LineParts) -> Self {
        let LineParts { agent, epoch, hello, connection, credit, control, clock, metrics } = parts;
        Self {
            agent,
            epoch,
            hello,
            since: Instant::now(),
            connection,
            credit,
            permits: Arc::new(Semaphore::new(AGENT_STREAMS_MAX as usize)),
            latest: Mutex::default(),
            control,
            ended: CancellationToken::new(),
            cut: OnceLock::new(),
            replaced: CancellationToken::new(),
            released: AtomicBool::new(false),
            carrier_story: Mutex::new(CarrierStory { since_ms: clock.now_ms(), why: None }),
            lost_packets: AtomicU64::new(0),
            clock,
            metrics,
        }
    }

    /// Opens a work stream under a fresh request id.
    pub async fn open(&self, operation: Operation) -> Result<WorkStream, OpenError> {
        self.open_as(RequestId::random(), operation).await
    }

    /// Opens a work stream: takes a permit, writes the header at the operation's priority, counts it. Returns as soon as
    /// the header is on its way. Dropping the future leaves nothing behind; dropping the stream resets it.
    pub async fn open_as(&self, request_id: RequestId, operation: Operation) -> Result<WorkStream, OpenError> {
        tokio::time::timeout(HEADER_WITHIN, self.write_header(request_id, operation))
            .await
            .unwrap_or(Err(OpenError::TooSlow(HEADER_WITHIN)))
    }

    async fn write_header(&self, request_id: RequestId, operation: Operation) -> Result<WorkStream, OpenError> {
        let class = operation.word();
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| OpenError::Busy)?;
        let (send, recv) = self.connection.open_bi().await.map_err(|_| OpenError::Lost)?;
        let (mut send, recv) = (SendHalf::new(send), RecvHalf::new(recv));
        send.prefer(Class::of(&operation), &self.connection, master_send_window(self.carrier()));
        let mut stream = FrameStream::new(send, recv, FRAME_MAX);
        let open =
            Open { request_id, issued_at_ms: self.clock.now_ms(), trace_id: *request_id.0.as_bytes(), operation };
        stream.send.write_frame(&open).await.map_err(|_| OpenError::Lost)?;
        let guard = StreamGuard::new(permit, self.metrics.clone(), class);
        Ok(WorkStream::new(request_id, stream, guard))
    }

    /// Credit for readers that stall on this line.
    pub fn credit(&self) -> &Arc<LineCredit> {
        &self.credit
    }

    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    pub fn carrier(&self) -> Carrier {
        self.hello.carrier
    }

    /// How the agent came to its carrier.
    pub fn carrier_story(&self) -> CarrierStory {
        self.carrier_story.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The story goes on from an older line with the same carrier.
    pub(super) fn continue_story(&self, story: CarrierStory) {
        *self.carrier_story.lock().unwrap_or_else(PoisonError::into_inner) = story;
    }

    pub(super) fn tell_why(&self, code: Code, message: &str) {
        self.carrier_story.lock().unwrap_or_else(PoisonError::into_inner).why = Some((code, message.to_owned()));
    }

    /// The address the agent's packets come from right now.
    pub fn remote_address(&self) -> std::net::SocketAddr {
        self.connection.remote_address()
    }

    /// The latest sample; `None` until the first heartbeat.
    pub fn stats(&self) -> Option<Stats> {
        self.latest().stats.clone()
    }

    /// The master's time of the latest heartbeat, Unix milliseconds.
    pub fn heartbeat_ms(&self) -> Option<i64> {
        self.latest().heartbeat_ms
    }

    /// Datagrams received so far: grows while anything at all is heard.
    pub(super) fn datagrams_received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Packets lost since the last call.
    pub(super) fn newly_lost_packets(&self) -> u64 {
        let lost = self.connection.stats().path.lost_packets;
        lost.saturating_sub(self.lost_packets.swap(lost, Ordering::Relaxed))
    }

    pub(super) fn heard(&self, stats: Stats, now_ms: i64) {
        *self.latest() = Latest { stats: Some(stats), heartbeat_ms: Some(now_ms) };
    }

    /// Sends a control message if there is room: control messages are few, and a full queue means a dead line.
    pub(super) fn tell(&self, message: FromMaster) {
        let _ = self.control.try_send(message);
    }

    /// Asks the agent to show a sign of life: any acknowledgement will do.
    pub(super) fn poke(&self) {
        self.tell(FromMaster::HeartbeatAck { seq: 0, master_time_ms: self.clock.now_ms() });
    }

    /// Closes the connection at once; its control task cleans up and reports `code`.
    pub(super) fn cut(&self, code: Code) {
        let _ = self.cut.set(code);
        close(&self.connection, code);
    }

    /// A newer line took its place; what runs on this one may end.
    pub(super) fn replace(&self) {
        self.replaced.cancel();
    }

    pub(super) fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }

    /// It was taken off the registry because its agent leaves.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Why this end closed the line, if it did.
    pub(super) fn cut_code(&self) -> Option<Code> {
        self.cut.get().copied()
    }

    /// Whether work streams are open.
    pub(super) fn busy(&self) -> bool {
        self.permits.available_permits() < AGENT_STREAMS_MAX as usize
    }

    /// Resolves when the line has been taken off the registry and everything that hung on it was told.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
