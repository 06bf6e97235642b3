//! Shell sessions as the master has them: opened, listed, watched, typed into, recorded. Each has a hub with the one
//! stream to its agent; viewers come and go. After a restart the hubs of the sessions that run are made again.

mod hub;
mod recording;
mod state;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use proto::{
    id::{AgentId, RequestId, ShellId},
    limits::SHELL_RING,
    open::Operation,
    ring::Ring,
    shell::{ShellSpec, Size},
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{hub::Hub, recording::Recording, state::State};
pub use self::{
    recording::RecordingDir,
    state::{Joined, Told},
};
use super::ended::Ended;
use crate::{
    clock::unix_ms,
    events::{Draft, Events},
    fleet::{Fleet, OpenError},
    metrics::{GaugeGuard, Metrics},
    store::{
        Store, StoreError,
        audit::AuditEntry,
        sessions::{SessionKind, SessionRow},
    },
};

/// Time for the agent to start the program.
const STARTED_WITHIN: Duration = Duration::from_secs(15);
/// An ended session may be looked at for this long without asking the recording.
const KEEP_ENDED: Duration = Duration::from_secs(60);

/// What an operator decides about recordings.
#[derive(Debug, Clone)]
pub struct ShellSettings {
    pub recordings: PathBuf,
    /// A session whose recording cannot be written ends.
    pub strict: bool,
}

/// Why a session was not opened or not found.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the session could not be recorded, so none was opened")]
    Store(#[from] StoreError),
    #[error("the recording cannot be written, and no session may go unrecorded")]
    Recording(#[from] io::Error),
    #[error("the request is larger than one message may be")]
    TooLarge,
}

/// The sessions that run, and those that ended a moment ago.
pub struct Shells {
    fleet: Arc<Fleet>,
    store: Store,
    events: Events,
    metrics: Arc<Metrics>,
    settings: ShellSettings,
    sessions: DashMap<ShellId, Arc<Session>>,
    hubs: TaskTracker,
    stop: CancellationToken,
}

/// One session.
pub struct Session {
    pub id: ShellId,
    pub agent: AgentId,
    /// The actor that opened it, and who alone may type.
    pub owner: String,
    pub created_ms: i64,
    opened: Value,
    state: Arc<State>,
    incomplete: AtomicBool,
    closed_by: Mutex<Option<String>>,
    _gauge: GaugeGuard,
}

/// One who looks at a session, or types. Dropping it leaves; the session goes on.
pub struct Viewer {
    session: Arc<Session>,
    writes: bool,
    pub joined: Joined,
}

impl Shells {
    pub fn new(
        fleet: Arc<Fleet>,
        store: Store,
        events: Events,
        metrics: Arc<Metrics>,
        settings: ShellSettings,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (sessions, hubs) = (DashMap::new(), TaskTracker::new());
        Arc::new(Self { fleet, store, events, metrics, settings, sessions, hubs, stop })
    }

    /// Takes up the sessions that an earlier master left running.
    pub async fn resume(self: &Arc<Self>) -> Result<(), StoreError> {
        for row in self.store.sessions().open().await? {
            if row.kind == SessionKind::Shell {
                self.resume_one(row);
            }
        }
        Ok(())
    }

    fn resume_one(self: &Arc<Self>, row: SessionRow) {
        let id = ShellId(row.id);
        let path = self.recordings().path(id, row.created_at_ms);
        let (recording, shown) = match Recording::resume(&path, row.created_at_ms) {
            Ok((recording, shown)) => (Some(recording), shown),
            Err(error) => {
                tracing::warn!(%id, %error, "a recording cannot be gone on with");
                (None, Ring::new(SHELL_RING, 0))
            }
        };
        let size = serde_json::from_value(row.detail["size"].clone()).unwrap_or(Size { cols: 80, rows: 24 });
        let session = self.session(id, row.agent_id, row.owner, row.created_at_ms, row.detail, State::new(size, shown));
        session.incomplete.store(recording.is_none(), Ordering::Relaxed);
        session.state.line(false);
        let hub = Hub { shells: self.clone(), session, recording, synced: Instant::now(), size };
        self.hubs.spawn(hub.run(None, self.stop.clone()));
    }

    /// Opens a session. Row and audit entry are written before the agent hears of it.
    pub async fn open(
        self: &Arc<Self>,
        begin: AuditEntry,
        agent: &AgentId,
        spec: ShellSpec,
    ) -> Result<Arc<Session>, ShellError> {
        let reached = self.fleet.reach(agent).await?;
        let (id, created_ms, owner) = (ShellId::random(), unix_ms(), begin.actor.clone());
        let detail = json!({ "size": spec.size, "term": spec.term, "program": spec.program });
        let (size, term) = (spec.size, spec.term.clone());
        let operation = Operation::Shell(spec);
        if !super::fits(&operation) {
            return Err(ShellError::TooLarge);
        }
        let (path, title) = (self.recordings().path(id, created_ms), agent.to_string());
        let created = recording::on_disk(move || Recording::create(&path, created_ms, size, &term, &title));
        let recording = match created.await {
            Ok(recording) => Some(recording),
            Err(error) if self.settings.strict => return Err(error.into()),
            Err(error) => {
                tracing::error!(%id, %error, "a session goes unrecorded");
                None
            }
        };
        let row = SessionRow {
            id: id.0,
            kind: SessionKind::Shell,
            agent_id: agent.clone(),
            owner: owner.clone(),
            created_at_ms: created_ms,
            ended_at_ms: None,
            end_reason: None,
            detail: detail.clone(),
        };
        self.store.sessions().begin(&row, &begin.object(id).detail(detail.clone())).await?;
        let opened = async {
            let mut work = reached.line.open_as(RequestId(id.0), operation).await?;
            work.opened(STARTED_WITHIN).await?;
            Ok(work)
        };
        let session =
            self.session(id, agent.clone(), owner, created_ms, detail, State::new(size, Ring::new(SHELL_RING, 0)));
        session.incomplete.store(recording.is_none(), Ordering::Relaxed);
        let hub = Hub { shells: self.clone(), session: session.clone(), recording, synced: Instant::now(), size };
        match opened.await {
            Ok(work) => {
                let told = json!({ "shell_id": id, "by": session.owner });
                self.events.publish(Draft::new("shell.started").agent(agent).detail(told));
                self.hubs.spawn(hub.run(Some(work), self.stop.clone()));
                Ok(session)
            }
            // It may have started all the same: the hub looks after it.
            Err(error @ (OpenError::Lost | OpenError::TooSlow(_))) => {
                session.state.close();
                self.hubs.spawn(hub.run(None, self.stop.clone()));
                Err(error.into())
            }
            Err(error) => {
                let ended = Ended::from(error.code());
                // The row that was written first gets its end.
                session.state.over(ended.clone());
                self.sessions.remove(&id);
                hub.record_end(&ended).await;
                Err(error.into())
            }
        }
    }

    fn session(
        self: &Arc<Self>,
        id: ShellId,
        agent: AgentId,
        owner: String,
        created_ms: i64,
        opened: Value,
        state: State,
    ) -> Arc<Session> {
        let session = Arc::new(Session {
            id,
            agent,
            owner,
            created_ms,
            opened,
            state: Arc::new(state),
            incomplete: AtomicBool::new(false),
            closed_by: Mutex::new(None),
            _gauge: self.metrics.shell_open(),
        });
        self.sessions.insert(id, session.clone());
        session
    }

    /// One that runs or ended a moment ago.
    pub fn find(&self, id: ShellId) -> Option<Arc<Session>> {
        Some(self.sessions.get(&id)?.clone())
    }

    pub fn recordings(&self) -> RecordingDir {
        RecordingDir(self.settings.recordings.clone())
    }

    /// Resolves when every hub ended. To be called after the stop; the sessions themselves go on.
    pub async fn finished(&self) {
        self.hubs.close();
        self.hubs.wait().await;
    }

    /// Late viewers still get the last output and the end for a while.
    async fn forget(&self, session: &Arc<Session>) {
        let _ = tokio::time::timeout(KEEP_ENDED, self.stop.cancelled()).await;
        self.sessions.remove(&session.id);
    }
}

impl Session {
    /// Looks at the session from byte `offset` of its output, or from the oldest that is held. `None` if the output has
    /// not come that far.
    pub fn join(self: &Arc<Self>, offset: Option<u64>, writes: bool) -> Option<Viewer> {
        let joined = self.state.join(offset, writes, Instant::now())?;
        Some(Viewer { session: self.clone(), writes, joined })
    }

    /// Ends it, in the name of this actor.
    pub fn close(&self, by: String) {
        self.closed_by.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(by);
        self.state.close();
    }

    pub fn ended(&self) -> Option<Ended> {
        self.state.end()
    }

    pub fn size(&self) -> Size {
        self.state.size()
    }

    /// How many look at it.
    pub fn viewers(&self) -> usize {
        self.state.viewers()
    }

    /// Whether everything shown so far is on record.
    pub fn is_recorded(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }

    /// Types, waiting while the program takes nothing. Cancel-safe between pieces.
    pub async fn type_in(&self, mut bytes: &[u8]) {
        let mut changes = self.state.changes();
        while !bytes.is_empty() {
            changes.borrow_and_update();
            if self.ended().is_some() {
                return;
            }
            let (piece, rest) = bytes.split_at(self.state.input_room().min(bytes.len()));
            if piece.is_empty() {
                let _ = changes.changed().await;
                continue;
            }
            self.state.type_in(piece);
            bytes = rest;
        }
    }

    fn incomplete(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    fn ended_by(&self) -> String {
        let by = self.closed_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        by.filter(|_| self.state.is_closing()).unwrap_or_else(|| "master".to_owned())
    }

    fn detail(&self, ended: Option<&Ended>) -> Value {
        let mut detail = self.opened.clone();
        detail["output_bytes"] = self.state.offset().into();
        detail["recorded"] = self.is_recorded().into();
        if let Some(ended) = ended {
            detail["code"] = ended.code.into();
            detail["signal"] = ended.signal.into();
        }
        detail
    }
}

impl Viewer {
    /// What is told next. Cancel-safe.
    pub async fn next(&mut self) -> Told {
        let mut changes = self.session.state.changes();
        loop {
            changes.borrow_and_update();
            if let Some(told) = self.session.state.next(self.joined.viewer, self.writes) {
                return told;
            }
            let _ = changes.changed().await;
        }
    }

    /// Everything up to `offset` was shown. False for what was never sent.
    pub fn acked(&self, offset: u64) -> bool {
        self.session.state.acked(self.joined.viewer, offset, Instant::now())
    }

    pub fn resize(&self, size: Size) {
        self.session.state.resize(size);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.session.state.leave(self.joined.viewer);
    }
}
