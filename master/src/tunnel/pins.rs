//! Which certificate a target showed when it was first spoken to, and what to do when it shows another one (SECURITY
//! R45). The store remembers; what was confirmed once is believed from memory. Speaks no TLS itself.

use std::sync::Arc;

use dashmap::DashMap;
use proto::id::AgentId;

use crate::{
    clock::unix_ms,
    store::{Sha256, Store, StoreError, audit::AuditEntry, pins::Pin},
};

/// Targets remembered in memory at most; beyond that the store is asked again.
const KEPT: usize = 10_000;

/// Why a certificate is not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PinError {
    #[error("the target shows another certificate than before")]
    Changed { pinned: Sha256, found: Sha256 },
    #[error("the pinned certificate cannot be read")]
    Store(#[source] Arc<StoreError>),
}

/// A target as pins know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pinned {
    pub agent: AgentId,
    pub host: String,
    pub port: u16,
}

/// What is known of a target's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    pub pinned: Option<Sha256>,
    pub pinned_at_ms: Option<i64>,
    /// Another one that it showed since, and that nobody has trusted yet.
    pub offered: Option<Sha256>,
}

/// The pins of all targets.
pub struct Pins {
    store: Store,
    good: DashMap<Pinned, Sha256>,
    offered: DashMap<Pinned, Sha256>,
}

impl Pins {
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store, good: DashMap::new(), offered: DashMap::new() })
    }

    /// Whether the target may be spoken to under this certificate. The first one is pinned.
    pub async fn check(&self, target: &Pinned, found: Sha256) -> Result<(), PinError> {
        let remembered = self.good.get(target).map(|good| *good);
        let pinned = match remembered {
            Some(pinned) => pinned,
            None => self.pinned_or(target, found).await.map_err(|error| PinError::Store(Arc::new(error)))?,
        };
        if pinned == found {
            return Ok(());
        }
        remember(&self.offered, target, found);
        Err(PinError::Changed { pinned, found })
    }

    async fn pinned_or(&self, target: &Pinned, found: Sha256) -> Result<Sha256, StoreError> {
        let pins = self.store.pins();
        let pinned = match pins.find(&target.agent, &target.host, target.port).await? {
            Some(pin) => pin.sha256,
            None => {
                let pin = Pin { sha256: found, pinned_at_ms: unix_ms() };
                if pins.first(&target.agent, &target.host, target.port, &pin).await? {
                    tracing::info!(agent = %target.agent, host = target.host, port = target.port,
                        sha256 = hex::encode(found), "a target's certificate is pinned");
                    found
                } else {
                    let other = pins.find(&target.agent, &target.host, target.port).await?;
                    other.map_or(found, |pin| pin.sha256)
                }
            }
        };
        remember(&self.good, target, pinned);
        Ok(pinned)
    }

    pub async fn known(&self, target: &Pinned) -> Result<Known, StoreError> {
        let pin = self.store.pins().find(&target.agent, &target.host, target.port).await?;
        Ok(Known {
            pinned: pin.as_ref().map(|pin| pin.sha256),
            pinned_at_ms: pin.map(|pin| pin.pinned_at_ms),
            offered: self.offered.get(target).map(|offered| *offered),
        })
    }

    /// The agent was removed: another machine may come under its name.
    pub fn forget(&self, agent: &AgentId) {
        self.good.retain(|target, _| target.agent != *agent);
        self.offered.retain(|target, _| target.agent != *agent);
    }

    /// From now on this certificate is the target's.
    pub async fn trust(&self, target: &Pinned, sha256: Sha256, audit: &AuditEntry) -> Result<(), StoreError> {
        let pin = Pin { sha256, pinned_at_ms: unix_ms() };
        self.store.pins().trust(&target.agent, &target.host, target.port, &pin, audit).await?;
        remember(&self.good, target, sha256);
        self.offered.remove_if(target, |_, offered| *offered == sha256);
        Ok(())
    }
}

fn remember(map: &DashMap<Pinned, Sha256>, target: &Pinned, sha256: Sha256) {
    if map.len() >= KEPT && !map.contains_key(target) {
        map.clear();
    }
    map.insert(target.clone(), sha256);
}
