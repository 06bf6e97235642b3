//! The line to the master: gets it, keeps it, gets it back, for ever. One attempt at a time, each in a task of its own
//! under a watchdog; between attempts the wait that [`backoff`] names.

pub mod backoff;
mod behind;
pub mod carriers;
pub mod connect;
mod control;
pub mod enrol;
mod greet;
mod history;
mod line;
pub mod member;
mod mover;
mod renewal;
mod renewing;
pub mod status;
pub mod surroundings;
pub mod visit;
pub mod websocket;

#[cfg(test)]
mod tests;

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use proto::{code::Code, id::InstanceId};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    backoff::{Backoff, Failure, STABLE_AFTER},
    behind::Behind,
    connect::Roads,
    history::History,
    line::Ended,
    member::Member,
    status::{LineStatus, StatusSender},
    surroundings::Announcer,
    visit::Visits,
};
use crate::{
    config::mode::OnDemand,
    dispatch::Dispatch,
    lockdown::{Imposed, Switch},
    service::stats::Sampler,
};

/// An attempt that neither connected nor failed by then hangs, and is replaced. Longer than all its own deadlines.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Attempts in a row that may follow at once because something was put right; more means that it was not.
const AT_ONCE_MAX: u32 = 2;

/// What the master is told. Why is the owner's business.
const LOCKED_DOWN: &str = "the owner locked this machine down";

/// What the parts of a line share. One per process.
#[derive(Debug)]
pub struct Context {
    pub member: Arc<Member>,
    pub roads: Arc<Roads>,
    pub dispatch: Arc<Dispatch>,
    pub sampler: Sampler,
    pub status: StatusSender,
    pub lockdown: Switch,
    /// `None` where a line is held all the time.
    pub visits: Option<Visits>,
    instance_id: InstanceId,
    history: Mutex<History>,
    behind: Behind,
    surroundings: Announcer,
}

impl Context {
    pub fn new(
        member: Arc<Member>,
        roads: Arc<Roads>,
        dispatch: Arc<Dispatch>,
        sampler: Sampler,
        status: StatusSender,
        lockdown: Switch,
        on_demand: Option<OnDemand>,
    ) -> Self {
        let visits = on_demand.map(Visits::new);
        let (instance_id, history, behind) = (InstanceId::random(), Mutex::default(), Behind::default());
        let surroundings = Announcer::default();
        Self { member, roads, dispatch, sampler, status, lockdown, visits, instance_id, history, behind, surroundings }
    }

    /// Shows the owner that the machine is locked down, and keeps it for the master's next line to tell.
    pub fn locked_down(&self, imposed: &Imposed) {
        self.history().add(Code::OWNER_LOCKDOWN, LOCKED_DOWN);
        self.tell(LineStatus::Locked { since: imposed.since.to_string(), reason: imposed.reason.clone() });
    }

    /// What a line says that ends because this agent wants it to.
    fn leaving(&self) -> Ended {
        match self.lockdown.now() {
            Some(_) => Ended::network(Code::OWNER_LOCKDOWN, LOCKED_DOWN),
            None => Ended::network(Code::SHUTDOWN, "the agent is shutting down"),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, line: LineStatus) {
        self.status.send_modify(|status| status.line = line);
    }
}

/// Keeps a line until `shutdown`; then says goodbye and returns.
pub async fn keep(context: Arc<Context>, shutdown: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut at_once = 0;
    let mut surroundings = context.surroundings.subscribe();
    while !shutdown.is_cancelled() {
        context.tell(LineStatus::Connecting);
        let (ended, up_for) = attempt(&context, &shutdown, CONNECT_WITHIN).await;
        if shutdown.is_cancelled() {
            break;
        }
        if let Some(visits) = context.visits.as_ref().filter(|_| ended.code == Code::VISIT_OVER) {
            backoff.succeeded();
            at_once = 0;
            rest(&context, visits, &shutdown).await;
            continue;
        }
        line::sent_away(&context, &ended);
        context.history().add(ended.code, &ended.message);
        if up_for.is_some_and(|time| time >= STABLE_AFTER) {
            backoff.succeeded();
        }
        at_once = if ended.at_once { at_once + 1 } else { 0 };
        let wait = if ended.at_once && at_once <= AT_ONCE_MAX {
            Duration::ZERO
        } else {
            backoff.after(failure_of(&ended), rand::random())
        };
        tell_wait(&context, &ended, up_for, wait);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
            // What failed in the network that was need not fail in this one; what was refused is refused in any.
            Ok(()) = surroundings.changed(), if ended.failure == Failure::Network => {
                context.roads.forget_network();
                backoff.succeeded();
            }
        }
    }
    context.behind.end(context.leaving().code).await;
    context.tell(LineStatus::Stopped);
}

