//! A fleet whose master was killed comes back by itself: how soon, and with how many tries.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use landline_tests::{binary, master::Master, process::Process, soak, wait::eventually};
use serde_json::Value;

/// A master is away for this long when a supervisor starts it again.
const AWAY: Duration = Duration::from_millis(500);

/// Simulated agents, and where their summary goes.
struct Fleet {
    process: Process,
    summary: std::path::PathBuf,
}

impl Fleet {
    async fn online(master: &Master, agents: u64) -> Self {
        let summary = master.folder.path().join("sim.json");
        let mut command = Command::new("sh");
        // Its own standard output, apart from what it says meanwhile.
        command.args(["-c", "exec \"$0\" sim --agents \"$1\" --parallel 256 -o json > \"$2\""]);
        command.arg(binary("landline")).arg(agents.to_string()).arg(&summary);
        command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data()).stdin(Stdio::null());
        let process = Process::start(command, &master.folder.path().join("sim.log"));
        connected(master, agents, Duration::from_secs(120)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_fleet_is_back_soon_after_its_master_was_killed() {
    for (agents, most_within, all_within) in [(100, 10.0, 10.0), (soak::count(300, 2_000), 15.0, 20.0)] {
        let mut master = Master::start().await;
        let fleet = Fleet::online(&master, agents).await;
        master.kill();
        let killed = Instant::now();
        tokio::time::sleep(AWAY).await;
        master.run().await;
        connected(&master, agents * 99 / 100, Duration::from_secs(60)).await;
        let most = killed.elapsed().as_secs_f64();
        connected(&master, agents, Duration::from_secs(60)).await;
        let all = killed.elapsed().as_secs_f64();
        let summary = fleet.end().await;
        let (returns, attempts) = (&summary["returns"], &summary["attempts_per_return"]);
        println!(
            "{agents} agents: 99 in 100 back {most:.1} s after the kill, all {all:.1} s; once it noticed, each in {:.1} s (p99), \
             {attempts} attempts",
            returns["p99_ms"].as_f64().unwrap_or_default() / 1000.0,
        );
        assert_eq!(returns["count"], agents, "{summary}");
        assert!(most <= most_within && all <= all_within, "{most} {all}: {summary}");
        assert!(attempts.as_f64().is_some_and(|attempts| attempts <= 1.5), "{summary}");
    }
}
