//! Measures a running master and agents and prints what it saw: the way from a request to an active tunnel, and what
//! idling costs. It judges nothing; the figures speak for the profile that built the binaries beside it.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use landline_tests::{
    binary,
    master::Master,
    peers::Nginx,
    process::{Process, resident},
    wait::eventually,
};
use reqwest::Method;

const ROUNDS: usize = 100;
const SIMULATED: usize = 500;

#[tokio::main]
async fn main() {
    ready().await;
    idle().await;
}

/// Milliseconds from `POST /tunnels?wait=30s` to its answer: a TLS server behind the agent was probed through the tunnel.
async fn ready() {
    let nginx = Nginx::start().await;
    let master = Master::start().await;
    let _agent = master.agent("ready").await;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let tunnel = master.api().open_tunnel("ready", nginx.port, "https").await;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(tunnel["status"], "active", "{tunnel}");
        let path = format!("/tunnels/{}", tunnel["id"].as_str().unwrap_or_default());
        master.api().call(Method::DELETE, &path, None).await;
    }
    times.sort_by(f64::total_cmp);
    println!(
        "request to active tunnel, {ROUNDS} rounds: median {:.1} ms, p90 {:.1} ms, from {:.1} to {:.1} ms",
        times[ROUNDS / 2],
        times[ROUNDS * 9 / 10],
        times[0],
        times[ROUNDS - 1]
    );
}

/// Resident memory and CPU over ten seconds: an agent, a master with three, and with five hundred simulated ones.
async fn idle() {
    let mut master = Master::start().await;
    let mut agents = Vec::new();
    for name in ["one", "two", "three"] {
        agents.push(master.agent(name).await);
    }
    let pids: Vec<u32> = agents.iter_mut().map(|agent| agent.process().pid()).collect();
    let cpu = cpu_share(pids[0]).await;
    let sizes: Vec<String> = pids.iter().map(|pid| format!("{:.1}", mib(*pid))).collect();
    println!("idle agent: {} MiB resident, {:.2} % of a core", sizes.join(" / "), cpu);
    let pid = master.process().pid();
    println!("master with 3 agents: {:.1} MiB resident, {:.2} % of a core", mib(pid), cpu_share(pid).await);

    let mut command = std::process::Command::new(binary("landline"));
    command.args(["sim", "--agents", &SIMULATED.to_string()]).args(["--for", "60s"]);
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_TOKEN", master.api().token);
    let sim = Process::start(command, &master.folder.path().join("sim.log"));
    eventually(Duration::from_secs(60), "all simulated agents are online", || async {
        let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", master.metrics_port)).await.ok()?;
        let text = metrics.text().await.ok()?;
        text.contains(&format!("landline_agents_connected{{carrier=\"udp\"}} {}", SIMULATED + 3)).then_some(())
    })
    .await;
    println!("master with {SIMULATED} more: {:.1} MiB resident, {:.2} % of a core", mib(pid), cpu_share(pid).await);
    drop(sim);
}

fn mib(pid: u32) -> f64 {
    resident(pid) as f64 / f64::from(1 << 20)
}

/// Percent of one core over ten seconds, from /proc/PID/stat in ticks of 10 ms.
async fn cpu_share(pid: u32) -> f64 {
    let before = ticks(pid);
    tokio::time::sleep(Duration::from_secs(10)).await;
    (ticks(pid) - before) as f64 / 10.0
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let number = |index: usize| fields.get(index).and_then(|field: &&str| field.parse::<u64>().ok()).unwrap_or(0);
    number(11) + number(12)
}
