//! The tunnels of one master: creates them, finds them, hands requests to their owners, and brings rows and listeners
//! together at start and stop. The rest of the program knows tunnels through this.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use certs::state;
use dashmap::DashMap;
use futures_util::FutureExt as _;
use proto::{
    code::Code,
    failpoint,
    id::{AgentId, TunnelId},
    net::relay::Meter,
    open::Target,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    actor::{Actor, Extended, Request, Unsaved, link_at_start},
    clock::Clock,
    error::{ActError, CreateError, ExtendError, StartError},
    lifecycle::{Lifecycle, Rules},
    listener::{Dialled, Door, Listener},
    path::{Path, Traffic},
    ports::{self, Bound, PortError, PortOwner, Ports},
    reason::CloseReason,
    row::{self, Row},
};
use crate::{
    clock::{millis, unix_ms},
    config,
    events::{Draft, Events},
    fleet::{Fleet, LinkState},
    metrics::Metrics,
    store::{
        LIMIT_MAX, Page, Paged, Store, StoreError,
        agents::AgentStatus,
        audit::AuditEntry,
        tunnels::{Counters, Health, InsertTunnelError, ListenKind, Tunnel, TunnelFilter, TunnelStatus, TunnelTarget},
    },
};

/// Requests that may wait for one tunnel's owner; more wait outside, under the same deadline.
const REQUESTS: usize = 32;
/// News of dials that may wait; more are dropped.
const DIALS: usize = 16;
/// Time for a tunnel's owner to carry out a request: a close of its connections and a write.
const ACT_WITHIN: Duration = Duration::from_secs(3);
/// How often byte counts go to the store and the metrics.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Creations of the same spec take turns on one of these locks.
const TURNS: usize = 16;

/// Who does something, for the audit trail.
#[derive(Debug, Clone)]
pub struct By {
    /// `token:<id>`, or `master`.
    pub actor: String,
    pub source: Option<String>,
}

/// A request for a tunnel.
#[derive(Debug, Clone)]
pub struct NewTunnel {
    pub agent: AgentId,
    pub target: TunnelTarget,
    pub listen: ListenKind,
    pub standing: bool,
    /// `None`: as configured. Not for standing ones.
    pub ttl: Option<Duration>,
    /// Whether the caller promises to beat, and its silence ends the tunnel.
    pub heartbeat: bool,
    pub idempotency_key: Option<String>,
    /// The id of the token that asks.
    pub owner: String,
    pub by: By,
}

/// A tunnel as it is right now.
#[derive(Debug, Clone)]
pub struct View {
    pub row: Tunnel,
    pub connections_open: u64,
}

/// Whether a creation made a tunnel or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub id: TunnelId,
    pub fresh: bool,
}

/// What the tunnels stand on.
#[derive(Clone)]
pub struct Parts {
    pub config: config::Tunnel,
    /// Where unix sockets are made; created 0700 where it is missing. Nothing else may lie in it.
    pub socket_dir: PathBuf,
    pub fleet: Arc<Fleet>,
    pub store: Store,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

/// All tunnels. Dropping it leaves them running until their master's runtime ends: call [`stop`](Self::stop).
pub struct Tunnels {
    parts: Parts,
    ports: Arc<Ports>,
    live: DashMap<TunnelId, Handle>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    tasks: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Clone)]
struct Handle {
    view: watch::Receiver<Row>,
    requests: mpsc::Sender<Request>,
    path: Arc<Path>,
    door: Door,
    flushed: Arc<(AtomicU64, AtomicU64)>,
}

