//! kill -9 of the master at random moments in the middle of a mix of effects: afterwards no effect is there without its
//! audit row, and the chain is whole (SECURITY R62).

use std::{
    collections::BTreeSet,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use landline_tests::{api::Api, master::Master, soak::count};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

/// What stands in the trail: action and object, or the agent where there is no object.
type Trail = BTreeSet<(String, String)>;

#[tokio::test(flavor = "multi_thread")]
async fn no_effect_is_without_its_audit_row_after_a_kill() {
    let kills = count(5, 1_000);
    let mut moments = StdRng::seed_from_u64(62);
    let mut master = Master::start().await;
    let _agent = master.agent("worker").await;
    master.add("other").await;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    let traces = tempfile::tempdir().unwrap();
    let mut seen = [0; 4];
    for round in 0..kills {
        let (api, trace) = (master.api(), traces.path().join("ran"));
        let work = [
            tokio::spawn(tokens(api.clone())),
            tokio::spawn(execs(api.clone(), trace.clone())),
            tokio::spawn(tunnels(api.clone(), port)),
            tokio::spawn(suspensions(api)),
        ];
        // The moment itself is what is tested: nothing is waited for.
        tokio::time::sleep(Duration::from_millis(moments.random_range(20..700))).await;
        master.kill();
        for (work, seen) in work.into_iter().zip(&mut seen) {
            *seen += work.await.unwrap();
        }
        master.run().await;
        let api = master.api();
        check(&api, &trace).await.unwrap_or_else(|missing| panic!("kill {round}: {missing}"));
        api.online("worker", Duration::from_secs(20)).await;
    }
    println!("{kills} kills; acknowledged tokens, execs, tunnels, suspensions: {seen:?}");
    assert!(seen.iter().all(|count| *count > 0), "some work was never done: {seen:?}");
    // The check itself: an effect that nobody recorded is found.
    std::fs::write(traces.path().join("ran"), "ffffffff-0000-4000-8000-000000000000\n").unwrap();
    check(&master.api(), &traces.path().join("ran")).await.expect_err("an exec without its row");
}

/// Everything that is there against everything that was recorded.
async fn check(api: &Api, trace: &Path) -> Result<(), String> {
    let verdict = api.get("/audit/verify").await;
    let whole = verdict["whole"] == true;
    let (trail, suspended) = trail(api).await;
    let recorded = |action: &str, object: &str| trail.contains(&(action.to_owned(), object.to_owned()));
    let need = |action: &str, object: &str| {
        if recorded(action, object) { Ok(()) } else { Err(format!("no {action} of {object}")) }
    };
    if !whole {
        return Err(verdict.to_string());
    }
    for token in all(api, "/tokens").await {
        need("token.create", token["id"].as_str().unwrap())?;
    }
    for tunnel in all(api, "/tunnels").await {
        need("tunnel.open", tunnel["id"].as_str().unwrap())?;
        if tunnel["closed_reason"] == "closed_by_user" {
            need("tunnel.close", tunnel["id"].as_str().unwrap())?;
        }
    }
    for ran in std::fs::read_to_string(trace).unwrap_or_default().lines() {
        need("exec.start", ran)?;
    }
    let status = api.agent("other").await["status"] == "suspended";
    if status == suspended { Ok(()) } else { Err(format!("suspended: {status}, the trail says {suspended}")) }
}

/// The trail, and whether `other` is suspended by it.
async fn trail(api: &Api) -> (Trail, bool) {
    let text = api.request(Method::GET, "/audit/export").send().await.unwrap().text().await.unwrap();
    let (mut trail, mut suspended) = (Trail::new(), false);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let row: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
        let action = row["action"].as_str().unwrap();
        match action {
            "agent.suspend" => suspended = true,
            "agent.resume" => suspended = false,
            _ => {}
        }
        let object = row["object"].as_str().or(row["agent_id"].as_str()).unwrap_or_default();
        trail.insert((action.to_owned(), object.to_owned()));
    }
    (trail, suspended)
}

async fn all(api: &Api, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}?limit=500{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

/// The answer, or `None` once the master is gone.
async fn ask(api: &Api, method: Method, path: &str, body: Value) -> Option<(u16, Value)> {
    let response = api.request(method, path).json(&body).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, serde_json::from_str(&response.text().await.ok()?).unwrap_or_default()))
}

async fn tokens(api: Api) -> u32 {
    let mut done = 0;
    let new = json!({ "name": "t", "permissions": ["agents:read"] });
    while let Some((status, _)) = ask(&api, Method::POST, "/tokens", new.clone()).await {
        done += u32::from(status == 201);
    }
    done
}

async fn execs(api: Api, trace: PathBuf) -> u32 {
    let mut done = 0;
    let call = json!({ "shell": format!("echo $LANDLINE_REQUEST_ID >> {}", trace.display()) });
    while let Some((status, _)) = ask(&api, Method::POST, "/agents/worker/exec", call.clone()).await {
        done += u32::from(status == 200);
    }
    done
}

async fn tunnels(api: Api, port: u16) -> u32 {
    let mut done = 0;
    let new = json!({ "agent_id": "worker", "target": { "host": "127.0.0.1", "port": port, "scheme": "tcp" },
        "heartbeat": false });
    while let Some((status, tunnel)) = ask(&api, Method::POST, "/tunnels?wait=10s", new.clone()).await {
        if status == 201 {
            let path = format!("/tunnels/{}", tunnel["id"].as_str().unwrap());
            let Some(_) = ask(&api, Method::DELETE, &path, json!({})).await else { return done };
            done += 1;
        }
    }
    done
}

async fn suspensions(api: Api) -> u32 {
    let mut done = 0;
    for status in ["suspended", "active"].into_iter().cycle() {
        match ask(&api, Method::PATCH, "/agents/other", json!({ "status": status })).await {
            Some((200, _)) => done += 1,
            Some(_) => {}
            None => break,
        }
    }
    done
}
