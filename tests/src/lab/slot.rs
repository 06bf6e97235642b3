//! A number that no other lab of this machine has while it lives: it names the lab's namespace and device and gives it its
//! addresses. A lock says that it lives, so that what a killed test left is found and removed by the next one.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Labs at one time; each has sixteen addresses of 198.18.0.0/15, which is there for measuring networks.
const SLOTS: u32 = 256;
/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

#[derive(Debug)]
pub(super) struct Slot {
    number: u32,
    _lock: File,
}

impl Slot {
    /// A free one, after removing what dead labs left.
    pub(super) fn take() -> Self {
        sweep();
        let free = (0..SLOTS).find_map(|number| lock(number).map(|lock| Self { number, _lock: lock }));
        let slot = free.expect("fewer labs than there are addresses for");
        // Its former owner may have died since.
        remove(&slot.namespace());
        slot
    }

    pub(super) fn namespace(&self) -> String {
        format!("landline-{}-a", self.number)
    }

    /// Of the master's end.
    pub(super) fn device(&self) -> String {
        format!("landline-{}", self.number)
    }

    /// One of the sixteen addresses.
    pub(super) fn address(&self, which: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + self.number * 16 + which)
    }
}

/// Removes the namespaces of labs whose process is gone.
fn sweep() {
    let names = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let number = name.strip_prefix("landline-").and_then(|rest| rest.strip_suffix("-a"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        if let Some(_lock) = lock(number) {
            remove(&name);
        }
    }
}

fn remove(namespace: &str) {
    if file_of(namespace).exists() {
        super::side::ip(None, &format!("netns delete {namespace}"));
    }
}

fn lock(number: u32) -> Option<File> {
    let path: PathBuf = std::env::temp_dir().join(format!("landline-test-lab-{number}"));
    let file = File::options().create(true).truncate(false).write(true).open(&path).expect("a lock file");
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file)
}

/// The file that stands for a namespace.
pub(super) fn file_of(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}
