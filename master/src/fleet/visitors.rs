//! Agents that hold no standing line: when each was last here, how often it comes, and the visits on which nothing was to
//! be done. Such a visit is no line: it enters no registry, leaves no row and no event, and costs one count.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use proto::{
    code::Code,
    control::{FromAgent, FromMaster, Hello},
    id::AgentId,
    net::stream::{FrameStream, close},
};
use tokio::time::{Instant, timeout};

use super::{Fleet, LinkState, demand::Demand, line::Line, serve, work::OpenError};

/// Time for what an agent says on a visit without work.
const VISIT_WITHIN: Duration = Duration::from_secs(10);
/// What an agent may say on one: its policy, its history, and a goodbye.
const MESSAGES_MAX: usize = 3;
/// A request waits so long for an agent that visits.
pub const COMES_WITHIN: Duration = Duration::from_secs(30);
/// An agent that did not come for two of its intervals and this much more is away: handshakes take their time.
const LATE: Duration = Duration::from_secs(2);

/// The agents that visit. At most the fleet.
#[derive(Debug, Default)]
pub(super) struct Visitors(DashMap<AgentId, Visitor>);

#[derive(Debug)]
struct Visitor {
    every: Duration,
    heard: Instant,
    heard_ms: i64,
    /// What is on record of it, so that a visit that says nothing new writes nothing.
    known: Hello,
    flushed: bool,
}

/// How an agent without a standing line can be had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visits {
    pub every: Duration,
    /// The master's time when it was last here, Unix milliseconds.
    pub heard_ms: i64,
    /// Whether it is expected within its interval.
    pub expected: bool,
}

/// An agent's line, and what keeps its agent from leaving until this is dropped.
pub struct Reached {
    pub line: Arc<Line>,
    pub demand: Demand,
}

impl Visitors {
    /// Notes that it was here. True where its Hello says something that is not on record.
    fn seen(&self, agent: &AgentId, hello: &Hello, every: Duration, now_ms: i64) -> bool {
        let visitor =
            || Visitor { every, heard: Instant::now(), heard_ms: now_ms, known: hello.clone(), flushed: false };
        match self.0.insert(agent.clone(), visitor()) {
            Some(before) => before.known != *hello,
            None => true,
        }
    }

    pub(super) fn forget(&self, agent: &AgentId) {
        self.0.remove(agent);
    }

    fn visits(&self, agent: &AgentId) -> Option<Visits> {
        let visitor = self.0.get(agent)?;
        let expected = visitor.heard.elapsed() <= visitor.every * 2 + LATE;
        Some(Visits { every: visitor.every, heard_ms: visitor.heard_ms, expected })
    }

    /// Those who were here since the last call.
    pub(super) fn newly_seen(&self) -> Vec<(AgentId, i64)> {
        let mut seen = Vec::new();
        for mut visitor in self.0.iter_mut() {
            if !std::mem::replace(&mut visitor.flushed, true) {
                seen.push((visitor.key().clone(), visitor.heard_ms));
            }
        }
        seen
    }
}

impl Fleet {
    /// Needs the agent until the guard is dropped: one that visits comes and stays.
    pub fn demand(&self, agent: &AgentId) -> Demand {
        self.demands.add(agent)
    }

    /// Whether somebody needs the agent.
    pub fn is_needed(&self, agent: &AgentId) -> bool {
        self.demands.any(agent)
    }

    /// `None` for an agent that holds a standing line, or was not seen since the master started.
    pub fn visits(&self, agent: &AgentId) -> Option<Visits> {
        self.visitors.visits(agent)
    }

    /// Whether a request of now can be carried out: the agent has a line, or its next visit is awaited.
    pub fn is_reachable(&self, agent: &AgentId) -> bool {
        self.line(agent).is_some() || self.visits(agent).is_some_and(|visits| visits.expected)
    }

    /// The agent's line. Where it visits, waits for its next visit, [`COMES_WITHIN`] at most.
    pub async fn reach(&self, agent: &AgentId) -> Result<Reached, OpenError> {
        let demand = self.demand(agent);
        if let Some(line) = self.line(agent) {
            return Ok(Reached { line, demand });
        }
        if !self.is_reachable(agent) {
            return Err(OpenError::Offline);
        }
        match timeout(COMES_WITHIN, self.visit_of(agent)).await {
            Ok(Some(line)) => Ok(Reached { line, demand }),
            Ok(None) => Err(OpenError::Offline),
            Err(_) => Err(OpenError::NoVisit(COMES_WITHIN)),
        }
    }

    /// The line of the next visit; `None` when there will be none.
    async fn visit_of(&self, agent: &AgentId) -> Option<Arc<Line>> {
        let mut link = self.watch(agent);
        loop {
            let gone = [Code::SUSPENDED, Code::REMOVED, Code::OWNER_LOCKDOWN];
            if let Some(line) = self.line(agent) {
                return Some(line);
            }
            // A master that drains lets nobody in any more.
            self.stopping.run_until_cancelled(link.changed()).await?.ok()?;
            if matches!(&*link.borrow(), LinkState::Down { code, .. } if gone.contains(code)) {
                return None;
            }
        }
    }

    /// Whether an admitted connection is a visit with nothing to do. Somebody who needs the agent a moment later waits for
    /// the next one.
    pub(super) fn is_idle_visit(&self, agent: &AgentId, hello: &Hello) -> bool {
        hello.visits().is_some()
            && self.line(agent).is_none()
            && !self.demands.any(agent)
            && !self.rotations.is_wanted(agent)
    }

    /// Remembers how the agent connects, and records what is new about it.
    pub(super) async fn note_visit(&self, agent: &AgentId, hello: &Hello) -> Result<(), Code> {
        let Some(every) = hello.visits() else {
            self.visitors.forget(agent);
            return Ok(());
        };
        if self.visitors.seen(agent, hello, every, self.clock.now_ms()) {
            self.record_connected(agent, hello).await.inspect_err(|_| self.visitors.forget(agent))?;
        }
        Ok(())
    }

    /// A visit with nothing to do, from Welcome to its end.
    pub(super) async fn receive(&self, line: &Line, connection: &quinn::Connection, control: &mut FrameStream) {
        self.metrics.visit(line.carrier());
        if control.send.write_frame(&FromMaster::Work { pending: false }).await.is_ok() {
            let _ = timeout(VISIT_WITHIN, listen(self, line, control)).await;
        }
        close(connection, Code::VISIT_OVER);
    }

    /// Lets a line go whose agent wants to leave: from here on whoever needs the agent waits for its next visit. False where
    /// somebody needs it now.
    pub(super) fn release(&self, line: &Line) -> bool {
        self.demands.unless_any(&line.agent, || {
            if line.busy() {
                return false;
            }
            if self.registry.remove(&line.agent, line.epoch, Code::VISIT_OVER) {
                line.release();
            }
            true
        })
    }
}

async fn listen(fleet: &Fleet, line: &Line, control: &mut FrameStream) {
    for _ in 0..MESSAGES_MAX {
        match control.recv.next::<FromAgent>().await {
            Ok(FromAgent::Policy { text }) => serve::keep_policy(fleet, line, &text).await,
            Ok(FromAgent::History(attempts)) => serve::record_history(fleet, line, &attempts),
            Ok(FromAgent::Heartbeat(_) | FromAgent::Goodbye { .. }) | Err(_) => return,
        }
    }
}
