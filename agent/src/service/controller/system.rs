//! `system.*`: the machine's load and what it is.

use proto::stats::Stats;
use serde_json::{Value, json};
use sysinfo::System;

use super::Failure;

/// `system.getUsage`, and what `GET_STATS` arrives as. Memory in MiB, as panels expect it.
pub(super) fn usage(stats: &Stats) -> Value {
    let disks: Vec<Value> = stats
        .disks
        .iter()
        .map(|disk| json!({ "mount": disk.mount, "used": mib(disk.used_bytes), "total": mib(disk.total_bytes) }))
        .collect();
    let network: Vec<Value> = stats
        .networks
        .iter()
        .map(|one| json!({ "interface": one.interface, "received": one.received_bytes, "sent": one.sent_bytes }))
        .collect();
    json!({
        "cpu": tenths(stats.cpu_percent),
        "ram": mib(stats.memory_used_bytes),
        "ramTotal": mib(stats.memory_total_bytes),
        "swap": mib(stats.swap_used_bytes),
        "swapTotal": mib(stats.swap_total_bytes),
        "load": stats.load.map(|value| (f64::from(value) * 100.0).round() / 100.0),
        "uptime": stats.uptime_s,
        "processes": stats.processes,
        "disks": disks,
        "network": network,
    })
}

/// `system.getInfo`.
pub(super) fn info() -> Result<Value, Failure> {
    let mut system = System::new();
    system.refresh_memory();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    Ok(json!({
        "hostname": gethostname::gethostname().to_string_lossy(),
        "os": System::name(),
        "osVersion": System::os_version(),
        "osLongName": System::long_os_version(),
        "kernel": System::kernel_version(),
        "arch": std::env::consts::ARCH,
        "cpus": system.cpus().len(),
        "cpuModel": system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()),
        "ramTotal": mib(system.total_memory()),
        "uptime": System::uptime(),
        "bootTime": System::boot_time(),
        "agentVersion": env!("CARGO_PKG_VERSION"),
    }))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn tenths(value: f32) -> f64 {
    (f64::from(value) * 10.0).round() / 10.0
}
