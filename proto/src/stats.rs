//! What an agent tells of its machine with every heartbeat.

use serde::{Deserialize, Serialize};

use crate::{
    limits::{STATS_ITEMS_MAX, TEXT_MAX},
    wire::{Invalid, at_most, ensure},
};

/// One sample. All values are gauges except the byte counters, which count since the machine started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Whole machine, 0–100.
    pub cpu_percent: f32,
    pub memory_used_bytes: u64,
    pub memory_total_bytes: u64,
    pub swap_used_bytes: u64,
    pub swap_total_bytes: u64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: [f32; 3],
    pub uptime_s: u64,
    pub processes: u32,
    /// At most [`STATS_ITEMS_MAX`], largest first.
    #[serde(deserialize_with = "at_most::<STATS_ITEMS_MAX, _, _>")]
    pub disks: Vec<Disk>,
    /// At most [`STATS_ITEMS_MAX`].
    #[serde(deserialize_with = "at_most::<STATS_ITEMS_MAX, _, _>")]
    pub networks: Vec<Network>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    pub mount: String,
    pub used_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub interface: String,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Stats {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let finite = self.load.iter().chain([&self.cpu_percent]).all(|value| value.is_finite());
        ensure(finite, "stats hold a number that is not finite")?;
        ensure(self.disks.len() <= STATS_ITEMS_MAX, "too many disks")?;
        ensure(self.networks.len() <= STATS_ITEMS_MAX, "too many networks")?;
        ensure(self.disks.iter().all(|disk| disk.mount.len() <= TEXT_MAX), "mount point too long")?;
        ensure(self.networks.iter().all(|network| network.interface.len() <= TEXT_MAX), "interface too long")
    }
}
