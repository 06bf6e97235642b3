//! Execs: one command line on one agent, its output handed on piece by piece as the caller takes it. Nothing is spooled:
//! a caller that does not read holds back the program.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use proto::{
    code::Code,
    exec::{ExecSpec, FromExec, Outcome, ToExec},
    id::{AgentId, ExecId, RequestId},
    limits::{EXEC_PIECE_MAX, FRAME_MAX},
    net::{
        frame::FrameReader,
        stream::{RecvHalf, SendHalf},
    },
    open::Operation,
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    events::{Draft, Events},
    fleet::{Fleet, OpenError, StreamGuard},
    metrics::Metrics,
    store::{Store, StoreError, audit::AuditEntry},
};

/// Time the agent has to start the program.
const STARTED_WITHIN: Duration = Duration::from_secs(15);

/// Why an exec did not start.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the exec is larger than one request may be ({FRAME_MAX} bytes); pass long input on stdin")]
    TooLarge,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the start could not be recorded, so nothing was started")]
    Store(#[from] StoreError),
}

/// What happens in an exec, in order: one `Started`, output, and one end.
#[derive(Debug)]
pub enum ExecEvent {
    Started {
        pid: u32,
    },
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Ended(Outcome),
    /// The line went away: whether and how the program ended is not known here.
    Lost(Code),
}

struct Running {
    agent: AgentId,
    cancel: CancellationToken,
}

/// The execs that run now.
pub struct Execs {
    fleet: Arc<Fleet>,
    store: Store,
    events: Events,
    metrics: Arc<Metrics>,
    running: DashMap<ExecId, Running>,
}

/// One exec as its caller holds it. Dropping it before its end resets the stream, and the agent kills the program.
pub struct ExecRun {
    pub id: ExecId,
    recv: FrameReader<RecvHalf>,
    _writer: AbortOnDropHandle<()>,
    _guard: StreamGuard,
    record: Record,
}

/// Writes the end of an exec into audit, events and metrics, whichever way the caller leaves it.
struct Record {
    id: ExecId,
    agent: AgentId,
    actor: String,
    started: Instant,
    execs: Arc<Execs>,
    result: Option<String>,
}

impl Execs {
    pub fn new(fleet: Arc<Fleet>, store: Store, events: Events, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { fleet, store, events, metrics, running: DashMap::new() })
    }

    /// Starts one command line. The start is on record before the agent hears of it. `stdin` is written as fast as the
    /// program takes it.
    pub async fn start(
        self: &Arc<Self>,
        actor: &str,
        agent: &AgentId,
        mut spec: ExecSpec,
        stdin: Vec<u8>,
    ) -> Result<ExecRun, ExecError> {
        let line = self.fleet.line(agent).ok_or(OpenError::Offline)?;
        let id = ExecId::random();
        spec.stdin = !stdin.is_empty();
        let operation = Operation::Exec(spec);
        if !super::fits(&operation) {
            return Err(ExecError::TooLarge);
        }
        let at_ms = self.fleet.now_ms();
        self.store.audit(&started_entry(at_ms, actor, agent, id, &operation)).await?;
        let mut record = Record {
            id,
            agent: agent.clone(),
            actor: actor.to_owned(),
            started: Instant::now(),
            execs: self.clone(),
            result: None,
        };
        let opened = async {
            let mut work = line.open_as(RequestId(id.0), operation).await?;
            work.opened(STARTED_WITHIN).await?;
            Ok(work)
        };
        let work = opened.await.inspect_err(|error: &OpenError| record.result = Some(error.code().to_string()))?;
        let cancel = CancellationToken::new();
        self.running.insert(id, Running { agent: agent.clone(), cancel: cancel.clone() });
        self.events.publish(Draft::new("exec.started").agent(agent).detail(json!({ "exec_id": id, "by": actor })));
        let (stream, guard) = work.into_frames();
        let writer = AbortOnDropHandle::new(tokio::spawn(write(stream.send, stdin, cancel)));
        Ok(ExecRun { id, recv: stream.recv, _writer: writer, _guard: guard, record })
    }

    /// The agent an exec runs on; `None` once it ended.
    pub fn agent_of(&self, id: ExecId) -> Option<AgentId> {
        Some(self.running.get(&id)?.agent.clone())
    }

    /// Asks the agent to kill the whole process group; the end is reported to the exec's caller. False if it is not
    /// running.
    pub fn cancel(&self, id: ExecId) -> bool {
        self.running.get(&id).map(|running| running.cancel.cancel()).is_some()
    }
}

impl ExecRun {
    /// The next event; after an end there is none.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        if self.record.result.is_some() {
            return None;
        }
        Some(match self.recv.next::<FromExec>().await {
            Ok(FromExec::Started { pid }) => ExecEvent::Started { pid },
            Ok(FromExec::Stdout(piece)) => ExecEvent::Stdout(piece),
            Ok(FromExec::Stderr(piece)) => ExecEvent::Stderr(piece),
            Ok(FromExec::Attached { pid, .. }) => ExecEvent::Started { pid },
            Ok(FromExec::Ended(outcome)) => {
                self.record.result = Some(format!("{:?}", outcome.end));
                ExecEvent::Ended(outcome)
            }
            Err(error) => {
                self.record.result = Some(Code::OUTCOME_UNKNOWN.to_string());
                ExecEvent::Lost(error.code())
            }
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.execs.running.remove(&self.id);
        let result = self.result.take().unwrap_or_else(|| Code::ABANDONED.to_string());
        let word = if result.starts_with("Exited") { "ended" } else { "failed" };
        self.execs.metrics.command("exec", word, self.started.elapsed().as_secs_f64());
        let detail = json!({ "exec_id": self.id, "result": result });
        self.execs.events.publish(Draft::new("exec.ended").agent(&self.agent).detail(detail));
        let entry = AuditEntry::new(self.execs.fleet.now_ms(), self.actor.clone(), "exec.end")
            .agent(&self.agent)
            .object(self.id)
            .result(result);
        let store = self.execs.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.audit(&entry).await {
                tracing::error!(error = %error, "the end of an exec could not be recorded");
            }
        });
    }
}

fn started_entry(at_ms: i64, actor: &str, agent: &AgentId, id: ExecId, operation: &Operation) -> AuditEntry {
    let program = match operation {
        Operation::Exec(spec) => json!(spec.program),
        _ => json!(null),
    };
    AuditEntry::new(at_ms, actor, "exec.start").agent(agent).object(id).detail(json!({ "program": program }))
}

/// Feeds stdin, then waits for a cancel. Ends with the stream.
async fn write(mut send: SendHalf, stdin: Vec<u8>, cancel: CancellationToken) {
    let feed = async {
        for piece in stdin.chunks(EXEC_PIECE_MAX) {
            if send.write_frame(&ToExec::Stdin(piece.to_vec())).await.is_err() {
                return;
            }
        }
        if !stdin.is_empty() {
            let _ = send.write_frame(&ToExec::StdinEnd).await;
        }
    };
    let fed = tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        () = feed => true,
    };
    if fed {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            _ = send.stopped() => return,
        }
    }
    if fed {
        // Between frames: the agent can still be told.
        let _ = send.write_frame(&ToExec::Cancel).await;
        send.stopped().await;
    } else {
        // Perhaps inside a frame: only a reset is sure to be understood; the agent kills the group on it.
        send.reset(Code::CANCELLED);
    }
}
