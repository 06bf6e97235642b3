//! What handlers stand on, and the questions all of them ask: who calls, and may they touch this agent.

use std::{ops::Deref, sync::Arc, time::Duration};

use certs::join::Pin;
use moka::sync::Cache;
use proto::id::AgentId;
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    extract::not_found,
    gate::Caller,
    install,
    once::Remembered,
    problem::{Kind, Problem},
};
use crate::{
    access::{Access, Action, AuthError, Labels, Limiter, Object, People, authorise},
    command::Commands,
    events::Events,
    fleet::Fleet,
    metrics::Metrics,
    session::{exec::Execs, shell::Shells},
    store::{Store, agents::Agent},
    transfer::Transfers,
    tunnel::{Tunnels, direct::Direct, origin::Origin, pins::Pins, presence::Presence, visits::Visits},
};

/// What the API stands on.
pub struct ApiParts {
    pub store: Store,
    pub access: Access,
    pub people: Arc<People>,
    pub limiter: Arc<Limiter>,
    pub fleet: Arc<Fleet>,
    pub tunnels: Arc<Tunnels>,
    pub commands: Arc<Commands>,
    pub execs: Arc<Execs>,
    pub direct: Arc<Direct>,
    pub visits: Arc<Visits>,
    pub pins: Arc<Pins>,
    pub presence: Arc<Presence>,
    pub shells: Arc<Shells>,
    pub transfers: Arc<Transfers>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub settings: ApiSettings,
    /// Cancelled when the master stops: long streams end, readiness fails.
    pub stop: CancellationToken,
}

/// What the API must be told.
#[derive(Clone)]
pub struct ApiSettings {
    /// Host names served beside loopback's.
    pub hosts: Vec<String>,
    /// `host:port` as agents reach the master.
    pub master_address: String,
    pub pin: Pin,
    pub secret_ttl: Duration,
    /// What the public port is and has, for the commands that are pasted into new machines.
    pub install: install::Ask,
    /// Where browsers see tunnels' pages.
    pub gateway: Origin,
}

/// The state of all handlers. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

pub struct Inner {
    parts: ApiParts,
    /// Work under an idempotency key goes on when its caller leaves.
    pub(super) tasks: TaskTracker,
    /// Answers with secrets in them, which must not reach the disk.
    /// Places for WebSockets: they leave the listener's own bound with their upgrade.
    pub(super) websockets: Arc<Semaphore>,
    /// One at a time: it reads every row.
    pub(super) verifying: Semaphore,
    pub(super) remembered: Cache<(String, String), Arc<Remembered>>,
}

/// How often long answers ask whether their caller may still have them (SECURITY R15 allows 5 s).
pub(super) const RECHECK: Duration = Duration::from_secs(2);
/// Answers with secrets are remembered this long and this many.
const REMEMBER_FOR: Duration = Duration::from_secs(600);
/// WebSockets at once.
pub(super) const WEBSOCKETS_MAX: usize = 1024;
const REMEMBER_MOST: u64 = 1_000;

impl Api {
    pub fn new(parts: ApiParts) -> Self {
        let remembered = Cache::builder().max_capacity(REMEMBER_MOST).time_to_live(REMEMBER_FOR).build();
        let websockets = Arc::new(Semaphore::new(WEBSOCKETS_MAX));
        let (tasks, verifying) = (TaskTracker::new(), Semaphore::new(1));
        Self(Arc::new(Inner { parts, tasks, websockets, verifying, remembered }))
    }

    /// The agent, if it exists and the caller may do this to it; one answer for both refusals (SECURITY R14).
    pub(super) async fn agent(&self, caller: &Caller, action: Action, id: &AgentId) -> Result<Agent, Problem> {
        let agent = self.store.agents().find(id).await?.ok_or_else(not_found)?;
        authorise(caller, action, Object::Agent(&agent.labels))?;
        Ok(agent)
    }

    /// Whether the caller may do this to something of the agent's, which itself may be gone by now.
    pub(super) async fn allow(&self, caller: &Caller, action: Action, id: &AgentId) -> Result<(), Problem> {
        if caller.selector.is_everything() {
            return Ok(authorise(caller, action, Object::Everything)?);
        }
        let labels = self.store.agents().labels(id).await?.unwrap_or_default();
        Ok(authorise(caller, action, Object::Agent(&labels))?)
    }

    /// Whether the caller may see things of an agent with these labels.
    pub(super) fn sees(caller: &Caller, action: Action, labels: &Labels) -> bool {
        authorise(caller, action, Object::Agent(labels)).is_ok()
    }

    /// Whether a long answer may go on.
    pub(super) async fn still(&self, caller: &Caller, action: Action) -> Result<(), Problem> {
        match self.access.still(caller, self.now_ms()).await {
            Ok(now) => Ok(authorise(&now, action, Object::Everything)?),
            Err(AuthError::Invalid) => Err(Kind::Unauthorized.problem("the token was revoked or ran out")),
            // A database that is away for a moment ends no running session; new ones are refused at the gate.
            Err(AuthError::Store(error)) if error.is_temporary() => Ok(()),
            Err(AuthError::Store(error)) => Err(error.into()),
        }
    }

    /// Resolves when a long answer may not go on any more (SECURITY R15).
    pub(super) async fn not_any_more(&self, caller: &Caller, action: Action) -> Problem {
        let mut again = interval_at(Instant::now() + RECHECK, RECHECK);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            if let Err(problem) = self.still(caller, action).await {
                return problem;
            }
        }
    }

    /// Steady: a step of the wall clock ends no session and no token, and gives none a longer life.
    pub(super) fn now_ms(&self) -> i64 {
        self.fleet.now_ms()
    }
}

impl Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.parts
    }
}