impl Tunnels {
    /// Brings rows and listeners together: what an earlier run left open is final before this returns, what stands is
    /// bound again.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        state::open_dir(&parts.socket_dir)?;
        ports::remove_stale_sockets(&parts.socket_dir);
        let entry = AuditEntry::new(unix_ms(), "master", "tunnel.reconcile");
        let reconciled = parts.store.tunnels().close_stale(unix_ms(), &entry).await?;
        let this = Arc::new(Self {
            ports: Ports::new(parts.config.port_range.clone(), parts.config.quarantine),
            parts,
            live: DashMap::new(),
            turns: Default::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        this.remember_ports().await?;
        for closed in &reconciled.closed {
            let draft = Draft::new("tunnel.closed").agent(&closed.agent_id).tunnel(closed.id);
            this.parts.events.publish(draft.reason(CloseReason::MasterRestarted.word()));
        }
        for standing in reconciled.standing {
            this.stand_again(standing).await?;
        }
        this.tasks.spawn(this.clone().flush_forever());
        Ok(this)
    }

    /// Ports stay with their agents and targets across restarts, and rest after a close as if there had been none.
    async fn remember_ports(&self) -> Result<(), StoreError> {
        let page = Page { cursor: None, limit: LIMIT_MAX };
        let newest = self.parts.store.tunnels().list(&TunnelFilter::default(), &page).await?;
        for row in newest.items {
            if let Some(port) = row.port {
                let ago = row.closed_at_ms.map_or(0, |at| unix_ms().saturating_sub(at));
                let ago = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
                self.ports.remember(port, port_owner(&row.agent_id, &row.target), ago);
            }
        }
        Ok(())
    }

    /// Binds a standing tunnel as it was. Where another program took its port meanwhile it gets another: a port that is
    /// not ours is never shown as ours.
    async fn stand_again(self: &Arc<Self>, mut row: Tunnel) -> Result<(), StoreError> {
        let bound = match self.bind(&row) {
            Ok(bound) => bound,
            Err(error) => {
                tracing::error!(tunnel = %row.id, error = %error, "a standing tunnel could not be bound and is closed");
                row.status = TunnelStatus::Disconnected;
                row.closed_reason = Some("no_listener".to_owned());
                row.closed_at_ms = Some(unix_ms());
                let entry = AuditEntry::new(unix_ms(), "master", "tunnel.close").agent(&row.agent_id).object(row.id);
                self.parts.store.tunnels().update(&row, Some(&entry.result("no_listener"))).await?;
                return Ok(());
            }
        };
        if bound.listen != row.listen {
            tracing::warn!(tunnel = %row.id, was = row.listen, now = bound.listen, "a standing tunnel had to move");
            (row.listen, row.port) = (bound.listen.clone(), bound.port);
            self.parts.store.tunnels().update(&row, None).await?;
        }
        let link = self.parts.fleet.watch(&row.agent_id);
        self.run(row, bound, link, Clock::start());
        Ok(())
    }

    /// Makes a tunnel, or finds the one that this caller has open to this very target. Returns when its port is bound
    /// and its row written; on an error nothing of it is left.
    pub async fn create(self: &Arc<Self>, new: NewTunnel) -> Result<Created, CreateError> {
        let clock = Clock::start();
        check(&new, &self.parts.config)?;
        let _turn = self.turns[turn(&new)].lock().await;
        if let Some(found) = self.same(&new).await? {
            return Ok(Created { id: found, fresh: false });
        }
        // Watched before the status is read, so that a suspension in between shows as a change.
        let link = self.parts.fleet.watch(&new.agent);
        match self.parts.store.agents().find(&new.agent).await? {
            None => return Err(CreateError::UnknownAgent),
            Some(agent) if agent.status == AgentStatus::Suspended => return Err(CreateError::Suspended),
            Some(_) => {}
        }
        if self.stopping.is_cancelled() {
            return Err(CreateError::Stopping);
        }
        let by = new.by.clone();
        let mut row = self.row(new, clock.start_ms());
        let bound = self.bind(&row)?;
        failpoint::here("tunnel.bound");
        (row.listen, row.port) = (bound.listen.clone(), bound.port);
        match self.parts.store.tunnels().insert(&row, &row::opened(&row, &by)).await {
            Ok(()) => {}
            Err(InsertTunnelError::Exists) => return Err(CreateError::KeyReused),
            Err(InsertTunnelError::Store(error)) => return Err(error.into()),
        }
        let id = row.id;
        self.run(row, bound, link, clock);
        failpoint::here("tunnel.listening");
        Ok(Created { id, fresh: true })
    }

    /// A tunnel made earlier under the same key, or an open one of the same spec.
    async fn same(&self, new: &NewTunnel) -> Result<Option<TunnelId>, CreateError> {
        if let Some(key) = &new.idempotency_key
            && let Some(row) = self.parts.store.tunnels().by_idempotency_key(&new.owner, key).await?
        {
            let same = row.agent_id == new.agent && row.target == new.target && row.standing == new.standing;
            return if same { Ok(Some(row.id)) } else { Err(CreateError::KeyReused) };
        }
        let same = |handle: &Handle| {
            let row = handle.view.borrow();
            let row = row.stored();
            !handle.requests.is_closed()
                && !row.status.is_final()
                && (&row.owner, &row.agent_id, &row.target) == (&new.owner, &new.agent, &new.target)
                && (row.standing, row.listen_kind) == (new.standing, new.listen)
        };
        Ok(self.live.iter().find(|handle| same(handle)).map(|handle| *handle.key()))
    }

    fn row(&self, new: NewTunnel, now_ms: i64) -> Tunnel {
        let ttl = new.ttl.unwrap_or(self.parts.config.ttl).min(self.parts.config.ttl_max);
        let ttl_ms = (!new.standing).then(|| millis(ttl));
        Tunnel {
            id: TunnelId::random(),
            agent_id: new.agent,
            owner: new.owner,
            target: new.target,
            listen_kind: new.listen,
            listen: String::new(),
            port: None,
            standing: new.standing,
            heartbeat: new.heartbeat && !new.standing,
            ttl_ms,
            status: TunnelStatus::Pending,
            health: Health::Unknown,
            health_since_ms: None,
            health_reason: None,
            closed_reason: None,
            tunnel_pid: None,
            tunnel_port: None,
            created_at_ms: now_ms,
            started_at_ms: None,
            last_heartbeat_ms: None,
            expires_at_ms: ttl_ms.map(|ttl_ms| now_ms + ttl_ms),
            closed_at_ms: None,
            bytes_in: 0,
            bytes_out: 0,
            probe: serde_json::Value::Null,
            idempotency_key: new.idempotency_key,
        }
    }

    fn bind(&self, row: &Tunnel) -> Result<Bound, PortError> {
        match row.listen_kind {
            ListenKind::Tcp => self.ports.bind_again(&port_owner(&row.agent_id, &row.target), row.port),
            ListenKind::Unix => ports::bind_unix(&self.parts.socket_dir, row.id),
        }
    }

    /// Hands a bound and written tunnel to its owner task.
    fn run(self: &Arc<Self>, row: Tunnel, bound: Bound, mut link: watch::Receiver<LinkState>, clock: Clock) {
        let Parts { config, fleet, store, events, metrics, .. } = self.parts.clone();
        let rules = rules(&config, &row);
        // A link that ended for good while the tunnel was made must be told to its owner: as a mere state it would read as
        // an absence, since a resumed agent's link says the same until it returns.
        let changed = link.has_changed().unwrap_or(false);
        let state = link.borrow_and_update().clone();
        let at_start = link_at_start(&state, clock);
        if changed && matches!(state, LinkState::Down { code: Code::SUSPENDED | Code::REMOVED, .. }) {
            link.mark_changed();
        }
        let (lifecycle, effects) = Lifecycle::open(rules, clock.start_ms(), at_start);
        let (dials_in, dials) = mpsc::channel(DIALS);
        let path = Arc::new(Path {
            fleet,
            agent: row.agent_id.clone(),
            target: Target { host: row.target.host.clone(), port: row.target.port },
            park: config.park,
            meter: Meter::default(),
            carried: (row.bytes_in, row.bytes_out),
            traffic: Traffic::new(clock),
            metrics: metrics.clone(),
            dials: dials_in,
        });
        let (id, agent) = (row.id, row.agent_id.clone());
        let row = Row::new(row);
        let (view, seen) = watch::channel(row.clone());
        let (requests_in, requests) = mpsc::channel(REQUESTS);
        let flushed = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let listener = Listener::start(bound.sockets, path.clone(), config.connections_max as usize);
        let door = listener.door();
        self.live.insert(id, Handle { view: seen, requests: requests_in, path: path.clone(), door, flushed });
        let actor = Actor {
            lifecycle,
            row,
            listener: Some(listener),
            path,
            clock,
            store,
            events,
            metrics,
            view,
            requests,
            dials,
            link,
            stop: self.stopping.clone(),
            probing: None,
            gauge: Some(self.parts.metrics.tunnel(TunnelStatus::Pending.word())),
            unsaved: Unsaved::default(),
            _demand: self.parts.fleet.demand(&agent),
        };
        let this = self.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(actor.run(effects)).catch_unwind().await.is_err() {
                this.bury(id).await;
            }
            if let Some((_, handle)) = this.live.remove(&id) {
                this.count_bytes(&handle);
            }
        });
    }

    /// The owner of a tunnel panicked: its sockets went with it, and the row must not say otherwise.
    async fn bury(&self, id: TunnelId) {
        let Parts { store, events, metrics, .. } = &self.parts;
        metrics.panicked();
        let Ok(Some(mut row)) = store.tunnels().find(id).await else { return };
        row.status = TunnelStatus::Disconnected;
        row.closed_reason = Some(Code::INTERNAL.to_string());
        row.closed_at_ms = Some(unix_ms());
        let entry = AuditEntry::new(unix_ms(), "master", "tunnel.close").agent(&row.agent_id).object(id);
        match store.tunnels().update(&row, Some(&entry.result(Code::INTERNAL))).await {
            Ok(true) => {
                let draft = Draft::new("tunnel.closed").agent(&row.agent_id).tunnel(id);
                events.publish(draft.reason(Code::INTERNAL));
            }
            // It was final already.
            Ok(false) => {}
            Err(error) => tracing::error!(tunnel = %id, error = %error, "a tunnel is gone but its row says it is open"),
        }
    }

    /// The tunnel as it is now, open or not.
    pub async fn find(&self, id: TunnelId) -> Result<Option<View>, StoreError> {
        if let Some(view) = self.live.get(&id).map(|handle| handle.view()) {
            return Ok(Some(view));
        }
        let row = self.parts.store.tunnels().find(id).await?;
        Ok(row.map(|row| View { row, connections_open: 0 }))
    }

    /// Where an open tunnel leads; `None` once it is over.
    pub fn open_row(&self, id: TunnelId) -> Option<Arc<Tunnel>> {
        self.live.get(&id).map(|handle| handle.view.borrow().stored().clone())
    }

    /// The state of an open tunnel, without touching the store; `None` once it is over.
    pub fn status(&self, id: TunnelId) -> Option<TunnelStatus> {
        self.live.get(&id).map(|handle| handle.view.borrow().stored().status)
    }

    /// A connection to the tunnel's target beside those of its listener: counted, bounded and closed like them.
    pub fn dial(&self, id: TunnelId) -> Result<Dialled, Code> {
        let door = self.live.get(&id).map(|handle| handle.door.clone());
        door.ok_or(Code::TUNNEL_CLOSED)?.dial()
    }

    /// Newest first.
    pub async fn list(&self, filter: &TunnelFilter, page: &Page) -> Result<Paged<View>, StoreError> {
        let rows = self.parts.store.tunnels().list(filter, page).await?;
        let view = |row: Tunnel| match self.live.get(&row.id) {
            Some(handle) => handle.view(),
            None => View { row, connections_open: 0 },
        };
        Ok(Paged { items: rows.items.into_iter().map(view).collect(), next_cursor: rows.next_cursor })
    }

    /// Waits until the tunnel is active or final, `within` at most, and shows it as it is then.
    pub async fn settled(&self, id: TunnelId, within: Duration) -> Result<Option<View>, StoreError> {
        let seen = self.live.get(&id).map(|handle| handle.view.clone());
        if let Some(mut seen) = seen {
            let settled = seen.wait_for(|row| row.stored().status != TunnelStatus::Pending);
            // Either way it is looked up afresh: the owner may have ended meanwhile.
            let _ = timeout(within, settled).await;
        }
        self.find(id).await
    }

    /// Closes a tunnel; when this returns its row is final, its port free and its connections reset. Closing one that is
    /// over already changes nothing.
    pub async fn close(&self, id: TunnelId, reason: CloseReason, by: By) -> Result<(), ActError> {
        match self.ask(id, |reply| Request::Close { reason, by, reply }).await {
            Ok(closed) => Ok(closed?),
            Err(ActError::Ended) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The caller's sign of life; false when the tunnel is over, `None` when there never was one.
    pub async fn heartbeat(&self, id: TunnelId) -> Result<Option<bool>, ActError> {
        match self.ask(id, |reply| Request::Heartbeat { reply }).await {
            Ok(alive) => Ok(Some(alive)),
            Err(ActError::Ended) => Ok(Some(false)),
            Err(ActError::Unknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets a tunnel live `ttl` from now (as configured without one), as far as its cap goes.
    pub async fn extend(&self, id: TunnelId, ttl: Option<Duration>) -> Result<View, ExtendError> {
        let ttl_ms = millis(ttl.unwrap_or(self.parts.config.ttl));
        match self.ask(id, |reply| Request::Extend { ttl_ms, reply }).await? {
            Extended::Done => {}
            Extended::Unchanged { most_ms } if unix_ms() + ttl_ms > most_ms => return Err(ExtendError::AtCap),
            Extended::Unchanged { .. } => {}
            Extended::Standing => return Err(ExtendError::Standing),
            Extended::Ended => return Err(ActError::Ended.into()),
            Extended::NotSaved(error) => return Err(ActError::Store(error).into()),
        }
        self.find(id).await.map_err(ActError::from)?.ok_or_else(|| ActError::Unknown.into())
    }

    /// Keeps what a panel reported about its own end of the tunnel.
    pub async fn report(&self, id: TunnelId, pid: Option<i64>, port: Option<i64>) -> Result<(), ActError> {
        match self.ask(id, |reply| Request::Report { pid, port, reply }).await {
            Ok(saved) => Ok(saved?),
            Err(ActError::Ended) => Ok(self.parts.store.tunnels().set_reported(id, pid, port).await?),
            Err(error) => Err(error),
        }
    }

    /// Asks the tunnel's owner. [`ActError::Ended`] when there is none any more.
    async fn ask<T>(&self, id: TunnelId, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ActError> {
        let requests = self.live.get(&id).map(|handle| handle.requests.clone());
        let Some(requests) = requests else {
            let known = self.parts.store.tunnels().find(id).await?.is_some();
            return Err(if known { ActError::Ended } else { ActError::Unknown });
        };
        let (reply, answer) = oneshot::channel();
        let asking = async {
            requests.send(request(reply)).await.map_err(|_| ActError::Ended)?;
            answer.await.map_err(|_| ActError::Ended)
        };
        timeout(ACT_WITHIN, asking).await.unwrap_or(Err(ActError::TooSlow))
    }

    /// Tunnels that are pending or active.
    pub fn open_count(&self) -> usize {
        self.live.len()
    }

    /// Ends every tunnel and waits for that, `within` at most: rows final (standing ones pending), ports free,
    /// connections reset. Creating fails from now on.
    pub async fn stop(&self, within: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        if timeout(within, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.live.len(), "tunnels are still ending after {within:?}");
        }
    }

    /// Byte counts go to the store in batches only.
    async fn flush_forever(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(FLUSH_EVERY) => {}
            }
            let handles: Vec<_> = self.live.iter().map(|handle| (*handle.key(), handle.clone())).collect();
            let mut batch = Vec::new();
            for (id, handle) in handles {
                if self.count_bytes(&handle) {
                    let (bytes_in, bytes_out) = (handle.path.bytes_in(), handle.path.bytes_out());
                    batch.push(Counters { id, bytes_in, bytes_out });
                }
            }
            if !batch.is_empty()
                && let Err(error) = self.parts.store.tunnels().set_counters(&batch).await
            {
                tracing::warn!(error = %error, "byte counts of tunnels could not be written");
            }
        }
    }

    /// Adds what flowed since the last time to the metrics; false if nothing did.
    fn count_bytes(&self, handle: &Handle) -> bool {
        let (meter, flushed) = (&handle.path.meter, &handle.flushed);
        let news = |total: u64, flushed: &AtomicU64| total.saturating_sub(flushed.swap(total, Ordering::Relaxed));
        let (bytes_in, bytes_out) = (news(meter.to_stream(), &flushed.0), news(meter.to_socket(), &flushed.1));
        self.parts.metrics.tunnel_bytes(bytes_in, bytes_out);
        bytes_in + bytes_out > 0
    }
}

impl Handle {
    fn view(&self) -> View {
        let mut row = Tunnel::clone(self.view.borrow().stored());
        (row.bytes_in, row.bytes_out) = (self.path.bytes_in(), self.path.bytes_out());
        View { row, connections_open: self.path.traffic.open() }
    }
}

fn check(new: &NewTunnel, config: &config::Tunnel) -> Result<(), CreateError> {
    let target = Target { host: new.target.host.clone(), port: new.target.port };
    target.check().map_err(|invalid| CreateError::Invalid(invalid.0))?;
    match new.ttl {
        Some(_) if new.standing => Err(CreateError::Invalid("a standing tunnel does not expire: leave ttl_s out")),
        Some(ttl) if ttl.is_zero() => Err(CreateError::Invalid("ttl_s must be at least 1")),
        Some(ttl) if ttl > config.ttl_max => Err(CreateError::TtlTooLong { most: config.ttl_max }),
        Some(_) | None => Ok(()),
    }
}

fn rules(config: &config::Tunnel, row: &Tunnel) -> Rules {
    Rules {
        standing: row.standing,
        pending_ms: millis(config.pending_timeout),
        grace_ms: millis(config.agent_grace),
        heartbeat_ms: row.heartbeat.then_some(millis(config.heartbeat_timeout)),
        idle_ms: config.idle.map(millis),
        ttl_ms: row.ttl_ms.unwrap_or(millis(config.ttl)),
        ttl_max_ms: millis(config.ttl_max),
    }
}

fn port_owner(agent: &AgentId, target: &TunnelTarget) -> PortOwner {
    PortOwner { agent: agent.clone(), target: Target { host: target.host.clone(), port: target.port } }
}

/// Which lock the creations of one spec share.
fn turn(new: &NewTunnel) -> usize {
    let mut hasher = DefaultHasher::new();
    (&new.owner, &new.agent, &new.target).hash(&mut hasher);
    usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0)
}
