//! Execs: one command line on one agent. The run belongs to the agent; here are its row, the start, and the ways to come
//! back to it. Output is handed on piece by piece as the caller takes it, nothing is spooled: while nobody reads, the
//! agent holds the program back.

mod feed;
mod keeper;
mod run;
mod start;
mod stream;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    code::Code,
    exec::{Attached, ExecAttach, FromExec, Outcome, ToExec},
    id::{AgentId, ExecId},
    limits::FRAME_MAX,
    net::frame::FrameError,
    open::Operation,
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::stream::Stream;
pub use self::{
    feed::{FeedError, Feeder},
    run::{ExecEvent, ExecRun},
};
use super::{
    again::{self, ANSWER_WITHIN},
    ended::Ended,
};
use crate::{
    clock::unix_ms,
    events::{Draft, Events},
    fleet::{Fleet, OpenError},
    metrics::Metrics,
    store::{
        Store, StoreError,
        audit::AuditEntry,
        sessions::{SessionKind, SessionRow},
    },
};

/// Time for the agent to say how an exec stands.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Why an exec did not start, or cannot be come back to.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the exec is larger than one request may be ({FRAME_MAX} bytes); pass long input on stdin")]
    TooLarge,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the start could not be recorded, so nothing was started")]
    Store(#[from] StoreError),
}

/// The execs of this master. It remembers none of them: their rows do, and the agents.
pub struct Execs {
    fleet: Arc<Fleet>,
    store: Store,
    events: Events,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Input that came with the call.
#[derive(Debug, Clone, Default)]
pub struct Stdin {
    pub bytes: Bytes,
    /// Nothing comes behind it.
    pub ends: bool,
}

/// Which exec, as its row has it.
#[derive(Debug, Clone)]
struct About {
    id: ExecId,
    agent: AgentId,
    owner: String,
    created_ms: i64,
    opened: Value,
}

impl About {
    fn of(row: &SessionRow) -> Self {
        Self {
            id: ExecId(row.id),
            agent: row.agent_id.clone(),
            owner: row.owner.clone(),
            created_ms: row.created_at_ms,
            opened: row.detail.clone(),
        }
    }

    /// As it begins.
    fn row(&self) -> SessionRow {
        SessionRow {
            id: self.id.0,
            kind: SessionKind::Exec,
            agent_id: self.agent.clone(),
            owner: self.owner.clone(),
            created_at_ms: self.created_ms,
            ended_at_ms: None,
            end_reason: None,
            detail: self.opened.clone(),
        }
    }

    fn attach(&self, offset: Option<u64>) -> Operation {
        Operation::ExecAttach(ExecAttach { exec: self.id, offset })
    }
}

impl Execs {
    pub fn new(
        fleet: Arc<Fleet>,
        store: Store,
        events: Events,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { fleet, store, events, metrics, tasks: TaskTracker::new(), stop })
    }

    /// Looks after the execs that an earlier master left running.
    pub async fn resume(self: &Arc<Self>) -> Result<(), StoreError> {
        for row in self.store.sessions().open().await? {
            if row.kind == SessionKind::Exec {
                self.keep(About::of(&row), Stdin::default());
            }
        }
        Ok(())
    }

    /// Resolves when nobody looks after any exec. To be called after the stop; the execs themselves go on.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Follows an exec from byte `offset` of its output, or from the first that is kept.
    pub async fn follow(self: &Arc<Self>, row: &SessionRow, offset: Option<u64>) -> Result<ExecRun, OpenError> {
        let about = About::of(row);
        let offset = match offset {
            Some(offset) => offset,
            None => self.look(row).await?.kept_from,
        };
        let work = again::open(&self.fleet, &about.agent, about.attach(Some(offset))).await?;
        let stdin = Stdin::default();
        let stream = Stream::new(work, &stdin, None);
        Ok(ExecRun::new(self.clone(), about, offset, Some(stream), stdin))
    }

