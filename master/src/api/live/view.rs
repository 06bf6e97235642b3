//! What one page of the fleet knows already, and so what it must be told next. Owns the comparison; sends nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use proto::id::AgentId;

use crate::{
    access::{Action, Object, authorise},
    api::{
        agents::shown,
        dto::{
            Time,
            event::Event,
            live::{FleetRow, Pulse, percent},
        },
        events::event,
        gate::Caller,
        problem::Problem,
        state::Api,
    },
    events,
    fleet::LinkState,
    store::{Page, agents::AgentFilter},
};

/// Agents read from the database at once while everything is told.
const PAGE: u32 = 1000;
/// Agents read again in one round; the others follow in the next.
const CHANGED_MAX: usize = 200;

pub(super) struct View {
    api: Api,
    caller: Caller,
    /// The agents told of, with the last heartbeat told.
    known: HashMap<AgentId, Option<i64>>,
    /// To be read again.
    dirty: BTreeSet<AgentId>,
}

impl View {
    pub(super) fn new(api: Api, caller: Caller) -> Self {
        Self { api, caller, known: HashMap::new(), dirty: BTreeSet::new() }
    }

    /// A page of all agents, and where the next one begins.
    pub(super) async fn page(&mut self, cursor: Option<String>) -> Result<(Vec<FleetRow>, Option<String>), Problem> {
        let filter = AgentFilter { selector: self.caller.selector.clone(), ..AgentFilter::default() };
        let paged = self.api.store.agents().list(&filter, &Page { cursor, limit: PAGE }).await?;
        let rows = paged.items.into_iter().map(|agent| self.row(agent)).collect();
        Ok((rows, paged.next_cursor))
    }

    /// Notes what the events changed, and gives those that the caller may read.
    pub(super) fn take(&mut self, batch: &[Arc<events::Event>]) -> Vec<Event> {
        for agent in
            batch.iter().filter(|event| event.kind.starts_with("agent.")).filter_map(|event| event.agent_id.as_ref())
        {
            self.dirty.insert(agent.clone());
        }
        if authorise(&self.caller, Action::EventsRead, Object::Everything).is_err() {
            return Vec::new();
        }
        let everything = self.caller.selector.is_everything();
        let mut seen = Vec::new();
        for stored in batch {
            let known = stored.agent_id.as_ref().is_some_and(|agent| self.known.contains_key(agent));
            if everything || known {
                seen.push(event(stored));
            }
        }
        seen
    }

    /// The changed agents as they are now, and those that are gone.
    pub(super) async fn changed(&mut self) -> Result<(Vec<FleetRow>, Vec<String>), Problem> {
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for _ in 0..CHANGED_MAX {
            let Some(id) = self.dirty.pop_first() else { break };
            let agent = self.api.store.agents().find(&id).await?;
            match agent.filter(|agent| Api::sees(&self.caller, Action::AgentsList, &agent.labels)) {
                Some(agent) => rows.push(self.row(agent)),
                None if self.known.remove(&id).is_some() => gone.push(id.to_string()),
                None => {}
            }
        }
        Ok((rows, gone))
    }

    /// What heartbeats said since the last time.
    pub(super) fn pulses(&mut self) -> Vec<Pulse> {
        let mut pulses = Vec::new();
        for line in self.api.fleet.lines() {
            let (Some(told), Some(beat)) = (self.known.get_mut(&line.agent), line.heartbeat_ms()) else { continue };
            if told.replace(beat) == Some(beat) {
                continue;
            }
            let stats = line.stats();
            pulses.push(Pulse {
                id: line.agent.to_string(),
                last_seen: Time::from_ms(beat),
                rtt_ms: line.rtt().as_secs_f64() * 1000.0,
                cpu_percent: stats.as_ref().map(|stats| stats.cpu_percent),
                memory_percent: stats.as_ref().map(|stats| percent(stats.memory_used_bytes, stats.memory_total_bytes)),
                load1: stats.as_ref().map(|stats| stats.load[0]),
            });
        }
        pulses
    }

    fn row(&mut self, agent: crate::store::agents::Agent) -> FleetRow {
        let beat = self.api.fleet.line(&agent.id).and_then(|line| line.heartbeat_ms());
        self.known.insert(agent.id.clone(), beat);
        let suspect = matches!(self.api.fleet.link(&agent.id), Some(LinkState::Suspect { .. }));
        FleetRow::new(shown(&self.api, agent), suspect)
    }
}
