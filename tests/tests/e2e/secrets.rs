//! Secrets stay where they belong: a run with known secrets, and then a search of everything that others may read.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    liar::now_ms,
    master::Master,
    puppet::{enrol, new_key, token},
    wait::eventually,
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

/// A secret and every form of it that would be as good.
struct Canary {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    fn new(what: &'static str, secret: &str) -> Self {
        assert!(secret.len() >= 16, "{what} is too short to search for");
        Self { what, forms: vec![secret.as_bytes().to_vec(), hex::encode(secret).into_bytes()] }
    }

    fn stands_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
    }
}

fn find(canaries: &[Canary], place: &str, bytes: &[u8], found: &mut Vec<String>) {
    found.extend(
        canaries.iter().filter(|canary| canary.stands_in(bytes)).map(|canary| format!("{} in {place}", canary.what)),
    );
}

/// Every file below, except those that are made to hold a secret: they are closed.
fn find_in_files(folder: &Path, canaries: &[Canary], found: &mut Vec<String>) -> usize {
    const KEEPERS: [&str; 2] = ["admin.token", "enrolment.toml"];
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            files += find_in_files(&path, canaries, found);
        } else if kind.is_file() && KEEPERS.contains(&name.as_str()) {
            assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{name} is open to others");
        } else if kind.is_file() {
            files += 1;
            find(canaries, &path.display().to_string(), &std::fs::read(&path).unwrap_or_default(), found);
        }
    }
    files
}

async fn exec(master: &Master, agent: &str, body: Value) -> String {
    let request = master.api().request(Method::POST, &format!("/agents/{agent}/exec")).json(&body);
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.text().await.unwrap()
}

/// Everything of a process that another process of this host can look at.
fn proc_of(pid: u32, file: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// Enrolment, tokens, panel calls, commands, execs with secrets in environment and input, refusals, at the chattiest log
/// level: nothing of it in logs, database, events, audit rows, metrics, command lines or environments of children.
#[tokio::test(flavor = "multi_thread")]
async fn canaries_are_found_nowhere() {
    let mut master = Master::prepare("", "");
    master.set("LANDLINE_LOG_FILTER", "trace");
    master.run().await;
    let api = master.api();
    let created = master.add("canary").await;
    let join = token(&created);
    let secret = join.secret.expose_secret().to_owned();
    let mut agent = Agent::new(&created, Some(ALLOW_ALL));
    agent.set("LANDLINE_LOG", "trace");
    agent.start();
    api.online("canary", Duration::from_secs(10)).await;

    // A second token, used by a panel; one that is refused; a wrong secret at enrolment.
    let made = api.post("/tokens", json!({ "name": "panel", "permissions": ["panel:call"] })).await;
    let panel_token = made["token"].as_str().or(made["secret"].as_str()).unwrap_or_else(|| panic!("{made}")).to_owned();
    let panel = reqwest::Client::new().post(format!("{}/api/tunnel_heartbeat.php", master.url()));
    let id = uuid::Uuid::new_v4().to_string();
    assert_eq!(panel.bearer_auth(&panel_token).form(&[("request_id", &id)]).send().await.unwrap().status(), 404);
    let foreign = "llt_foreign-token-of-nobody-0123456789";
    assert_eq!(api.with_token(foreign).call(Method::GET, "/agents", None).await.0, 401);
    let wrong = "a-wrong-enrolment-secret-0123456789";
    let keys = tempfile::tempdir().unwrap();
    enrol(&token(&master.add("other").await), &new_key(keys.path(), "key"), wrong).await.unwrap();
    let renewed = token(&api.post("/agents/other/secret", json!({})).await);

    // Secrets of callers: in the environment and the input of an exec, in a command's payload.
    let (environment, input, payload) =
        ("canary-in-the-environment-77", "canary-in-the-input-of-exec-77", "canary-in-the-payload-of-a-command-77");
    let script = "read -r line; echo ${#line} ${#PASSWORD}";
    let call = json!({ "shell": script, "env": { "PASSWORD": environment }, "stdin": format!("{input}\n") });
    let output = exec(&master, "canary", call).await;
    assert!(output.contains(&format!("{} {}", input.len(), environment.len())), "the exec did not get them: {output}");
    let call = json!({ "id": "k", "type": "COMMAND", "service": "system", "action": "getInfo",
        "payload": { "password": payload }, "timestamp": now_ms() });
    api.call(Method::POST, "/agents/canary/commands", Some(call)).await;

    // What a child of the agent sees: neither the agent's secrets nor its settings.
    let child = exec(&master, "canary", json!({ "shell": "cat /proc/self/environ /proc/self/cmdline" })).await;
    let kept = [
        Canary::new("the enrolment secret", &secret),
        Canary::new("the join token", &join.expose()),
        Canary::new("the new enrolment secret", renewed.secret.expose_secret()),
        Canary::new("the wrong enrolment secret", wrong),
        Canary::new("the admin token", &api.token),
        Canary::new("the panel's token", &panel_token),
        Canary::new("the foreign token", foreign),
        Canary::new("the exec's environment", environment),
        Canary::new("the exec's input", input),
        Canary::new("the command's payload", payload),
    ];
    let mut found = Vec::new();
    find(&kept, "the environment of a child", child.as_bytes(), &mut found);
    assert!(child.contains("LANDLINE_REQUEST_ID="), "this is no environment: {child}");
    for setting in ["LANDLINE_JOIN_TOKEN", "LANDLINE_STATE_DIR", "LANDLINE_LOG"] {
        assert!(!child.contains(setting), "a child sees the agent's settings: {child}");
    }
    for (name, pid) in [("the master", master.process().pid()), ("the agent", agent.process().pid())] {
        let line = proc_of(pid, "cmdline");
        assert!(!line.is_empty());
        find(&kept, &format!("the command line of {name}"), &line, &mut found);
    }
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", master.metrics_port)).await.unwrap();
    find(&kept, "the metrics", &metrics.bytes().await.unwrap(), &mut found);
    for path in
        ["/agents", "/agents/canary", "/agents/canary/timeline", "/agents/other/timeline", "/tokens", "/tunnels"]
    {
        find(&kept, path, api.get(path).await.to_string().as_bytes(), &mut found);
    }
    eventually(SOON, "events reach the database", || async {
        let timeline = api.get("/agents/canary/timeline").await.to_string();
        timeline.contains("exec").then_some(())
    })
    .await;
    // Logs, the database with its journal, everything in the folders of both.
    assert!(master.log().len() > 10_000, "the master's log is not at trace");
    let files = find_in_files(master.folder.path(), &kept, &mut found);
    assert!(files >= 5, "only {files} files were searched");
    assert!(master.terminate(Duration::from_secs(15)).await.success());
    find_in_files(master.folder.path(), &kept, &mut found);
    // The search itself: what is no secret and was recorded is found.
    let started = child.split("\"exec_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let mut control = Vec::new();
    find_in_files(master.folder.path(), &[Canary::new("an exec's id", started)], &mut control);
    assert!(control.iter().any(|place| place.contains("landline.db")), "the search finds nothing: {control:?}");
    // The policy and the trace log of the agent, its journal and state.
    assert!(find_in_files(agent.folder.path(), &kept, &mut found) >= 3);
    assert!(found.is_empty(), "{found:#?}");
}
