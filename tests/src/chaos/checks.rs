//! What must hold after each step, when all had time to settle, and at the end. Panics name what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    leaks,
    model::{AGENTS, Model, Slot},
    runs::Answer,
    tunnels::open_ones,
    world::{World, name},
};
use crate::wait::{eventually, until};

const SOON: Duration = Duration::from_secs(5);
/// In which an agent that can be reached is back, whatever it was doing.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// In which one that cannot be reached is called offline: 45 s of silence (docs/PROTOCOL.md), and some.
const MISSED_WITHIN: Duration = Duration::from_secs(55);

/// What holds at any time, whatever is under way.
pub(super) async fn after_each(world: &mut World, model: &Model) {
    world.runs.collect().await;
    world.files.collect().await;
    world.files.are_whole();
    nothing_ran_twice(world);
    if !model.master_runs {
        until(SOON, "no port of a dead master listens", || world.master.listening().is_empty()).await;
        return;
    }
    world.master.sockets_equal_rows().await;
    tunnels_are_those_of_the_model(world, model).await;
    effects_are_on_the_trail(world).await;
    nobody_is_online_who_is_gone(world, model).await;
    assert!(lines(world).await <= AGENTS, "more lines than agents");
}

async fn nobody_is_online_who_is_gone(world: &mut World, model: &Model) {
    let online = online(world).await;
    for agent in 0..AGENTS {
        let since = &mut world.gone_since[agent];
        if model.reachable(agent) {
            *since = None;
            continue;
        }
        let gone = since.get_or_insert_with(Instant::now).elapsed();
        let overdue = model.machines[agent].suspended || gone > MISSED_WITHIN;
        assert!(!(overdue && online.contains(&name(agent))), "{} is online, and gone for {gone:?}", name(agent));
    }
}

async fn online(world: &World) -> BTreeSet<String> {
    let page = world.master.api().get("/agents?limit=100&presence=online").await;
    let ids = page["items"].as_array().expect("items").iter().filter_map(|agent| agent["id"].as_str());
    ids.map(str::to_owned).collect()
}

fn nothing_ran_twice(world: &World) {
    for run in &world.runs.all {
        let (times, answer) = (run.times(), &run.answer);
        let right = match answer {
            Some(Answer::Done) => times == 1,
            Some(Answer::Refused(_)) => times == 0,
            Some(Answer::Unknown(_)) | None => times <= 1,
        };
        assert!(right, "{} ran {times} times, and the caller was told {answer:?}", run.mark.display());
    }
}

async fn tunnels_are_those_of_the_model(world: &World, model: &Model) {
    let wanted: BTreeMap<Slot, bool> = model.tunnels.clone();
    eventually(SOON, &format!("the open tunnels are {wanted:?}"), || async {
        let found = open_ones(world).await;
        let found: BTreeMap<_, _> = found.iter().map(|(slot, tunnel)| (*slot, tunnel["standing"] == true)).collect();
        (found == wanted).then_some(())
    })
    .await;
}

/// The trail has a row for all that was answered as done, and for all that left a trace.
async fn effects_are_on_the_trail(world: &World) {
    // Traces first: a row that comes later than its effect is missing then.
    let mut traces = [0; AGENTS];
    for run in &world.runs.all {
        traces[run.agent] += run.times();
    }
    let rows = trail(world).await;
    let mut told: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (action, to) in &world.done.effects {
        *told.entry((action, to)).or_default() += 1;
    }
    let names: Vec<_> = (0..AGENTS).map(name).collect();
    for agent in 0..AGENTS {
        told.insert(("exec.start", &names[agent]), traces[agent]);
        told.insert(("file.write", &names[agent]), world.files.replaced[agent]);
    }
    for ((action, to), count) in told {
        let is = |row: &&Value| row["action"] == action && (row["agent_id"] == to || row["object"] == to);
        let found = rows.iter().filter(is).count();
        assert!(found >= count, "{action} of {to} was done {count} times, and is {found} times on the trail");
    }
}

async fn trail(world: &World) -> Vec<Value> {
    let (api, mut rows) = (world.master.api(), Vec::<Value>::new());
    loop {
        let after = rows.last().map_or(0, |row| row["seq"].as_u64().expect("a number"));
        let page = api.get(&format!("/audit?after={after}&limit=200")).await;
        let more = page["items"].as_array().expect("items");
        if more.is_empty() {
            return rows;
        }
        rows.extend_from_slice(more);
    }
}

/// Lines that the master counts, by whichever carrier.
async fn lines(world: &World) -> usize {
    let url = format!("http://127.0.0.1:{}/metrics", world.master.metrics_port);
    let text = reqwest::get(&url).await.expect("metrics").text().await.expect("their text");
    let of_lines = text.lines().filter(|line| line.starts_with("landline_agents_connected{"));
    of_lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Waits until whoever can be reached is online, and their tunnels are active.
pub(super) async fn settled(world: &mut World, model: &Model) {
    let wanted: BTreeSet<_> = (0..AGENTS).filter(|agent| model.reachable(*agent)).map(name).collect();
    eventually(SETTLED_WITHIN, &format!("online are {wanted:?}"), || async {
        online(world).await.is_superset(&wanted).then_some(())
    })
    .await;
    let ready: Vec<_> = model.tunnels.keys().filter(|slot| model.reachable(slot.agent)).collect();
    eventually(SETTLED_WITHIN, "tunnels of agents that are there are active", || async {
        let open = open_ones(world).await;
        let active = |slot: &&Slot| open.get(slot).is_some_and(|tunnel| tunnel["status"] == "active");
        ready.iter().all(active).then_some(())
    })
    .await;
}

/// All was put right: every answer is there, and nothing else is.
pub(super) async fn at_end(world: &mut World, model: &Model) {
    world.runs.finish().await;
    world.files.finish_all().await;
    after_each(world, model).await;
    eventually(MISSED_WITHIN, "one line for each agent", || async { (lines(world).await == AGENTS).then_some(()) })
        .await;
    let folder = world.folder.path().to_owned();
    until(SOON, "no program of the run is left", || leaks::left_running(&folder).is_empty()).await;
    let before = std::mem::take(&mut world.baseline.0);
    let mut now = Vec::new();
    until(SETTLED_WITHIN, &format!("descriptors are {before:?} and not many more"), || {
        now = leaks::counts(world);
        now.iter().zip(&before).all(|(now, before)| *now <= before + leaks::SLACK)
    })
    .await;
    println!("chaos: descriptors of master and agents before {before:?}, now {now:?}");
    let verified = world.master.landline().args(["audit", "verify"]).output().expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Stops it all; the database is whole.
pub(super) async fn stopped(mut world: World) {
    for agent in &mut world.agents {
        agent.process().terminate(Duration::from_secs(10)).await;
    }
    world.master.terminate(Duration::from_secs(30)).await;
    let program =
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone()[0])";
    let path = world.master.data().join("landline.db");
    let output = Command::new("python3").args(["-c", program]).arg(path).output().expect("python3 runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n", "{}", String::from_utf8_lossy(&output.stderr));
}
