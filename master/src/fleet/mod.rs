//! The only door to an agent: accepts lines, enrols, keeps the registry of who is connected, and opens streams on them.
//! It knows nothing of what the streams are for.

mod accept;
mod carried;
mod demand;
mod enrol;
mod hello;
mod history;
mod line;
mod registry;
mod rotations;
mod serve;
mod steady;
mod succession;
mod visitors;
mod work;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use certs::authority::Authority;
use dashmap::DashMap;
use proto::{
    code::Code,
    control::{FromMaster, HelloReply, Welcome},
    id::{AgentId, LineEpoch},
    net::{
        credit::{CreditPool, LineCredit, PROCESS_CREDIT_MAX},
        quic::{MASTER_RECEIVE_WINDOW, ServerParts},
        stream::close,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    carried::Doorway, demand::Demands, hello::Admitted, history::History, line::LineParts, registry::Registry,
    rotations::Rotations, visitors::Visitors,
};
pub use self::{
    demand::Demand,
    history::{SAMPLES, Sample},
    line::{CarrierStory, Line},
    registry::LinkState,
    steady::SteadyClock,
    visitors::{COMES_WITHIN, Reached, Visits},
    work::{OpenError, StreamGuard, WorkStream},
};
use crate::{
    access::Limiter,
    clock::millis,
    events::{Draft, Events},
    metrics::Metrics,
    store::{
        Store,
        agents::{AgentStatus, Facts},
    },
};

/// Control messages that may wait for a line; a line that takes none is dead.
const OUTBOX: usize = 16;
/// How often last-seen times go to the database, and unused slots are forgotten.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// The samples of an agent that is away are kept this long.
const REMEMBER: Duration = Duration::from_secs(1800);
/// Time the end of a line may take to reach the database before the task gives up on it.
const RECORD_WITHIN: Duration = Duration::from_secs(5);

/// What the fleet stands on.
pub struct FleetParts {
    pub store: Store,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub authority: Arc<Authority>,
    pub limiter: Arc<Limiter>,
    pub clock: SteadyClock,
    pub heartbeat_interval: Duration,
    pub certificate_validity: Duration,
    pub enrol_again_within: Duration,
    /// For the lines that come inside WebSockets.
    pub websockets: ServerParts,
}

/// The live fleet. Its tasks end when [`Fleet::drain`] has run or the last of them has seen its line close.
pub struct Fleet {
    store: Store,
    events: Events,
    metrics: Arc<Metrics>,
    authority: Arc<Authority>,
    limiter: Arc<Limiter>,
    clock: SteadyClock,
    heartbeat_interval: Duration,
    certificate_validity: Duration,
    enrol_again_within: Duration,
    registry: Registry,
    beats: DashMap<AgentId, watch::Sender<u64>>,
    history: History,
    rotations: Rotations,
    visitors: Visitors,
    demands: Arc<Demands>,
    credit: Arc<CreditPool>,
    doorway: Doorway,
    epochs: AtomicU64,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Fleet {
    pub fn new(parts: FleetParts) -> Arc<Self> {
        // Epochs of a later start lie above those of an earlier one as long as lines come slower than one a microsecond.
        let first_epoch = u64::try_from(parts.clock.now_ms()).unwrap_or(0).saturating_mul(1000);
        Arc::new(Self {
            store: parts.store,
            events: parts.events,
            metrics: parts.metrics,
            authority: parts.authority,
            limiter: parts.limiter,
            clock: parts.clock,
            heartbeat_interval: parts.heartbeat_interval,
            certificate_validity: parts.certificate_validity,
            enrol_again_within: parts.enrol_again_within,
            registry: Registry::default(),
            beats: DashMap::new(),
            history: History::default(),
            rotations: Rotations::default(),
            visitors: Visitors::default(),
            demands: Arc::default(),
            credit: CreditPool::new(PROCESS_CREDIT_MAX),
            doorway: Doorway::new(parts.websockets),
            epochs: AtomicU64::new(first_epoch),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// Starts accepting lines on `endpoint`, and the flushing of last-seen times.
    pub fn start(self: &Arc<Self>, endpoint: quinn::Endpoint) {
        self.tasks.spawn(accept::run(self.clone(), endpoint, self.stopping.clone()));
        self.tasks.spawn(self.clone().flush_forever());
    }

    /// The agent's live line.
    pub fn line(&self, agent: &AgentId) -> Option<Arc<Line>> {
        self.registry.line(agent)
    }

    /// Every live line.
    pub fn lines(&self) -> Vec<Arc<Line>> {
        self.registry.lines()
    }

    /// The agent's link; `None` for one that was neither connected nor watched since the master started.
    pub fn link(&self, agent: &AgentId) -> Option<LinkState> {
        self.registry.state(agent)
    }

    /// The agent's link, lossless for the latest state.
    pub fn watch(&self, agent: &AgentId) -> watch::Receiver<LinkState> {
        self.registry.watch(agent)
    }

    /// Ticks with each heartbeat of the agent.
    pub fn heartbeats(&self, agent: &AgentId) -> watch::Receiver<u64> {
        self.beats.entry(agent.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// The agent's latest samples, oldest first, also of one that is away for less than half an hour.
    pub fn samples(&self, agent: &AgentId) -> Vec<Sample> {
        self.history.samples(agent)
    }

    /// Closes the agent's lines at once, one that was left behind as well, and tells whoever watches it why. Also marks an agent that is not connected.
    pub fn cut(&self, agent: &AgentId, code: Code) {
        let lines = self.registry.all_of(agent);
        self.registry.set_down(agent, code);
        self.visitors.forget(agent);
        lines.iter().for_each(|line| line.cut(code));
    }

    /// The master's steady time, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Whether new work comes too late: the lines are only there for what runs.
    pub fn drains(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Stops accepting, tells every agent to come back later, closes the lines after `grace`, and waits for their tasks.
    pub async fn drain(&self, grace: Duration, retry_after: Duration) {
        self.stopping.cancel();
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        for line in self.registry.lines() {
            line.tell(FromMaster::Drain { code: Code::SHUTDOWN, grace_ms, retry_after_ms });
        }
        let idle = async {
            while self.registry.all().iter().any(|line| line.busy()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(grace, idle).await;
        for line in self.registry.all() {
            line.cut(Code::SHUTDOWN);
        }
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }

    fn beat(&self, agent: &AgentId) {
        if let Some(beat) = self.beats.get(agent) {
            beat.send_modify(|count| *count += 1);
        }
    }

    fn set_suspect(&self, line: &Line, suspect: Option<Instant>) {
        if !self.registry.set_suspect(&line.agent, line.epoch, suspect) {
            return;
        }
        let kind = if suspect.is_some() { "agent.suspect" } else { "agent.recovered" };
        tracing::info!(agent = %line.agent, kind, "silence on the line");
        self.events.publish(Draft::new(kind).agent(&line.agent));
    }

    /// Runs an admitted line from Welcome to its end.
    async fn serve(self: Arc<Self>, connection: quinn::Connection, admitted: Admitted) {
        let Admitted { identity, hello, mut control, version } = admitted;
        let agent = identity.agent_id;
        let epoch = LineEpoch(self.epochs.fetch_add(1, Ordering::Relaxed));
        let welcome = Welcome {
            version,
            line_epoch: epoch,
            master_time_ms: self.clock.now_ms(),
            heartbeat_interval_ms: u32::try_from(self.heartbeat_interval.as_millis()).unwrap_or(u32::MAX),
            master_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let idle = self.is_idle_visit(&agent, &hello);
        if let Err(code) = self.on_record(&agent, &hello, idle).await {
            close(&connection, code);
            return;
        }
        if control.send.write_frame(&HelloReply::Welcome(welcome)).await.is_err() {
            return;
        }
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let line = Arc::new(Line::new(LineParts {
            agent,
            epoch,
            credit: LineCredit::new(connection.clone(), MASTER_RECEIVE_WINDOW, self.credit.clone()),
            hello,
            connection: connection.clone(),
            control: outbox,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }));
        if idle {
            return self.receive(&line, &connection, &mut control).await;
        }
        let counted = self.metrics.agent_connected(line.carrier());
        self.enter(&line);
        // A suspension that fell between the check at Hello and the entry found no line to cut.
        if let Some(code) = self.objection(&line.agent).await {
            line.cut(code);
        }
        let code = match serve::serve(&self, &line, &connection, &mut control, messages).await {
            Some(code) => code,
            None => {
                drop(counted);
                serve::wind_down(&line, &connection).await
            }
        };
        self.leave(&line, code).await;
    }

    /// What the database has to know before Welcome.
    async fn on_record(&self, agent: &AgentId, hello: &proto::control::Hello, idle: bool) -> Result<(), Code> {
        self.note_visit(agent, hello).await?;
        if idle { Ok(()) } else { self.record_connected(agent, hello).await }
    }

    async fn record_connected(&self, agent: &AgentId, hello: &proto::control::Hello) -> Result<(), Code> {
        let facts = Facts {
            carrier: hello.carrier.word().to_owned(),
            agent_version: hello.agent_version.clone(),
            os: hello.os.clone(),
            arch: hello.arch.clone(),
            hostname: hello.hostname.clone(),
        };
        match self.store.agents().connected(agent, &facts, self.clock.now_ms()).await {
            Ok(Some(AgentStatus::Unknown | AgentStatus::Active)) => Ok(()),
            // Suspended or removed between Hello and here.
            Ok(Some(AgentStatus::Suspended)) => Err(Code::SUSPENDED),
            Ok(None) => Err(Code::REMOVED),
            Err(error) => {
                tracing::error!(agent = %agent, error = %error, "a line could not be recorded and was refused");
                Err(Code::BUSY)
            }
        }
    }

    /// Why a line that just entered must go. A database that does not answer says nothing about the agent: the line goes
    /// and may come back, and nothing that hangs on the agent ends for good.
    async fn objection(&self, agent: &AgentId) -> Option<Code> {
        match self.store.agents().identity(agent).await {
            Ok(Some(on_record)) => match on_record.status {
                AgentStatus::Unknown | AgentStatus::Active => None,
                AgentStatus::Suspended => Some(Code::SUSPENDED),
            },
            Ok(None) => Some(Code::REMOVED),
            Err(_) => Some(Code::BUSY),
        }
    }

    /// The database learns of heartbeats in batches only.
    async fn flush_forever(self: Arc<Self>) {
        let mut every = tokio::time::interval(FLUSH_EVERY);
        loop {
            let last = tokio::select! {
                biased;
                () = self.stopping.cancelled() => true,
                _ = every.tick() => false,
            };
            let mut seen: Vec<_> = self
                .registry
                .lines()
                .iter()
                .filter_map(|line| Some((line.agent.clone(), line.heartbeat_ms()?)))
                .collect();
            seen.extend(self.visitors.newly_seen());
            if let Err(error) = self.store.agents().touch_last_seen(&seen).await {
                tracing::warn!(error = %error, "last-seen times could not be recorded");
            }
            if last {
                return;
            }
            self.registry.forget_unused();
            self.demands.forget_unused();
            self.beats.retain(|_, beat| beat.receiver_count() > 0);
            self.history.forget_before(self.clock.now_ms().saturating_sub(millis(REMEMBER)));
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("lines", &self.registry.lines().len()).finish_non_exhaustive()
    }
}
