//! What an operator may rely on, and nothing of how it is done: who can be reached, which tunnels are open. Pure.

use std::collections::BTreeMap;

pub(super) const AGENTS: usize = 3;
/// Echoes that each agent has tunnels to.
pub(super) const TARGETS: usize = 2;

/// A place for one tunnel: an agent and one of its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub agent: usize,
    pub target: usize,
}

/// The way between an agent and the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    Whole,
    WithoutUdp,
    Cut,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    pub(super) runs: bool,
    pub(super) cable: Cable,
    pub(super) suspended: bool,
}

/// One thing that happens. Numbers in it are all that it needs, so that its text says what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    KillMaster,
    StartMaster,
    KillAgent(usize),
    StartAgent(usize),
    SetCable(usize, Cable),
    NewAddress(usize),
    Suspend(usize),
    Resume(usize),
    RotateKey(usize),
    ShiftClock {
        agent: usize,
        hours: i32,
    },
    OpenTunnel {
        slot: Slot,
        standing: bool,
    },
    CloseTunnel(Slot),
    ExpireTunnel(Slot),
    Carry {
        slot: Slot,
        bytes: usize,
    },
    /// A program that leaves a mark at its start, and goes on in the background of later steps.
    Exec {
        agent: usize,
        lasts_ms: u64,
        by_cli: bool,
    },
    Shell(usize),
    Upload {
        agent: usize,
        bytes: usize,
    },
    Download(usize),
    Pause {
        ms: u64,
    },
    /// Waits until everything is as the model says.
    Settle,
}

/// What stands.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Whether everybody had the time to come or to be missed since something last changed.
    pub(super) settled: bool,
    pub(super) master_runs: bool,
    pub(super) machines: [Machine; AGENTS],
    /// Open ones, and whether they are standing.
    pub(super) tunnels: BTreeMap<Slot, bool>,
}

impl Model {
    /// All is well and nothing is open.
    pub(super) fn new() -> Self {
        let machine = Machine { runs: true, cable: Cable::Whole, suspended: false };
        Self { settled: true, master_runs: true, machines: [machine; AGENTS], tunnels: BTreeMap::new() }
    }

    /// Whether the agent is online, once it had the time to come.
    pub(super) fn reachable(&self, agent: usize) -> bool {
        let machine = &self.machines[agent];
        self.master_runs && machine.runs && machine.cable != Cable::Cut && !machine.suspended
    }

    pub(super) fn apply(&mut self, step: Step) {
        let before = self.online();
        match step {
            Step::KillMaster => {
                self.master_runs = false;
                // What nobody called standing ends with the master.
                self.tunnels.retain(|_, standing| *standing);
            }
            Step::StartMaster => self.master_runs = true,
            Step::KillAgent(agent) => self.machines[agent].runs = false,
            Step::StartAgent(agent) => self.machines[agent].runs = true,
            Step::SetCable(agent, cable) => self.machines[agent].cable = cable,
            Step::Suspend(agent) => {
                self.machines[agent].suspended = true;
                self.tunnels.retain(|slot, _| slot.agent != agent);
            }
            Step::Resume(agent) => self.machines[agent].suspended = false,
            Step::OpenTunnel { slot, standing } => _ = self.tunnels.entry(slot).or_insert(standing),
            Step::CloseTunnel(slot) => _ = self.tunnels.remove(&slot),
            Step::NewAddress(_)
            | Step::RotateKey(_)
            | Step::ShiftClock { .. }
            | Step::ExpireTunnel(_)
            | Step::Carry { .. }
            | Step::Exec { .. }
            | Step::Shell(_)
            | Step::Upload { .. }
            | Step::Download(_)
            | Step::Pause { .. }
            | Step::Settle => {}
        }
        // Whoever was killed and is back in between counts as one that has to come.
        self.settled = step == Step::Settle || (self.settled && before == self.online());
    }

    fn online(&self) -> [bool; AGENTS] {
        std::array::from_fn(|agent| self.reachable(agent))
    }
}