/// Until the next visit.
async fn rest(context: &Context, visits: &Visits, shutdown: &CancellationToken) {
    let (now, wait) = (Timestamp::now(), visits.next(rand::random()));
    let next_visit = now.checked_add(wait).unwrap_or(Timestamp::MAX).to_string();
    tracing::debug!(?wait, "nothing needs this agent; looking in again");
    context.tell(LineStatus::Away { last_visit: now.to_string(), next_visit });
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// What was put right too often was not put right.
fn failure_of(ended: &Ended) -> Failure {
    if ended.at_once { Failure::Refused { code: ended.code, retry_after: Duration::ZERO } } else { ended.failure }
}

/// One attempt under the watchdog, and how long its line was up if it ever was.
async fn attempt(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
    connect_within: Duration,
) -> (Ended, Option<Duration>) {
    let connected = CancellationToken::new();
    let run = line::run(context.clone(), connected.clone(), shutdown.clone());
    supervised(run, &connected, shutdown, connect_within).await
}

/// A task that hangs before it connected is dropped; one that panicked counts as a failure like any other.
async fn supervised(
    run: impl Future<Output = Ended> + Send + 'static,
    connected: &CancellationToken,
    shutdown: &CancellationToken,
    connect_within: Duration,
) -> (Ended, Option<Duration>) {
    let mut task = AbortOnDropHandle::new(tokio::spawn(run));
    let mut up_since = None;
    loop {
        let ended = tokio::select! {
            biased;
            ended = &mut task => ended,
            () = connected.cancelled(), if up_since.is_none() => {
                up_since = Some(Instant::now());
                continue;
            }
            // Before the line is up it only has to close its connection.
            () = shutdown.cancelled(), if up_since.is_none() => {
                let _ = tokio::time::timeout(line::CLOSE_WITHIN * 2, &mut task).await;
                return (Ended::network(Code::SHUTDOWN, "the agent is shutting down"), None);
            }
            () = tokio::time::sleep(connect_within), if up_since.is_none() => {
                let message = "the attempt neither connected nor failed in time and was given up";
                return (Ended::network(Code::TOO_SLOW, message), None);
            }
        };
        let panicked = |_| Ended::network(Code::INTERNAL, "the connect task failed; the agent's log says why");
        return (ended.unwrap_or_else(panicked), up_since.map(|since| since.elapsed()));
    }
}

fn tell_wait(context: &Context, ended: &Ended, up_for: Option<Duration>, wait: Duration) {
    let (code, reason) = (ended.code.to_string(), ended.message.as_str());
    match up_for {
        Some(up_for) => tracing::warn!(code, ?reason, ?up_for, ?wait, "the line ended; connecting again"),
        None => tracing::warn!(code, ?reason, ?wait, "no line; trying again"),
    }
    let next = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
    let next_attempt = next.to_string();
    context.tell(LineStatus::Waiting { code, reason: reason.to_owned(), next_attempt });
}

/// An error with its causes, on one line.
pub fn chain(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
