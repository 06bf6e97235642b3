//! Which agents are connected right now. Presence comes from here and from nowhere else.

use std::sync::Arc;

use dashmap::DashMap;
use proto::{
    code::Code,
    id::{AgentId, LineEpoch},
};
use tokio::{sync::watch, time::Instant};

use super::line::Line;

/// The state of an agent's link. Kept for every agent that connected or is being watched.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkState {
    Up {
        epoch: LineEpoch,
    },
    /// Nothing heard for a while; the line may still come back by itself.
    Suspect {
        epoch: LineEpoch,
        since: Instant,
    },
    Down {
        since: Instant,
        code: Code,
    },
}

impl LinkState {
    /// A line ended. Why it was taken down before that (suspended, removed) stays: sessions and tunnels end by it.
    fn went_down(&mut self, code: Code) -> bool {
        if matches!(self, Self::Down { .. }) {
            return false;
        }
        *self = Self::Down { since: Instant::now(), code };
        true
    }
}

struct Slot {
    line: Option<Arc<Line>>,
    /// The one before it, as long as its streams end there.
    leaving: Option<Arc<Line>>,
    state: watch::Sender<LinkState>,
}

/// The live lines by agent.
#[derive(Default)]
pub(super) struct Registry {
    slots: DashMap<AgentId, Slot>,
}

impl Slot {
    fn empty() -> Self {
        let (state, _) = watch::channel(LinkState::Down { since: Instant::now(), code: Code::LINE_LOST });
        Self { line: None, leaving: None, state }
    }
}

impl Registry {
    pub(super) fn line(&self, agent: &AgentId) -> Option<Arc<Line>> {
        self.slots.get(agent)?.line.clone()
    }

    /// The agent's line, and the one it left behind.
    pub(super) fn all_of(&self, agent: &AgentId) -> Vec<Arc<Line>> {
        let Some(slot) = self.slots.get(agent) else { return Vec::new() };
        slot.line.iter().chain(&slot.leaving).cloned().collect()
    }

    /// Every line, and every one that was left behind.
    pub(super) fn all(&self) -> Vec<Arc<Line>> {
        let both = |slot: &Slot| -> Vec<_> { slot.line.iter().chain(&slot.leaving).cloned().collect() };
        self.slots.iter().flat_map(|slot| both(&slot)).collect()
    }

    /// Every live line, in no particular order.
    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        self.slots.iter().filter_map(|slot| slot.line.clone()).collect()
    }

    pub(super) fn state(&self, agent: &AgentId) -> Option<LinkState> {
        Some(self.slots.get(agent)?.state.borrow().clone())
    }

    pub(super) fn watch(&self, agent: &AgentId) -> watch::Receiver<LinkState> {
        self.slots.entry(agent.clone()).or_insert_with(Slot::empty).state.subscribe()
    }

    /// Puts a line in place and hands back the one it replaces.
    pub(super) fn insert(&self, line: Arc<Line>) -> Option<Arc<Line>> {
        let mut slot = self.slots.entry(line.agent.clone()).or_insert_with(Slot::empty);
        slot.state.send_replace(LinkState::Up { epoch: line.epoch });
        slot.line.replace(line)
    }

    /// Keeps a line that was replaced for as long as it lasts, and hands back one that was kept before.
    pub(super) fn keep(&self, line: Arc<Line>) -> Option<Arc<Line>> {
        self.slots.get_mut(&line.agent)?.leaving.replace(line)
    }

    /// Takes a line off, unless a newer one stands in its place: a late end of an old line changes nothing.
    pub(super) fn remove(&self, agent: &AgentId, epoch: LineEpoch, code: Code) -> bool {
        let Some(mut slot) = self.slots.get_mut(agent) else { return false };
        if slot.leaving.as_ref().is_some_and(|line| line.epoch == epoch) {
            slot.leaving = None;
        }
        if slot.line.as_ref().is_none_or(|line| line.epoch != epoch) {
            return false;
        }
        slot.line = None;
        slot.state.send_if_modified(|state| state.went_down(code));
        true
    }

    /// Marks a line suspect since `since`, or heard again. True if that changed anything.
    pub(super) fn set_suspect(&self, agent: &AgentId, epoch: LineEpoch, suspect: Option<Instant>) -> bool {
        let Some(slot) = self.slots.get(agent) else { return false };
        slot.state.send_if_modified(|state| match (&*state, suspect) {
            (LinkState::Up { epoch: current }, Some(since)) if *current == epoch => {
                *state = LinkState::Suspect { epoch, since };
                true
            }
            (LinkState::Suspect { epoch: current, .. }, None) if *current == epoch => {
                *state = LinkState::Up { epoch };
                true
            }
            (LinkState::Up { .. } | LinkState::Suspect { .. } | LinkState::Down { .. }, _) => false,
        })
    }

    /// Tells watchers that an agent is gone for good (suspended, removed), also when it was not connected. A line that
    /// stands stays until its task takes it off.
    pub(super) fn set_down(&self, agent: &AgentId, code: Code) {
        if let Some(slot) = self.slots.get(agent) {
            slot.state.send_replace(LinkState::Down { since: Instant::now(), code });
        }
    }

    /// Forgets agents that are neither connected nor watched.
    pub(super) fn forget_unused(&self) {
        self.slots.retain(|_, slot| slot.line.is_some() || slot.leaving.is_some() || slot.state.receiver_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_its_line_does_not_hide_that_an_agent_was_suspended() {
        let mut state = LinkState::Up { epoch: LineEpoch(1) };
        assert!(state.went_down(Code::SUSPENDED));
        assert!(!state.went_down(Code::LINE_LOST));
        assert!(matches!(state, LinkState::Down { code: Code::SUSPENDED, .. }), "{state:?}");
    }
}
