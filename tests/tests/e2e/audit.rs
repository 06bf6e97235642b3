//! The audit trail from outside: the command line, an export that a stranger's script verifies, a row altered by hand,
//! retention, and who sees what.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use landline_tests::{api::Api, master::Master, tools::faketime, wait::until};
use reqwest::Method;
use serde_json::{Value, json};

fn landline(master: &Master, arguments: &[&str]) -> Output {
    master.landline().args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeeded(master: &Master, arguments: &[&str]) -> String {
    let output = landline(master, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", out(&output));
    out(&output)
}

/// Runs a Python text with an input; its output, or its message.
fn python(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(out(&output)) } else { Err(out(&output)) }
}

/// The script that docs/tasks/audit.md gives to those who trust nobody.
fn strangers_script() -> &'static str {
    let page = include_str!("../../../docs/tasks/audit.md");
    page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a script in the page")
}

fn sql(master: &Master, statement: &str) {
    let program =
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=5); c.execute(sys.argv[2]); c.commit()";
    let path = master.data().join("landline.db");
    python(program, &[path.to_str().unwrap(), statement], "").unwrap();
}

async fn token(api: &Api, name: &str, permissions: &[&str], selector: &str) -> Api {
    let made = api.post("/tokens", json!({ "name": name, "permissions": permissions, "selector": selector })).await;
    api.with_token(made["secret"].as_str().unwrap())
}

async fn with_some_history() -> Master {
    let master = Master::start().await;
    let api = master.api();
    for (id, site) in [("home-1", "home"), ("office", "office")] {
        api.post("/agents", json!({ "id": id, "labels": { "site": site } })).await;
    }
    let panel = token(&api, "=HYPERLINK(\"http://evil.example\")", &["agents:write"], "").await;
    assert_eq!(panel.call(Method::PATCH, "/agents/office", Some(json!({ "status": "suspended" }))).await.0, 200);
    master
}

