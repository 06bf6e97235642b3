//! New keys for agents: an operator asks for one, the agent offers it, and with its first use the old one is over. Owns who
//! was asked lately; keys on record are the store's.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use proto::{control::FromMaster, id::AgentId};
use tokio_util::sync::CancellationToken;

use super::Fleet;
use crate::events::Draft;

/// Time for an agent to offer its new key after it was asked.
const OFFERED_WITHIN: Duration = Duration::from_secs(120);

/// The agents that were asked for a new key and have not used one yet. At most the fleet.
#[derive(Debug, Default)]
pub(super) struct Rotations(DashMap<AgentId, Asked>);

#[derive(Debug)]
struct Asked {
    at: Instant,
    done: CancellationToken,
}

impl Rotations {
    pub(super) fn is_wanted(&self, agent: &AgentId) -> bool {
        self.0.get(agent).is_some_and(|asked| asked.at.elapsed() < OFFERED_WITHIN)
    }

    fn ask(&self, agent: &AgentId) -> CancellationToken {
        let new = || Asked { at: Instant::now(), done: CancellationToken::new() };
        let mut asked = self.0.entry(agent.clone()).or_insert_with(new);
        asked.at = Instant::now();
        asked.done.clone()
    }
}

impl Fleet {
    /// Asks the agent for a new key. What it returns is cancelled when the new key is the only one; `None` where the agent
    /// has no line. Who stops waiting changes nothing.
    pub fn rotate_key(&self, agent: &AgentId) -> Option<CancellationToken> {
        let line = self.line(agent)?;
        let done = self.rotations.ask(agent);
        line.tell(FromMaster::RotateKey);
        Some(done)
    }

    pub(super) fn rotated(&self, agent: &AgentId) {
        if let Some((_, asked)) = self.rotations.0.remove(agent) {
            asked.done.cancel();
        }
        tracing::info!(%agent, "the agent uses a new key; its old one is worth nothing");
        self.events.publish(Draft::new("agent.key_rotated").agent(agent));
    }
}
