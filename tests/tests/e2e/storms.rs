//! A fleet whose master was killed comes back by itself: how soon, and with how many tries. And what its lines cost.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use landline_tests::{
    binary,
    master::Master,
    process::{Peak, Process},
    soak,
    wait::eventually,
};
use serde_json::Value;

/// A master is away for this long when a supervisor starts it again.
const AWAY: Duration = Duration::from_millis(500);

/// Longer than is promised, so that a promise that is missed is told with its figure.
const PATIENCE: Duration = Duration::from_secs(180);

/// Simulated agents, and where their summary goes.
struct Fleet {
    process: Process,
    summary: std::path::PathBuf,
}

impl Fleet {
    async fn online(master: &Master, agents: u64, carrier: &str) -> Self {
        let summary = master.folder.path().join("sim.json");
        let mut command = Command::new("sh");
        // Its own standard output, apart from what it says meanwhile.
        command.args(["-c", "exec \"$0\" sim --agents \"$1\" --carrier \"$3\" --parallel \"$4\" -o json > \"$2\""]);
        // A master takes four WebSockets at a time from one address.
        let parallel = if carrier == "wss" { "4" } else { "256" };
        command.arg(binary("landline")).arg(agents.to_string()).arg(&summary).args([carrier, parallel]);
        command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data()).stdin(Stdio::null());
        let process = Process::start(command, &master.folder.path().join("sim.log"));
        connected(master, agents, Duration::from_secs(120 + agents / 20)).await;
        Self { process, summary }
    }

    /// Ends it and reads what it counted.
    async fn end(mut self) -> Value {
        self.process.terminate(Duration::from_secs(60)).await;
        let text = std::fs::read_to_string(&self.summary).expect("a summary");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Waits until the master counts so many lines.
async fn connected(master: &Master, agents: u64, within: Duration) {
    let url = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    eventually(within, &format!("{agents} agents are connected"), || async {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let counts = text.lines().filter(|line| line.starts_with("landline_agents_connected"));
        let sum: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum as u64 >= agents).then_some(())
    })
    .await;
}

/// So many agents, and within how many seconds 99 in 100 and all of them are promised to be back.
type Promise = (u64, f64, f64);

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_fleet_is_back_soon_after_its_master_was_killed() {
    fleets(&[(100, 10.0, 10.0), (soak::count(300, 2_000), 15.0, 20.0)]).await;
}

/// Each agent has a socket and a key of its own: 20,000 descriptors, and about a gigabyte of memory for both ends. In its
/// short form another hundred.
#[tokio::test(flavor = "multi_thread")]
async fn alone_ten_thousand_agents_are_back_soon_after_their_master_was_killed() {
    fleets(&[(soak::count(100, 10_000), 25.0, 45.0)]).await;
}

async fn fleets(promises: &[Promise]) {
    for &(agents, most_within, all_within) in promises {
        let mut master = Master::start().await;
        let fleet = Fleet::online(&master, agents, "udp").await;
        master.kill();
        let killed = Instant::now();
        tokio::time::sleep(AWAY).await;
        master.run().await;
        let peak = Peak::watch(master.process().pid());
        connected(&master, agents / 2, PATIENCE).await;
        let half = killed.elapsed().as_secs_f64();
        connected(&master, agents * 99 / 100, PATIENCE).await;
        let most = killed.elapsed().as_secs_f64();
        connected(&master, agents, PATIENCE).await;
        let all = killed.elapsed().as_secs_f64();
        let peak = peak.finish();
        let summary = fleet.end().await;
        let (returns, attempts) = (&summary["returns"], &summary["attempts_per_return"]);
        println!(
            "{agents} agents: half of them back {half:.1} s after the kill, 99 in 100 {most:.1} s, all {all:.1} s; once it \
             noticed, each in {:.1} s (p99), {attempts} attempts; the master had {} MiB at most",
            returns["p99_ms"].as_f64().unwrap_or_default() / 1000.0,
            peak >> 20,
        );
        assert_eq!(returns["count"], agents, "{summary}");
        assert!(most <= most_within && all <= all_within, "{most} {all}: {summary}");
        assert!(attempts.as_f64().is_some_and(|attempts| attempts <= 1.5), "{summary}");
    }
}

/// What one line may cost the master while nothing goes over it, its share of what any fleet costs included.
const PER_LINE_MAX: u64 = 512 << 10;

/// Memory of the master for each line of a fleet that rests, bytes.
async fn per_line(agents: u64, carrier: &str) -> u64 {
    let mut master = Master::start().await;
    let before = master.process().resident();
    let fleet = Fleet::online(&master, agents, carrier).await;
    let after = master.process().resident();
    let summary = fleet.end().await;
    assert_eq!(summary["connected_once"], agents, "{summary}");
    after.saturating_sub(before) / agents
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_line_inside_a_websocket_costs_little() {
    let agents = soak::count(100, 1_000);
    let (udp, wss) = (per_line(agents, "udp").await, per_line(agents, "wss").await);
    println!(
        "{agents} agents at rest: {} KiB of the master's memory for each on UDP, {} KiB on WSS",
        udp >> 10,
        wss >> 10
    );
    assert!(wss <= PER_LINE_MAX, "{wss}");
}
