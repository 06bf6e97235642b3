//! What is left over: descriptors of the long-lived processes, and processes of programs that were run.

use std::path::Path;

use super::{runs::MARK, world::World};
use crate::sockets::descriptors;

/// Descriptors that may be there more than before: connections of the database's pool, which opens them as needed and keeps
/// them, with two files each.
pub(super) const SLACK: usize = 12;

/// Open descriptors while nothing goes on: the master's, then the agents'.
#[derive(Debug, Default)]
pub(super) struct Baseline(pub(super) Vec<usize>);

impl Baseline {
    pub(super) fn of(world: &mut World) -> Self {
        Self(counts(world))
    }
}

pub(super) fn counts(world: &mut World) -> Vec<usize> {
    let master = world.master.process().pid();
    let agents = world.agents.iter_mut().map(|agent| agent.process().pid());
    std::iter::once(master).chain(agents).map(descriptors).collect()
}

/// Processes that a program of this run left.
pub(super) fn left_running(folder: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", folder.display());
    let of_ours = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_ours).collect()
}
