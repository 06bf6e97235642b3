//! Commands: a typed service/action with JSON in and out, in the shapes of the original panel. Each runs at most once:
//! its id becomes the request id, so that the agent too refuses a repeat, even after a restart of the master.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proto::{
    code::Code,
    command::{Command, Reply, is_name},
    freshness::{FreshnessGuard, NotFresh},
    id::{AgentId, RequestId},
    limits::{COMMAND_JSON_MAX, FRESHNESS_CAPACITY, FRESHNESS_WINDOW},
    open::Operation,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    fleet::{Fleet, OpenError},
    metrics::Metrics,
    store::{Store, StoreError, audit::AuditEntry},
};

/// Longest id a caller may give, bytes.
pub const ID_MAX: usize = 128;
/// How long an agent may work on a command unless the caller says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long it may work at most.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// What the way there and back may add to that.
const MARGIN: Duration = Duration::from_secs(5);
/// Time the agent has to take or refuse it.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The caller's id for it; unique per caller and agent within the freshness window.
    pub id: String,
    pub service: String,
    pub action: String,
    /// When the caller made it, Unix milliseconds.
    pub timestamp_ms: i64,
    pub payload: Option<Value>,
    pub timeout: Duration,
}

/// What the agent answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Success(Value),
    Failure { code: Code, message: String },
}

/// Why a call was not sent, or its outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    NotFresh(#[from] NotFresh),
    #[error("id is 1 to {ID_MAX} bytes")]
    BadId,
    #[error("service and action are 1 to 64 of A-Z a-z 0-9 _ -")]
    BadName,
    #[error("payload is larger than {COMMAND_JSON_MAX} bytes")]
    PayloadTooLarge,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the call could not be recorded, so it was not sent")]
    Store(#[from] StoreError),
    #[error("the line was lost while the agent worked on it: whether it was done is not known")]
    OutcomeUnknown,
}

/// The door for commands.
pub struct Commands {
    fleet: Arc<Fleet>,
    store: Store,
    metrics: Arc<Metrics>,
    guard: Mutex<FreshnessGuard>,
}

impl Commands {
    pub fn new(fleet: Arc<Fleet>, store: Store, metrics: Arc<Metrics>) -> Arc<Self> {
        let window_ms = i64::try_from(FRESHNESS_WINDOW.as_millis()).unwrap_or(i64::MAX);
        let guard = Mutex::new(FreshnessGuard::new(window_ms, FRESHNESS_CAPACITY));
        Arc::new(Self { fleet, store, metrics, guard })
    }

    /// Sends one command and waits for its answer. Dropping the future resets the stream; the agent then stops what it
    /// can.
    pub async fn call(&self, actor: &str, agent: &AgentId, call: Call) -> Result<Answer, CallError> {
        let started = Instant::now();
        let result = self.try_call(actor, agent, call).await;
        let word = match &result {
            Ok(Answer::Success(_)) => "success",
            Ok(Answer::Failure { .. }) => "error",
            Err(_) => "not_done",
        };
        self.metrics.command("command", word, started.elapsed().as_secs_f64());
        result
    }

    /// Takes the id of a call that is answered elsewhere: fresh, and not seen before.
    pub fn take(&self, actor: &str, agent: &AgentId, id: &str, timestamp_ms: i64) -> Result<RequestId, CallError> {
        let request_id = request_id(actor, agent, id);
        self.lock_guard().take(self.fleet.now_ms(), request_id, timestamp_ms)?;
        Ok(request_id)
    }

    async fn try_call(&self, actor: &str, agent: &AgentId, call: Call) -> Result<Answer, CallError> {
        let payload = check(&call)?;
        let request_id = request_id(actor, agent, &call.id);
        if !self.fleet.is_reachable(agent) {
            return Err(OpenError::Offline.into());
        }
        // Judged as it came: what waits for an agent's visit grows no staler by that, and is sent once.
        self.lock_guard().take(self.fleet.now_ms(), request_id, call.timestamp_ms)?;
        let reached = self.fleet.reach(agent).await?;
        let detail = json!({ "id": call.id, "command": format!("{}.{}", call.service, call.action) });
        self.store.audit(&self.entry(actor, "command.start", agent, &detail)).await?;
        let timeout_ms = u32::try_from(call.timeout.min(TIMEOUT_MAX).as_millis()).unwrap_or(u32::MAX);
        let command = Command { service: call.service, action: call.action, payload, timeout_ms };
        let mut work = reached.line.open_as(request_id, Operation::Command(command)).await?;
        work.opened(TAKEN_WITHIN).await?;
        let within = call.timeout.min(TIMEOUT_MAX) + MARGIN;
        let reply = work.stream.read_within::<Reply>(within).await.map_err(|_| CallError::OutcomeUnknown);
        let result = match &reply {
            Ok(Reply::Success { .. }) => "ok".to_owned(),
            Ok(Reply::Failure { code, .. }) => code.to_string(),
            Err(_) => Code::OUTCOME_UNKNOWN.to_string(),
        };
        let entry = self.entry(actor, "command.end", agent, &detail).result(result);
        if let Err(error) = self.store.audit(&entry).await {
            tracing::error!(error = %error, "the end of a command could not be recorded");
        }
        Ok(match reply? {
            Reply::Success { data } => Answer::Success(serde_json::from_str(&data).unwrap_or(Value::String(data))),
            Reply::Failure { code, message } => Answer::Failure { code, message },
        })
    }

    fn entry(&self, actor: &str, action: &'static str, agent: &AgentId, detail: &Value) -> AuditEntry {
        AuditEntry::new(self.fleet.now_ms(), actor, action).agent(agent).detail(detail.clone())
    }

    fn lock_guard(&self) -> std::sync::MutexGuard<'_, FreshnessGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the call's shape and gives its payload as text.
fn check(call: &Call) -> Result<String, CallError> {
    if call.id.is_empty() || call.id.len() > ID_MAX {
        return Err(CallError::BadId);
    }
    if !is_name(&call.service) || !is_name(&call.action) {
        return Err(CallError::BadName);
    }
    let payload = call.payload.as_ref().map(Value::to_string).unwrap_or_default();
    if payload.len() > COMMAND_JSON_MAX {
        return Err(CallError::PayloadTooLarge);
    }
    Ok(payload)
}

/// The same call always maps to the same request id; another caller's equal id does not.
fn request_id(actor: &str, agent: &AgentId, id: &str) -> RequestId {
    let digest = Sha256::new()
        .chain_update((actor.len() as u64).to_be_bytes())
        .chain_update(actor)
        .chain_update((agent.as_str().len() as u64).to_be_bytes())
        .chain_update(agent.as_str())
        .chain_update(id)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    RequestId(Uuid::from_bytes(bytes))
}