fn actions(rows: &Value) -> Vec<(u64, String)> {
    let rows = rows.as_array().or(rows["items"].as_array()).unwrap_or_else(|| panic!("{rows}"));
    rows.iter().map(|row| (row["seq"].as_u64().unwrap(), row["action"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_read_filtered_and_exported() {
    let master = with_some_history().await;
    let table = succeeded(&master, &["audit", "ls"]);
    let seq: Vec<u32> =
        table.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert_eq!(seq, [1, 2, 3, 4, 5], "{table}");
    assert!(table.contains("admin") && table.contains("HYPERLINK"), "names beside ids: {table}");
    let json = |arguments: &[&str]| -> Value {
        let all: Vec<_> = ["-o", "json", "audit", "ls"].iter().chain(arguments).copied().collect();
        serde_json::from_str(&succeeded(&master, &all)).unwrap()
    };
    let named = |rows: &[(u64, &str)]| rows.iter().map(|(seq, word)| (*seq, (*word).to_owned())).collect::<Vec<_>>();
    assert_eq!(actions(&json(&["--agent", "office"])), named(&[(3, "agent.add"), (5, "agent.suspend")]));
    assert_eq!(actions(&json(&["--actor", "local"])), named(&[(1, "token.create")]));
    assert_eq!(
        actions(&json(&["--action", "token", "--since", "1h"])),
        named(&[(1, "token.create"), (4, "token.create")])
    );
    assert_eq!(actions(&json(&["--until", "1h"])), []);
    assert_eq!(actions(&json(&["--failed"])), []);
    assert_eq!(actions(&json(&["--limit", "1"])), named(&[(5, "agent.suspend")]));
    let usage = landline(&master, &["audit", "ls", "--since", "soon"]);
    assert_eq!(usage.status.code(), Some(64), "{}", out(&usage));

    // Whoever was given the export needs nothing of ours to check it.
    let export = master.folder.path().join("audit.jsonl");
    succeeded(&master, &["audit", "export", "--to", export.to_str().unwrap()]);
    let text = std::fs::read_to_string(&export).unwrap();
    let said = python(strangers_script(), &[], &text).unwrap();
    let verdict = succeeded(&master, &["audit", "verify"]);
    let hash = verdict.split_whitespace().last().unwrap();
    assert!(said.starts_with("whole up to row 6 ") && said.trim().ends_with(hash), "{said} {verdict}");
    let lines: Vec<_> = text.lines().collect();
    let without = [&lines[..2], &lines[3..]].concat().join("\n");
    let changed = text.replacen("office", "homely", 1);
    for (tampered, row) in [(without, 4), (changed, 3)] {
        let told = python(strangers_script(), &[], &tampered).unwrap_err();
        assert!(told.contains(&format!("row {row} does not continue")), "{told}");
    }
    // A file that is there stays what it is.
    assert_eq!(landline(&master, &["audit", "export", "--to", export.to_str().unwrap()]).status.code(), Some(1));

    let csv = succeeded(&master, &["audit", "export", "--format", "csv", "--agent", "office"]);
    let program = "import csv, json, sys; print(json.dumps(list(csv.DictReader(sys.stdin))))";
    let rows: Value = serde_json::from_str(&python(program, &[], &csv).unwrap()).unwrap();
    assert_eq!(actions_of_csv(&rows), ["agent.add", "agent.suspend"]);
    assert_eq!(rows[1]["actor_name"], "'=HYPERLINK(\"http://evil.example\")");
}

fn actions_of_csv(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect()
}

/// A row altered by hand in the file: `verify` names it and fails, and the trail can still be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_altered_by_hand_shows() {
    let master = with_some_history().await;
    assert!(succeeded(&master, &["audit", "verify"]).starts_with("whole: rows 1 to 5\n"));
    sql(&master, "UPDATE audit SET body = REPLACE(body, 'agent.suspend', 'agent.praised') WHERE seq = 5");
    let broken = landline(&master, &["audit", "verify"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(out(&broken).starts_with("BROKEN at row 5: its body was changed"), "{}", out(&broken));
    sql(&master, "UPDATE audit SET body = 'what?' WHERE seq = 4");
    let broken = landline(&master, &["-o", "json", "audit", "verify"]);
    let verdict: Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!((broken.status.code(), &verdict["broken"]["seq"]), (Some(1), &json!(4)), "{verdict}");
    assert_eq!(succeeded(&master, &["audit", "ls"]).lines().count(), 6);
    let told = python(strangers_script(), &[], &succeeded(&master, &["audit", "export"])).unwrap_err();
    assert!(told.contains("row 4 does not continue"), "{told}");
}

/// `--follow` shows what comes, and goes on after the master was killed.
#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_followed_over_a_restart() {
    let mut master = with_some_history().await;
    let mut command = master.landline();
    command.args(["-o", "json", "audit", "ls", "--follow", "--action", "agent.add", "--limit", "1"]);
    let mut child: Child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (lines, got) = std::sync::mpsc::channel();
    let reader = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    let next = || {
        let line = got.recv_timeout(Duration::from_secs(20)).expect("a line");
        serde_json::from_str::<Value>(&line).unwrap()["agent_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(next(), "office");
    master.add("third").await;
    assert_eq!(next(), "third");
    master.kill();
    master.run().await;
    master.add("fourth").await;
    assert_eq!(next(), "fourth");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Nobody sees rows of agents outside their selector, and rows of no agent only those whom nothing narrows.
#[tokio::test(flavor = "multi_thread")]
async fn a_selector_narrows_the_trail() {
    let master = with_some_history().await;
    let api = master.api();
    let narrow = token(&api, "auditor", &["audit:read"], "site=home").await;
    let seen = actions(&narrow.get("/audit").await);
    assert_eq!(seen, [(2, "agent.add".to_owned())]);
    assert_eq!(actions(&narrow.get("/audit?agent=office").await), []);
    assert_eq!(actions(&narrow.get("/audit?after=0").await), seen);
    let export = narrow.request(Method::GET, "/audit/export").send().await.unwrap().text().await.unwrap();
    assert!(export.lines().count() == 1 && export.contains("home-1") && !export.contains("office"), "{export}");
    assert_eq!(narrow.refused(Method::GET, "/audit/verify", None).await, (403, "forbidden".to_owned()));
    let without = token(&api, "other", &["agents:read"], "").await;
    for path in ["/audit", "/audit/verify", "/audit/export"] {
        assert_eq!(without.refused(Method::GET, path, None).await, (403, "forbidden".to_owned()), "{path}");
    }
    // A term of absence covers no agent that is gone.
    assert_eq!(api.call(Method::DELETE, "/agents/home-1", None).await.0, 204);
    let absent = token(&api, "absent", &["audit:read"], "site!=office").await;
    assert_eq!(actions(&absent.get("/audit").await), []);
    for bad in ["agent=UP", "since=soon", "limit=0", "cursor=x", "after=1&cursor=MTo", "actor=", "colour=red"] {
        assert_eq!(
            api.refused(Method::GET, &format!("/audit?{bad}"), None).await,
            (422, "invalid".to_owned()),
            "{bad}"
        );
    }
}

/// Retention cuts the oldest rows off; what is left verifies, here and at the stranger's.
#[tokio::test(flavor = "multi_thread")]
async fn retention_leaves_a_chain_that_verifies() {
    let mut master = Master::prepare("", "");
    for (name, value) in [("LD_PRELOAD", faketime().as_str()), ("FAKETIME", "-10d")] {
        master.set(name, value);
    }
    master.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    master.set("LANDLINE_RETENTION_AUDIT_DAYS", "5");
    master.run().await;
    for id in ["a", "b", "c"] {
        master.add(id).await;
    }
    assert!(succeeded(&master, &["audit", "verify"]).starts_with("whole: rows 1 to 4\n"));
    master.terminate(Duration::from_secs(20)).await;
    master.set("FAKETIME", "+0d");
    master.run().await;
    master.add("d").await;
    until(Duration::from_secs(20), "the old rows go", || !succeeded(&master, &["audit", "ls"]).contains(" b ")).await;
    assert!(succeeded(&master, &["audit", "verify"]).starts_with("whole: rows 5 to 5\n"));
    let said = python(strangers_script(), &[], &succeeded(&master, &["audit", "export"])).unwrap();
    assert!(said.starts_with("whole up to row 6 "), "{said}");
}
