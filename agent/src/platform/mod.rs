//! Everything that differs between systems, and nothing else: marks of processes, users, services, routes. Linux first;
//! what the BSDs do otherwise stands beside it behind the same names.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "bsd.rs")]
mod system;

/// Only compiled, so that it does not rot where Linux alone is built.
#[cfg(all(test, target_os = "linux"))]
#[path = "bsd.rs"]
#[allow(dead_code, unreachable_pub, reason = "the functions of another system")]
mod bsd;

#[cfg_attr(target_os = "linux", path = "netlink.rs")]
#[cfg_attr(not(target_os = "linux"), path = "no_netlink.rs")]
mod changes;

#[cfg(all(test, target_os = "linux"))]
#[path = "no_netlink.rs"]
#[allow(dead_code, unreachable_pub, reason = "what another system has")]
mod no_changes;

pub mod users;

use rustix::process::{Pid, Signal};

pub use self::changes::NetworkChanges;
pub use self::system::{
    boot_id, connections, group_exists, marked_processes, process_count, routes, service_manager, session_members,
    start_time,
};

/// Tells a process group from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMark {
    /// The group, which is also the process id of its first member.
    pub group: i32,
    /// Start of that process in the system's own ticks since boot.
    pub start_time: u64,
    pub boot_id: String,
}

impl ProcessMark {
    /// The mark of a process that leads its group; `None` if it is gone already.
    pub fn of_leader(pid: u32) -> Option<Self> {
        let group = i32::try_from(pid).ok()?;
        Some(Self { group, start_time: start_time(group)?, boot_id: boot_id() })
    }

    /// Whether the leader that was marked still runs: same boot, same number, same start.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && start_time(self.group) == Some(self.start_time)
    }
}

/// How a command line reaches the service manager of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceManager {
    Systemd,
    RcD,
}

/// Signals every member of a process group. A group that is gone is fine.
pub fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group).filter(|_| group > 1) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Signals one process. `Err` holds the system's reason.
pub fn signal_process(pid: i32, signal: Signal) -> std::io::Result<()> {
    let target = Pid::from_raw(pid).filter(|_| pid > 1);
    let target = target.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::kill_process(target, signal)?)
}