    /// How an exec stands on its agent.
    pub async fn look(&self, row: &SessionRow) -> Result<Attached, OpenError> {
        Ok(self.aside(row).await?.0)
    }

    /// Asks the agent to kill everything of it, and waits a moment until it is gone. Also for one that an earlier master
    /// started.
    pub async fn cancel(&self, row: &SessionRow) -> Result<(), OpenError> {
        let (attached, mut work) = self.aside(row).await?;
        if attached.outcome.is_some() {
            return Ok(());
        }
        let frames = &mut work.stream;
        frames.send.write_frame(&ToExec::Cancel).await.map_err(|_| OpenError::Lost)?;
        // The line orders nothing between streams: the answer shows that it arrived.
        match frames.recv.next_within::<FromExec>(LOOK_WITHIN).await {
            Ok(_) | Err(FrameError::TooSlow(_)) => Ok(()),
            Err(_) => Err(OpenError::Lost),
        }
    }

    /// Brings input for an exec, from byte `offset` of all its input.
    pub async fn feed(&self, row: &SessionRow, offset: u64) -> Result<Feeder, FeedError> {
        let (attached, work) = self.aside(row).await?;
        Feeder::new(work, &attached, offset)
    }

    async fn aside(&self, row: &SessionRow) -> Result<(Attached, crate::fleet::WorkStream), OpenError> {
        let about = About::of(row);
        let mut work = again::open(&self.fleet, &about.agent, about.attach(None)).await?;
        match work.stream.recv.next_within::<FromExec>(ANSWER_WITHIN).await {
            Ok(FromExec::Attached(attached)) => Ok((attached, work)),
            Ok(_) => Err(OpenError::Broken(FrameError::Cut)),
            Err(_) => Err(OpenError::Lost),
        }
    }

    /// Writes the end of an exec, once. While the database is away somebody goes on trying.
    async fn ended(self: &Arc<Self>, about: &About, outcome: &Outcome) {
        let ended = Ended::from(&outcome.end);
        if !self.over(about, &ended, Some(outcome.truncated)).await {
            let (execs, about, truncated) = (self.clone(), about.clone(), outcome.truncated);
            self.tasks.spawn(async move {
                let writing = async {
                    while !execs.over(&about, &ended, Some(truncated)).await {
                        again::before_writing().await;
                    }
                };
                execs.stop.run_until_cancelled(writing).await;
            });
        }
    }

    /// Writes the end into row, audit, events and metrics, unless it is there. False while the database is away.
    async fn over(&self, about: &About, ended: &Ended, truncated: Option<bool>) -> bool {
        let mut detail = about.opened.clone();
        detail["code"] = ended.code.into();
        detail["signal"] = ended.signal.into();
        detail["truncated"] = truncated.into();
        let entry = AuditEntry::new(unix_ms(), about.owner.clone(), "exec.end")
            .agent(&about.agent)
            .object(about.id)
            .result(ended.reason.clone())
            .detail(detail.clone());
        match self.store.sessions().end(about.id.0, unix_ms(), &ended.reason, &detail, &entry).await {
            Ok(false) => return true,
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(id = %about.id, %error, "the end of an exec could not be recorded");
                return false;
            }
        }
        let took_s = (unix_ms() - about.created_ms).max(0) as f64 / 1000.0;
        self.metrics.command("exec", if ended.code.is_some() { "ended" } else { "failed" }, took_s);
        let told = json!({
            "exec_id": about.id, "result": ended.reason, "code": ended.code, "signal": ended.signal,
        });
        self.events.publish(Draft::new("exec.ended").agent(&about.agent).detail(told));
        true
    }

    /// What the end of an exec is when the agent does not say.
    fn unknown(code: Code) -> Ended {
        if code == Code::NO_SESSION { Code::OUTCOME_UNKNOWN.into() } else { code.into() }
    }
}
