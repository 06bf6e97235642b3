//! A program killed at a named place of its own (`proto::failpoint`), between one write and the next, while a day's work goes
//! over the line; then it is started again, and what chaos checks after a step must hold.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use reqwest::Method;
use serde_json::json;

use super::{
    checks,
    model::{Model, Slot, Step},
    tunnels,
    world::{World, name},
};
use crate::wait::{eventually, until};

/// Which places to die at.
const VARIABLE: &str = "FAILPOINTS";
/// After the day's last step: ends are written behind their answers.
const DIES_WITHIN: Duration = Duration::from_secs(3);
/// What ends a step whose program is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(20);
const ONE: Slot = Slot { agent: 0, target: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Master(&'static str),
    Agent(&'static str),
}

/// One of everything that leaves something behind.
const DAY: [Step; 15] = [
    Step::OpenTunnel { slot: ONE, standing: false },
    Step::Carry { slot: ONE, bytes: 100_000 },
    Step::Exec { agent: 0, lasts_ms: 50, by_cli: false },
    Step::Pause { ms: 500 },
    Step::Exec { agent: 0, lasts_ms: 50, by_cli: true },
    Step::Pause { ms: 500 },
    Step::Shell(0),
    Step::Upload { agent: 0, bytes: 300_000 },
    Step::Pause { ms: 200 },
    Step::Download(0),
    Step::RotateKey(0),
    Step::CloseTunnel(ONE),
    Step::Suspend(0),
    Step::Resume(0),
    Step::Settle,
];

/// Dies at each of them in turn, once, and goes on.
pub async fn killed_at_each(places: &[Place]) {
    let mut world = World::start(1).await;
    let mut missed = Vec::new();
    for place in places {
        if killed(&mut world, *place).await {
            println!("killed at {place:?}");
        } else {
            missed.push(place);
        }
        put_right(&mut world).await;
    }
    assert!(missed.is_empty(), "a day's work never comes to {missed:?}");
    checks::at_end(&mut world, &Model::new()).await;
    println!("killed at {} places: {}", places.len(), world.summary());
    checks::stopped(world).await;
}

/// Arms the place, goes through the day until it is reached, and starts what died there again.
async fn killed(world: &mut World, place: Place) -> bool {
    let pid = arm(world, place).await;
    for step in DAY {
        if dies_in(world, step, pid).await {
            break;
        }
    }
    // Ends are written after they are answered.
    let died = eventually_dead(pid, DIES_WITHIN).await;
    match place {
        Place::Master(_) => {
            world.master.kill();
            world.master.set(VARIABLE, "");
            world.master.run().await;
            start_agents_anew(world);
        }
        Place::Agent(_) => {
            world.agents[0].kill();
            world.agents[0].set(VARIABLE, "");
            world.agents[0].start();
        }
    }
    died
}

/// Starts the program anew, with the place in it.
async fn arm(world: &mut World, place: Place) -> u32 {
    match place {
        Place::Master(place) => {
            world.master.kill();
            world.master.set(VARIABLE, &format!("{place}=return"));
            world.master.spawn();
            start_agents_anew(world);
            let pid = world.master.process().pid();
            ready_or_dead(world, pid).await;
            pid
        }
        Place::Agent(place) => {
            world.agents[0].kill();
            world.agents[0].set(VARIABLE, &format!("{place}=return"));
            world.agents[0].start();
            world.agents[0].process().pid()
        }
    }
}

/// They come back by themselves as well, later each time.
fn start_agents_anew(world: &mut World) {
    for agent in &mut world.agents {
        agent.kill();
        agent.start();
    }
}

/// Whoever dies before all are there is there no more.
async fn ready_or_dead(world: &mut World, pid: u32) {
    tokio::select! {
        () = world.master.ready(READY_WITHIN) => {}
        () = death(pid) => return,
    }
    dies_in(world, Step::Settle, pid).await;
}

/// Does a step, or as much of it as there is a program for. Panics as the step does if nothing died.
async fn dies_in(world: &mut World, step: Step, pid: u32) -> bool {
    let model = Model::new();
    let performed = AssertUnwindSafe(world.perform(step, &model)).catch_unwind();
    let ended = tokio::select! {
        biased;
        () = death(pid) => return true,
        ended = performed => ended,
    };
    match ended {
        Ok(()) => is_dead(pid),
        // What the caller was answered may come before the news.
        Err(_) if eventually_dead(pid, NOTICED_WITHIN).await => true,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn death(pid: u32) {
    eventually(Duration::from_secs(600), "a step ends", || async { is_dead(pid).then_some(()) }).await;
}

async fn eventually_dead(pid: u32, within: Duration) -> bool {
    tokio::time::timeout(within, death(pid)).await.is_ok()
}

/// A child that nobody waited for yet is a zombie.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']) || rest.is_empty())
}

/// Everything is as on the first morning, and what must hold at any time holds.
async fn put_right(world: &mut World) {
    let api = world.master.api();
    let path = format!("/agents/{}", name(0));
    if api.get(&path).await["status"] == "suspended" {
        let answer = api.call(Method::PATCH, &path, Some(json!({ "status": "active" }))).await;
        assert!(answer.0.is_success(), "{answer:?}");
        world.agents[0].kill();
        world.agents[0].start();
    }
    for tunnel in tunnels::open_ones(world).await.into_values() {
        let path = format!("/tunnels/{}", tunnel["id"].as_str().expect("an id"));
        let answer = api.call(Method::DELETE, &path, None).await;
        assert!(answer.0.is_success(), "{answer:?}");
    }
    checks::settled(world, &Model::new()).await;
    checks::after_each(world, &Model::new()).await;
    world.files.finish_all().await;
    // A command that was cut off comes back by itself; the next death is not to meet it.
    until(Duration::from_secs(5), "ports are free", || world.master.listening().is_empty()).await;
}
