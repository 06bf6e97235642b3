//! The store's behaviour, each test on both engines.

mod agents;
mod audit;
mod engines;
mod enrolments;
mod keys;
mod operators;
mod outage;
mod rows;
mod tunnels;

use proto::id::AgentId;

use super::{
    Store,
    agents::{NewAgent, NewSecret},
    audit::{AuditEntry, AuditFilter},
    labels::Labels,
    sql::Sql,
};

const NOW: i64 = 1_800_000_000_000;

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn entry(action: &str) -> AuditEntry {
    AuditEntry::new(NOW, "local", action)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let map: std::collections::BTreeMap<_, _> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Labels::try_from(map).unwrap()
}

/// A new agent with the secret hash `[1; 32]`, good for an hour.
fn new_agent(name: &str, pairs: &[(&str, &str)]) -> NewAgent {
    let secret = NewSecret { sha256: [1; 32], expires_at_ms: NOW + 3_600_000 };
    NewAgent { id: id(name), external_id: None, labels: labels(pairs), secret, now_ms: NOW }
}

async fn add(store: &Store, name: &str, pairs: &[(&str, &str)]) {
    store.agents().add(new_agent(name, pairs), &entry("agent.add")).await.unwrap();
}
