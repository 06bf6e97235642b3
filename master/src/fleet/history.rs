//! The latest samples of each machine, in memory, for charts that are not empty when they open. Owns their bound; the
//! database knows nothing of them.

use std::collections::VecDeque;

use dashmap::DashMap;
use proto::{id::AgentId, stats::Stats};

/// Samples kept of each agent: half an hour of heartbeats. 5 KiB an agent.
pub const SAMPLES: usize = 120;

/// What a chart needs of one heartbeat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The master's time, Unix milliseconds.
    pub at_ms: i64,
    pub cpu_percent: f32,
    pub memory_used_bytes: u64,
    pub load1: f32,
    /// Of all interfaces but loopback, since the machine started.
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct History {
    agents: DashMap<AgentId, VecDeque<Sample>>,
}

impl History {
    pub(super) fn push(&self, agent: &AgentId, at_ms: i64, stats: &Stats) {
        let mut samples = self.agents.entry(agent.clone()).or_default();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample(at_ms, stats));
    }

    /// Oldest first.
    pub(super) fn samples(&self, agent: &AgentId) -> Vec<Sample> {
        self.agents.get(agent).map(|samples| samples.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets agents whose newest sample is older.
    pub(super) fn forget_before(&self, at_ms: i64) {
        self.agents.retain(|_, samples| samples.back().is_some_and(|sample| sample.at_ms >= at_ms));
    }
}

fn sample(at_ms: i64, stats: &Stats) -> Sample {
    let networks = || stats.networks.iter().filter(|network| network.interface != "lo" && network.interface != "lo0");
    Sample {
        at_ms,
        cpu_percent: stats.cpu_percent,
        memory_used_bytes: stats.memory_used_bytes,
        load1: stats.load[0],
        received_bytes: networks().fold(0, |sum, network| sum.saturating_add(network.received_bytes)),
        sent_bytes: networks().fold(0, |sum, network| sum.saturating_add(network.sent_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use proto::stats::Network;

    use super::*;

    #[test]
    fn the_oldest_samples_make_room_and_silent_agents_are_forgotten() {
        let history = History::default();
        let agent: AgentId = "a".parse().unwrap();
        let network =
            |interface: &str| Network { interface: interface.into(), received_bytes: 5, sent_bytes: u64::MAX };
        let stats = Stats { networks: vec![network("lo"), network("eth0"), network("eth1")], ..Stats::default() };
        for at_ms in 0..i64::try_from(SAMPLES).unwrap() + 3 {
            history.push(&agent, at_ms, &stats);
        }
        let samples = history.samples(&agent);
        assert_eq!((samples.len(), samples[0].at_ms), (SAMPLES, 3));
        assert_eq!((samples[0].received_bytes, samples[0].sent_bytes), (10, u64::MAX));
        history.forget_before(1_000);
        assert!(history.samples(&agent).is_empty());
    }
}
