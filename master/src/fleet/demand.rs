//! Who needs an agent right now. An agent without a standing line is told whether anybody does, and leaves when nobody does
//! any more. Counts, and nothing else: what the need is for is not known here.

use std::sync::Arc;

use dashmap::DashMap;
use proto::id::AgentId;
use tokio::sync::watch;

/// The needs of all agents, counted by agent.
#[derive(Debug, Default)]
pub(super) struct Demands(DashMap<AgentId, watch::Sender<usize>>);

/// One need of one agent; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Demand {
    demands: Arc<Demands>,
    agent: AgentId,
}

impl Demands {
    pub(super) fn add(self: &Arc<Self>, agent: &AgentId) -> Demand {
        self.0.entry(agent.clone()).or_default().send_modify(|count| *count += 1);
        Demand { demands: self.clone(), agent: agent.clone() }
    }

    pub(super) fn any(&self, agent: &AgentId) -> bool {
        self.0.get(agent).is_some_and(|count| *count.borrow() > 0)
    }

    pub(super) fn watch(&self, agent: &AgentId) -> watch::Receiver<usize> {
        self.0.entry(agent.clone()).or_default().subscribe()
    }

    /// Does `then` while nobody can come to need the agent; false where somebody does already.
    pub(super) fn unless_any(&self, agent: &AgentId, then: impl FnOnce() -> bool) -> bool {
        let count = self.0.entry(agent.clone()).or_default();
        let none = *count.borrow() == 0;
        none && then()
    }

    /// Forgets agents that nobody needs or watches.
    pub(super) fn forget_unused(&self) {
        self.0.retain(|_, count| *count.borrow() > 0 || count.receiver_count() > 0);
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        if let Some(count) = self.demands.0.get(&self.agent) {
            count.send_modify(|count| *count -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_leave_when_the_last_need_of_it_ended() {
        let demands: Arc<Demands> = Arc::default();
        let agent: AgentId = "a".parse().unwrap();
        assert!(demands.unless_any(&agent, || true));
        let (first, second) = (demands.add(&agent), demands.add(&agent));
        drop(first);
        demands.forget_unused();
        assert!(demands.any(&agent));
        assert!(!demands.unless_any(&agent, || unreachable!("somebody needs it")));
        drop(second);
        assert!(demands.unless_any(&agent, || true) && !demands.any(&agent));
        demands.forget_unused();
        assert!(demands.0.is_empty());
    }
}
