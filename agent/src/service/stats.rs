//! What the machine is doing: one cheap sample per heartbeat, from the kernel's own counters. Never a subprocess, never a
//! table of processes.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{
    limits::STATS_ITEMS_MAX,
    stats::{Disk, Network, Stats},
};
use sysinfo::{DiskRefreshKind, Disks, Networks, System};

use crate::platform;

/// A sample that takes longer is left to finish on its own (a hung network file system): the last one is told again.
const SAMPLE_WITHIN: Duration = Duration::from_secs(2);

/// Takes samples. One per process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Held while a sample is taken; the rate of the processor is counted from the one before.
    system: Mutex<Option<System>>,
    last: Mutex<Stats>,
}

impl Sampler {
    /// A fresh sample, or the last one if the machine does not answer in time.
    pub async fn sample(&self) -> Stats {
        let shared = self.shared.clone();
        let taking = tokio::task::spawn_blocking(move || shared.take());
        // Whether it was too slow or failed, what is known stands in `last`.
        let _ = tokio::time::timeout(SAMPLE_WITHIN, taking).await;
        self.shared.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn take(&self) {
        // A sample still under way means that this one would only wait behind it.
        let Ok(mut system) = self.system.try_lock() else { return };
        let stats = sample(system.get_or_insert_with(System::new));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

fn sample(system: &mut System) -> Stats {
    system.refresh_memory();
    system.refresh_cpu_usage();
    let load = System::load_average();
    Stats {
        cpu_percent: finite(system.global_cpu_usage()),
        memory_used_bytes: system.used_memory(),
        memory_total_bytes: system.total_memory(),
        swap_used_bytes: system.used_swap(),
        swap_total_bytes: system.total_swap(),
        load: [load.one, load.five, load.fifteen].map(|value| finite(value as f32)),
        uptime_s: System::uptime(),
        processes: platform::process_count(),
        disks: disks(),
        networks: networks(),
    }
}

fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

fn disks() -> Vec<Disk> {
    let found = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage());
    let told = |disk: &sysinfo::Disk| {
        let total_bytes = disk.total_space();
        let mount = text(disk.mount_point());
        (total_bytes > 0).then(|| Disk {
            mount,
            used_bytes: total_bytes.saturating_sub(disk.available_space()),
            total_bytes,
        })
    };
    let mut disks: Vec<Disk> = found.list().iter().filter_map(told).collect();
    disks.sort_by(|one, other| other.total_bytes.cmp(&one.total_bytes).then_with(|| one.mount.cmp(&other.mount)));
    disks.dedup_by(|one, other| one.mount == other.mount);
    disks.truncate(STATS_ITEMS_MAX);
    disks
}

fn networks() -> Vec<Network> {
    let found = Networks::new_with_refreshed_list();
    let told = |(name, data): (&String, &sysinfo::NetworkData)| Network {
        interface: text(Path::new(name)),
        received_bytes: data.total_received(),
        sent_bytes: data.total_transmitted(),
    };
    let mut networks: Vec<Network> = found.iter().map(told).collect();
    networks.sort_by(|one, other| {
        let bytes = |network: &Network| network.received_bytes.saturating_add(network.sent_bytes);
        bytes(other).cmp(&bytes(one)).then_with(|| one.interface.cmp(&other.interface))
    });
    networks.truncate(STATS_ITEMS_MAX);
    networks
}

fn text(path: &Path) -> String {
    super::answer::cut(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use proto::{control::FromAgent, control::Heartbeat, wire};

    use super::*;

    #[tokio::test]
    async fn a_sample_is_plausible_and_fits_its_message() {
        let stats = Sampler::default().sample().await;
        assert!(stats.memory_total_bytes >= stats.memory_used_bytes && stats.memory_used_bytes > 0);
        assert!((0.0..=100.0).contains(&stats.cpu_percent) && stats.uptime_s > 0);
        let heartbeat = FromAgent::Heartbeat(Heartbeat { seq: 1, stats, rtt_us: 1 });
        assert_eq!(wire::decode::<FromAgent>(&wire::encode(&heartbeat)), Ok(heartbeat));
    }
}
