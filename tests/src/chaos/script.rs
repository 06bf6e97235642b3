//! What happens next: drawn from a seed and the model alone, so that a seed can be had again. Pure.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::model::{AGENTS, Cable, Model, Slot, Step, TARGETS};

/// A seed's steps, one after the other.
pub(super) struct Script {
    random: StdRng,
    model: Model,
}

/// What chance has for one step. All of it is drawn for each.
struct Dice {
    ms: u64,
    bytes: usize,
    hours: i32,
    coin: bool,
}

/// The first steps of a seed.
pub fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut script = Script::new(seed);
    (0..count).map(|_| script.next_step()).collect()
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), model: Model::new() }
    }

    /// As it must be after the steps so far.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn next_step(&mut self) -> Step {
        let dice = Dice {
            ms: self.random.random_range(0..3_000),
            bytes: self.random.random_range(1..1_500_000),
            hours: self.random.random_range(-30..=30),
            coin: self.random.random(),
        };
        let choices = choices(&self.model, &dice);
        let total: u32 = choices.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.random.random_range(0..total);
        let mut last = Step::Settle;
        for (weight, step) in choices {
            last = step;
            if drawn < weight {
                break;
            }
            drawn -= weight;
        }
        self.model.apply(last);
        last
    }

    /// The steps after which all is well again and nothing is open.
    pub(super) fn put_right(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.model.master_runs {
            steps.push(Step::StartMaster);
        }
        for (agent, machine) in self.model.machines.iter().enumerate() {
            steps.push(Step::SetCable(agent, Cable::Whole));
            steps.extend(machine.suspended.then_some(Step::Resume(agent)));
            steps.extend((!machine.runs).then_some(Step::StartAgent(agent)));
        }
        steps.extend(self.model.tunnels.keys().map(|slot| Step::CloseTunnel(*slot)));
        steps.push(Step::Settle);
        steps.iter().for_each(|step| self.model.apply(*step));
        steps
    }
}

/// What may happen now, each with its weight.
fn choices(model: &Model, dice: &Dice) -> Vec<(u32, Step)> {
    let mut choices = vec![(4, Step::Pause { ms: dice.ms })];
    for agent in 0..AGENTS {
        choices.extend(of_machine(model, dice, agent));
    }
    if !model.master_runs {
        choices.push((20, Step::StartMaster));
        return choices;
    }
    // Now and then everybody is waited for; without, hardly anything would be done but wait in vain.
    choices.extend([(2, Step::KillMaster), (if model.settled { 1 } else { 60 }, Step::Settle)]);
    for agent in 0..AGENTS {
        choices.extend(of_caller(model, dice, agent));
        choices.extend((0..TARGETS).flat_map(|target| of_tunnel(model, dice, Slot { agent, target })));
    }
    choices
}

/// What befalls a machine and its cable, whether or not there is a master.
fn of_machine(model: &Model, dice: &Dice, agent: usize) -> Vec<(u32, Step)> {
    let machine = &model.machines[agent];
    let mut choices = match machine.cable {
        Cable::Whole => vec![(1, Step::SetCable(agent, Cable::Cut)), (1, Step::SetCable(agent, Cable::WithoutUdp))],
        Cable::WithoutUdp => vec![(1, Step::SetCable(agent, Cable::Cut)), (3, Step::SetCable(agent, Cable::Whole))],
        Cable::Cut => vec![(4, Step::SetCable(agent, Cable::Whole)), (1, Step::SetCable(agent, Cable::WithoutUdp))],
    };
    choices.push((2, Step::NewAddress(agent)));
    choices.push(if machine.runs { (1, Step::KillAgent(agent)) } else { (6, Step::StartAgent(agent)) });
    // One machine's clock is in the runner's hand.
    if agent == 0 {
        choices.push((1, Step::ShiftClock { agent, hours: dice.hours }));
    }
    choices
}

/// How much more often than a disturbance some work comes, where it can be done.
fn busy(model: &Model, agent: usize) -> u32 {
    if model.settled && model.reachable(agent) { 4 } else { 1 }
}

/// What somebody asks of the master about an agent.
fn of_caller(model: &Model, dice: &Dice, agent: usize) -> Vec<(u32, Step)> {
    if model.machines[agent].suspended {
        return vec![(4, Step::Resume(agent))];
    }
    let busy = busy(model, agent);
    let mut choices = vec![
        (1, Step::Suspend(agent)),
        (3 * busy, Step::Exec { agent, lasts_ms: dice.ms, by_cli: dice.coin }),
        (2 * busy, Step::Upload { agent, bytes: dice.bytes }),
        (busy, Step::Download(agent)),
    ];
    if model.reachable(agent) {
        choices.extend([(busy, Step::Shell(agent)), (1, Step::RotateKey(agent))]);
    }
    choices
}

fn of_tunnel(model: &Model, dice: &Dice, slot: Slot) -> Vec<(u32, Step)> {
    if model.machines[slot.agent].suspended {
        return Vec::new();
    }
    let open = (4, Step::OpenTunnel { slot, standing: dice.coin });
    if !model.tunnels.contains_key(&slot) {
        return vec![open, (2, Step::ExpireTunnel(slot))];
    }
    let mut choices = vec![(1, open.1), (2, Step::CloseTunnel(slot))];
    if model.reachable(slot.agent) {
        choices.push((2 * busy(model, slot.agent), Step::Carry { slot, bytes: dice.bytes }));
    }
    choices
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_its_steps_again_and_another_gives_others() {
        assert_eq!(steps(1, 500), steps(1, 500));
        assert_ne!(steps(1, 20), steps(2, 20));
    }

    #[test]
    fn every_kind_of_step_comes_and_all_is_well_in_the_end() {
        let word = |step: &Step| format!("{step:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
        let kinds: BTreeSet<_> = steps(3, 3_000).iter().map(word).collect();
        assert_eq!(kinds.len(), 20, "{kinds:?}");
        let mut script = Script::new(4);
        for _ in 0..300 {
            script.next_step();
            let mut ended = Script { random: script.random.clone(), model: script.model.clone() };
            ended.put_right();
            assert!((0..AGENTS).all(|agent| ended.model.reachable(agent)) && ended.model.tunnels.is_empty());
        }
    }
}
