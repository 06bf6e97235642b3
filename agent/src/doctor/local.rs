//! What lies on this machine: the state folder and its modes, the policy, the disk, the agent's own log, the buffers of UDP
//! sockets.

use std::{fs, net::UdpSocket, os::unix::fs::PermissionsExt, path::Path};

use proto::check::Check;
use rustix::net::sockopt;

use crate::{
    config::Config,
    logbook::{self, Broken, Kind, Verdict},
    policy::Policy,
};

/// What the agent asks of the system for its socket, bytes.
const BUFFER: usize = 2 << 20;
/// Less free room than this will not do for long, or not at all, bytes.
const LOW: u64 = 64 << 20;
const NONE: u64 = 1 << 20;
/// Inodes that journal, log and certificate need, and to spare.
const INODES: u64 = 64;

pub(super) fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![state_folder(&config.state_dir), policy(config)];
    checks.extend(disk(&config.state_dir));
    checks.extend(own_log(&config.state_dir));
    checks.push(buffers());
    checks
}

fn state_folder(dir: &Path) -> Check {
    const NAME: &str = "state folder";
    let shown = dir.display();
    let Ok(metadata) = fs::metadata(dir) else {
        return Check::warn(NAME, format!("{shown} is not there yet"), "none: it is made at the agent's first start");
    };
    let lax = |path: &Path, mode: u32, wanted: u32| {
        let fix = format!("chmod {wanted:04o} {}; the agent does not start before", path.display());
        Check::fail(NAME, format!("{} may be entered or read by others (mode {mode:04o})", path.display()), fix)
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        return Check::fail(NAME, format!("{shown} is no folder"), "move it away, or set state_dir");
    }
    if mode & 0o077 != 0 {
        return lax(dir, mode, 0o700);
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Check::fail(NAME, format!("{shown} cannot be read"), "run this as the agent's user or as root");
    };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let mode = metadata.permissions().mode() & 0o7777;
        let secret = ["agent.key", "enrolment.toml", "join-token"].iter().any(|name| entry.file_name() == *name);
        if metadata.is_file() && secret && mode & 0o077 != 0 {
            return lax(&entry.path(), mode, 0o600);
        }
    }
    Check::ok(NAME, format!("{shown}, closed to others"))
}

fn policy(config: &Config) -> Check {
    const NAME: &str = "policy";
    let policy = Policy::load(&config.policy_file);
    if !policy.mistakes().is_empty() {
        let seen = format!("EVERYTHING IS DENIED: {}", policy.mistakes().join("; "));
        return Check::fail(NAME, seen, format!("correct {} and restart the agent", policy.origin()));
    }
    let path = config.policy_file.path();
    let writers = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o022);
    if writers != 0 {
        let fix = format!("chmod go-w {}", path.display());
        return Check::fail(NAME, format!("{} may be changed by others than its owner", path.display()), fix);
    }
    Check::ok(NAME, format!("{}; `landline-agent policy show` has it", policy.origin()))
}

fn disk(dir: &Path) -> Option<Check> {
    const NAME: &str = "disk";
    let stat = rustix::fs::statvfs(dir).ok()?;
    let (free, inodes) = (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_favail);
    let seen = format!("{} MiB free below {}", free >> 20, dir.display());
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    // A file system without a fixed number of inodes tells none.
    Some(if read_only {
        Check::fail(
            NAME,
            format!("{} is on a file system that is mounted read-only", dir.display()),
            "mount it for writing",
        )
    } else if free < NONE || (stat.f_files > 0 && inodes < INODES) {
        Check::fail(
            NAME,
            format!("{seen}, {inodes} inodes"),
            "free some: nothing with effects is started on a full disk",
        )
    } else if free < LOW {
        Check::warn(NAME, seen, "free some before it is full: nothing with effects is started then")
    } else {
        Check::ok(NAME, seen)
    })
}

fn own_log(state_dir: &Path) -> Vec<Check> {
    const NAME: &str = "own log";
    let dir = logbook::folder(state_dir);
    if !dir.exists() {
        return Vec::new();
    }
    let broken = |kind: &Kind| match logbook::verify(&dir, *kind, None) {
        Ok(Verdict::Broken(Broken { seq, why, .. })) => {
            let fix = "landline-agent log verify; somebody wrote to it, or the disk lost a part of it";
            Some(Check::fail(NAME, format!("{}: line {seq}: {why}", kind.word()), fix))
        }
        Ok(Verdict::Empty | Verdict::Whole { .. }) => None,
        Err(error) => {
            Some(Check::fail(NAME, format!("{}: {error}", dir.display()), "run this as the agent's user or root"))
        }
    };
    let found: Vec<_> = Kind::ALL.iter().filter_map(broken).collect();
    if found.is_empty() { vec![Check::ok(NAME, "its chains hold")] } else { found }
}

fn buffers() -> Check {
    const NAME: &str = "UDP buffers";
    let granted = || -> std::io::Result<(usize, usize)> {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        // Refused where it is too much; what counts is what is read back.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
        let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        Ok((sockopt::socket_recv_buffer_size(&socket)?, sockopt::socket_send_buffer_size(&socket)?))
    };
    match granted() {
        Ok((receive, send)) if receive.min(send) < BUFFER => {
            let seen = format!(
                "{} KiB to receive, {} KiB to send; {} KiB are wanted",
                receive >> 10,
                send >> 10,
                BUFFER >> 10
            );
            Check::warn(NAME, seen, sysctl())
        }
        Ok((receive, _)) => Check::ok(NAME, format!("{} KiB are granted", receive >> 10)),
        Err(error) => Check::warn(NAME, error.to_string(), "try again as another user"),
    }
}

/// For full rate only: a line works with less.
fn sysctl() -> String {
    if cfg!(target_os = "linux") {
        format!("for full rate: sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}")
    } else {
        format!("for full rate: sysctl kern.ipc.maxsockbuf={}", BUFFER * 2)
    }
}
