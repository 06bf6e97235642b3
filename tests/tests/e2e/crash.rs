//! kill -9 is a normal event: what is there again afterwards, what is final, and what never happens twice.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use landline_tests::{
    api::port_of,
    master::Master,
    peers::Nginx,
    wait::{eventually, until},
};
use reqwest::Method;
use serde_json::{Value, json};

/// The master dies under load: three agents come back by themselves, stale rows are final before the first answer, and
/// what was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_killed_master_finds_its_agents_and_its_writes_again() {
    let mut master = Master::start().await;
    let names = ["one", "two", "three"];
    let mut agents = Vec::new();
    for name in names {
        agents.push(master.agent(name).await);
    }
    let nginx = Nginx::start().await;
    let tunnel = master.api().open_tunnel("one", nginx.port, "https").await;
    assert_eq!(tunnel["status"], "active", "{tunnel}");
    let load = tokio::spawn(acknowledged_writes(master.api()));
    let downloads = tokio::spawn(download_until_it_fails(format!("https://127.0.0.1:{}/", port_of(&tunnel))));
    eventually(Duration::from_secs(20), "some load", || async {
        let agents = master.api().get("/agents?limit=100").await;
        (agents["items"].as_array()?.len() > 30).then_some(())
    })
    .await;

    master.kill();
    let acknowledged = load.await.unwrap();
    assert!(downloads.await.unwrap() > 0, "no download succeeded before the kill");
    assert!(acknowledged.len() > 3, "hardly any load: {acknowledged:?}");
    until(Duration::from_secs(5), "no port is held by nobody", || master.listening().is_empty()).await;

    let started = Instant::now();
    master.spawn();
    // The first answer the API gives at all already shows the stale tunnel as final.
    let path = format!("/tunnels/{}", tunnel["id"].as_str().unwrap());
    let api = master.api();
    let first: Value = eventually(Duration::from_secs(20), "a first answer", || async {
        api.request(Method::GET, &path).send().await.ok()?.json().await.ok()
    })
    .await;
    assert_eq!((&first["status"], &first["closed_reason"]), (&json!("disconnected"), &json!("master_restarted")));
    for name in names {
        api.online(name, Duration::from_secs(7).saturating_sub(started.elapsed())).await;
    }
    println!("three agents back {:?} after the restart", started.elapsed());
    for id in acknowledged {
        assert_eq!(api.agent(&id).await["id"], id, "an acknowledged write is gone");
    }
    master.sockets_equal_rows().await;
    let again = api.open_tunnel("one", nginx.port, "https").await;
    assert_eq!((&again["status"], &again["listen"]), (&json!("active"), &tunnel["listen"]), "{again}");
}

/// Registers agents until the master is gone; the ids it acknowledged.
async fn acknowledged_writes(api: landline_tests::api::Api) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..10_000 {
        let id = format!("load-{number}");
        let sent = api.request(Method::POST, "/agents").json(&json!({ "id": id })).send().await;
        match sent {
            Ok(response) if response.status() == 201 => ids.push(id),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    ids
}

/// How many pages came before the first that did not.
async fn download_until_it_fails(url: String) -> usize {
    let page = || {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Command::new("curl").args(["-sSkf", "--max-time", "5", &url]).output())
    };
    let mut done = 0;
    while page().await.is_ok_and(|output| output.is_ok_and(|output| output.status.success())) {
        done += 1;
    }
    done
}

/// An agent dies in an exec: nothing runs twice, and soon after its next start nothing of it runs at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_leaves_no_exec_behind_and_runs_none_twice() {
    let master = Master::start().await;
    let mut agent = master.agent("killed").await;
    let traces = tempfile::tempdir().unwrap();
    let mark = traces.path().join("ran");
    // The shell and its child both outlive a killed agent unless somebody ends them.
    let script = format!("echo $$ >> {}; sleep 1000 & echo started; wait", mark.display());
    let request = master.api().request(Method::POST, "/agents/killed/exec").json(&json!({ "shell": script }));
    let mut lines = request.send().await.unwrap().bytes_stream();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("started\\n") {
        seen.extend_from_slice(
            &tokio::time::timeout(Duration::from_secs(10), lines.next()).await.unwrap().unwrap().unwrap(),
        );
    }
    let group: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    assert!(alive_in_group(group) >= 2, "the shell and its child run");
    agent.kill();
    agent.start();
    let started = Instant::now();
    until(Duration::from_secs(5), "no leftover runs", || alive_in_group(group) == 0).await;
    println!("leftovers gone {:?} after the start", started.elapsed());
    master.api().online("killed", Duration::from_secs(15)).await;
    let ran = std::fs::read_to_string(&mark).unwrap();
    assert_eq!(ran.lines().count(), 1, "it ran twice: {ran}");
}

/// Living processes of a process group, zombies aside.
fn alive_in_group(group: i32) -> usize {
    let alive = |entry: &Path| {
        let stat = std::fs::read_to_string(entry.join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        let found: i32 = fields.nth(1)?.parse().ok()?;
        (found == group && state != "Z").then_some(())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| alive(&entry.path()).is_some()).count()
}
