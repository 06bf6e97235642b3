//! What lies on this host: the data folder and its modes, room on the disk, the clock, limits of descriptors and buffers.

use std::{fs, path::Path};

use certs::state::{StateError, open_dir, read_secret};
use proto::check::Check;
use rustix::process::{Resource, getrlimit};

use crate::{clock::unix_ms, config::Config};

/// The day this version was made, Unix milliseconds: no clock that is right shows an earlier one.
const MADE_ON_MS: i64 = 1_795_305_600_000;
/// What the master asks of the system for its socket, bytes.
const BUFFER: u64 = 8 << 20;
/// One connection of a tunnel takes one descriptor.
const DESCRIPTORS: u64 = 65_536;
const DESCRIPTORS_LEAST: u64 = 4_096;
/// Less free room than this will not do for long, or not at all, bytes.
const LOW: u64 = 1 << 30;
const NONE: u64 = 64 << 20;
const SECRETS: [&str; 4] = ["ca/ca.key", "ca/server.key", "quic.keys", "admin.token"];

pub(super) fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![data_folder(&config.data_dir)];
    checks.extend(disk(&config.data_dir));
    checks.push(clock());
    checks.push(descriptors());
    checks.extend(buffers());
    checks
}

fn data_folder(dir: &Path) -> Check {
    const NAME: &str = "data folder";
    if !dir.exists() {
        return Check::warn(NAME, format!("{} is not there yet", dir.display()), "none: it is made at the first start");
    }
    // It exists, so nothing is made here.
    let secrets = || SECRETS.iter().try_for_each(|name| read_secret(&dir.join(name)).map(drop));
    match open_dir(dir).and_then(|()| secrets()) {
        Ok(()) => Check::ok(NAME, format!("{}, closed to others", dir.display())),
        Err(StateError::LaxMode { path, mode, wanted }) => {
            let seen = format!("{} may be read by others (mode {mode:04o})", path.display());
            Check::fail(NAME, seen, format!("chmod {wanted:04o} {}; the master does not start before", path.display()))
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Check::fail(NAME, format!("{error}{cause}"), "run this as the master's user or as root")
        }
    }
}

fn disk(dir: &Path) -> Option<Check> {
    const NAME: &str = "disk";
    let stat = rustix::fs::statvfs(dir).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let seen = format!("{} MiB free below {}", free >> 20, dir.display());
    Some(if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        Check::fail(NAME, format!("{} is mounted read-only", dir.display()), "mount it for writing")
    } else if free < NONE {
        Check::fail(
            NAME,
            seen,
            "free some, or lower recording.max_total_mb and the retention: new work is refused when it is full",
        )
    } else if free < LOW {
        Check::warn(NAME, seen, "free some, or lower recording.max_total_mb and the retention")
    } else {
        Check::ok(NAME, seen)
    })
}

fn clock() -> Check {
    const NAME: &str = "clock";
    const FIX: &str = "set it (timedatectl set-ntp true, or ntpd), then restart the master: it reads the clock once";
    if unix_ms() < MADE_ON_MS {
        return Check::fail(NAME, "it is behind the day on which this version was made", FIX);
    }
    // What systemd says; others keep the clock without a mark.
    let synchronised = fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false);
    let kept =
        if synchronised { "kept by systemd-timesyncd" } else { "plausible; whether something keeps it is not known" };
    Check::ok(NAME, kept)
}

fn descriptors() -> Check {
    const NAME: &str = "open files";
    const FIX: &str = "raise LimitNOFILE of the unit (deploy/systemd has 1048576), or `ulimit -n` where there is none";
    let limit = running_limit().or_else(|| getrlimit(Resource::Nofile).current).unwrap_or(u64::MAX);
    let seen = if limit == u64::MAX { "no limit".to_owned() } else { format!("{limit} at once") };
    if limit < DESCRIPTORS_LEAST {
        Check::fail(NAME, seen, FIX)
    } else if limit < DESCRIPTORS {
        Check::warn(NAME, format!("{seen}; a connection on a tunnel takes one"), FIX)
    } else {
        Check::ok(NAME, seen)
    }
}

/// Of the master that runs here, where the system shows it: a unit's limit is not a terminal's.
fn running_limit() -> Option<u64> {
    let serves = |pid: &str| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = words.split(|byte| *byte == 0);
        let program = words.next()?;
        (program.ends_with(b"landline") && words.any(|word| word == b"serve")).then_some(())
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pid = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).find(|pid| serves(pid).is_some())?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let soft = line.trim_start_matches("Max open files").split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn buffers() -> Option<Check> {
    const NAME: &str = "UDP buffers";
    let limit = |name: &str| fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse::<u64>().ok();
    let (receive, send) = (limit("rmem_max")?, limit("wmem_max")?);
    let seen = format!("{} KiB to receive, {} KiB to send are granted", receive >> 10, send >> 10);
    if receive.min(send) >= BUFFER {
        return Some(Check::ok(NAME, seen));
    }
    let fix = format!(
        "for full rate: sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}, and the same in /etc/sysctl.d"
    );
    Some(Check::warn(NAME, format!("{seen}, {} KiB are wanted", BUFFER >> 10), fix))
}
