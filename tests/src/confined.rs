//! Processes on a small disk of their own, or under a limit of file sizes. The disk is a tmpfs in a mount namespace that
//! only the process sees: it is gone when the process is, and nothing of this machine is touched.

use std::path::{Path, PathBuf};

/// What stands in front of a command.
pub type Prefix = Vec<String>;

/// Runs what follows with a disk of so many bytes at `at`, a folder that exists. Panics by name where that is not allowed.
pub fn small_disk(at: &Path, bytes: u64) -> Prefix {
    assert!(
        rustix::process::geteuid().is_root(),
        "a small disk is mounted in a mount namespace, which takes root (CAP_SYS_ADMIN): run this test as root"
    );
    let mount = format!("mount -t tmpfs -o size={bytes},mode=0700 small \"$0\" && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &mount]
        .map(str::to_owned)
        .into_iter()
        .chain([at.display().to_string()])
        .collect()
}

/// Runs what follows with no file beyond so many bytes, as a quota would.
pub fn small_files(bytes: u64) -> Prefix {
    vec!["prlimit".to_owned(), format!("--fsize={bytes}")]
}

/// Runs what follows with at most so many open files.
pub fn few_descriptors(most: usize) -> Prefix {
    vec!["prlimit".to_owned(), format!("--nofile={most}:{most}")]
}

/// Runs what follows with so many bytes of memory it may write to: an allocation beyond fails, and ends it. A control
/// group would count resident memory, but takes rights over this machine's own groups; this is the stricter of the two.
pub fn little_memory(bytes: u64) -> Prefix {
    vec!["prlimit".to_owned(), format!("--data={bytes}:{bytes}")]
}

/// A path as a process sees it that has a disk of its own.
pub fn seen_by(pid: u32, path: &Path) -> PathBuf {
    let below = path.strip_prefix("/").expect("an absolute path");
    PathBuf::from(format!("/proc/{pid}/root")).join(below)
}

/// The command of a program behind a prefix, which may be empty.
pub fn command(prefix: &[String], program: &Path) -> std::process::Command {
    match prefix.split_first() {
        None => std::process::Command::new(program),
        Some((first, rest)) => {
            let mut command = std::process::Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}
