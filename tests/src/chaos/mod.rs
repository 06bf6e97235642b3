//! Chaos: a seeded sequence of what befalls a fleet, done to real binaries, and judged after each step against a model of
//! what an operator may rely on. [`model`] and [`script`] are pure and decide what is done and what must then be so;
//! [`world`] does it; [`checks`] compare. The same seed gives the same steps, whatever the world answers.

#![allow(clippy::print_stdout, reason = "each step is told as it happens")]

mod checks;
mod files;
mod leaks;
mod model;
mod places;
mod runs;
mod script;
mod tunnels;
mod world;

use std::time::{Duration, Instant};

pub use self::{
    model::Step,
    places::{Place, killed_at_each},
    script::steps,
};
use self::{script::Script, world::World};

/// What was done so far; told again, with the way to have it again, when a check fails.
struct Told {
    seed: u64,
    lasts: Duration,
    begun: Instant,
    steps: Vec<String>,
}

impl Told {
    fn tell(&mut self, step: &Step) {
        let (number, at) = (self.steps.len() + 1, self.begun.elapsed().as_secs_f32());
        let line = format!("{number:>4} at {at:>5.1} s {step:?}");
        println!("{line}");
        self.steps.push(line);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("broken after these steps:\n{}", self.steps.join("\n"));
            eprintln!("again: make chaos SEED={} SECONDS_TO_RUN={}", self.seed, self.lasts.as_secs());
        }
    }
}

/// Lets a seed's steps happen for so long, then puts everything right and looks at what is left. Panics at the first
/// thing that is not as the model says.
pub async fn run(seed: u64, lasts: Duration) {
    println!("chaos: seed {seed} for {lasts:?}");
    // Made first, so that it is dropped last: its list comes after the logs.
    let mut told = Told { seed, lasts, begun: Instant::now(), steps: Vec::new() };
    let mut script = Script::new(seed);
    let mut world = World::start(seed).await;
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        let step = script.next_step();
        told.tell(&step);
        world.perform(step, script.model()).await;
        checks::after_each(&mut world, script.model()).await;
    }
    for step in script.put_right() {
        told.tell(&step);
        world.perform(step, script.model()).await;
    }
    checks::at_end(&mut world, script.model()).await;
    println!("chaos: seed {seed}: {} steps, {}", told.steps.len(), world.summary());
    checks::stopped(world).await;
}
