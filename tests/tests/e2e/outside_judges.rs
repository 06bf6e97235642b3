//! What others think of us: promtool of the metrics, a validator of the OpenAPI document, and a schema-driven fuzzer of
//! the API.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Output, Stdio},
};

use landline_tests::{master::Master, tools::tool};
use serde_json::json;

async fn finished(mut command: Command, input: Vec<u8>) -> Output {
    tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        child.stdin.take().unwrap().write_all(&input).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn metrics(master: &Master) -> String {
    let url = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    reqwest::get(&url).await.unwrap().text().await.unwrap()
}

/// Metrics after real use pass promtool, and no name of an agent makes a series.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_metrics() {
    let master = Master::start().await;
    let _agent = master.agent("measured").await;
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    master.api().open_tunnel("measured", target.local_addr().unwrap().port(), "tcp").await;
    let call = json!({ "id": "once", "type": "GET_STATS", "timestamp": landline_tests::liar::now_ms() });
    master.api().post("/agents/measured/commands", call).await;
    let text_before = metrics(&master).await;
    let mut promtool = Command::new(tool("promtool"));
    promtool.args(["check", "metrics"]);
    let output = finished(promtool, text_before.clone().into_bytes()).await;
    assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output));
    for name in ["landline_agents_connected", "landline_tunnels", "landline_stream_open_seconds", "landline_build_info"]
    {
        assert!(text_before.contains(name), "{name} is missing");
    }
    let series = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with("landline_"));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    assert!(!text_before.contains("measured"), "an agent's name is in the metrics");
    let before = series(&text_before);
    let _others = [master.agent("x0.evil").await, master.agent("y1_evil").await];
    let added: Vec<_> = series(&metrics(&master).await).difference(&before).cloned().collect();
    assert!(added.iter().all(|series| series.contains("operation=")), "series grew with agents: {added:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_valid() {
    let master = Master::start().await;
    let document = master.api().get("/openapi.json").await;
    let path = master.folder.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    let mut validator = Command::new(tool("openapi-spec-validator"));
    validator.arg(&path);
    let output = finished(validator, Vec::new()).await;
    assert!(output.status.success(), "{}", text(&output));
}

/// Schemathesis sends what the document allows and what it does not: no 5xx, no status that is not documented, no answer
/// of another shape.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_driven_fuzzer_finds_nothing() {
    fuzzed(Caller::AdminToken, 25).await;
}

/// The same with the token of each role, whom other permissions and a selector meet.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_driven_fuzzer_finds_nothing_as_a_viewer() {
    fuzzed(Caller::Role("viewer", ""), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_driven_fuzzer_finds_nothing_as_an_operator() {
    fuzzed(Caller::Role("operator", ""), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_driven_fuzzer_finds_nothing_as_a_narrowed_admin() {
    fuzzed(Caller::Role("admin", "site=elsewhere"), 8).await;
}

/// Nobody is known yet: the doors themselves. Few tries, since wrong ones are slowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_driven_fuzzer_finds_nothing_at_the_doors() {
    fuzzed(Caller::Nobody, 5).await;
}

#[derive(Clone, Copy)]
enum Caller {
    AdminToken,
    /// A token that holds what this role does, under this selector. Not a session: what a fuzzer sends in place of its
    /// cookie would be a wrong one, and wrong ones are slowed.
    Role(&'static str, &'static str),
    Nobody,
}

const PASSWORD: &str = "a few words do well";

/// The bearer token of the caller.
async fn token(master: &Master, caller: Caller) -> Option<String> {
    let api = master.api();
    let (role, selector) = match caller {
        Caller::Nobody => return None,
        Caller::AdminToken => return Some(api.token),
        Caller::Role(role, selector) => (role, selector),
    };
    let account = json!({ "name": "fuzzer", "role": role, "password": PASSWORD, "selector": selector });
    api.post("/operators", account).await;
    let session = api.post("/login", json!({ "name": "fuzzer", "password": PASSWORD })).await;
    let token = json!({ "name": "fuzzer", "permissions": session["permissions"], "selector": selector });
    Some(api.post("/tokens", token).await["secret"].as_str().unwrap().to_owned())
}

async fn fuzzed(caller: Caller, examples: u32) {
    let mut master = Master::start_with("", "pending_timeout_s = 1").await;
    // What it is told to write and to remove it does: in a folder of its own, so not `allow_all`, which opens `/`.
    let room = tempfile::tempdir().unwrap();
    let policy = format!(
        "[forward]\ntargets = [\"*:*\"]\n[exec]\nallow = [\"*\"]\nshell = true\n[commands]\nallow = [\"*.*\"]\n[shell]\n\
         [files]\nroots = [{:?}]\n",
        room.path()
    );
    let _agent = master.agent_under("fuzzed", Some(&policy)).await;
    let mut fuzzer = Command::new(tool("schemathesis"));
    fuzzer.arg("run").arg(format!("{}/api/v1/openapi.json", master.url()));
    if let Some(token) = token(&master, caller).await {
        fuzzer.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    fuzzer
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", &examples.to_string(), "--seed", "7"])
        // Some answers take the minute that a caller may ask them to wait.
        .args(["--request-timeout", "75", "--no-color"])
        .current_dir(master.folder.path());
    match caller {
        Caller::Nobody => {
            fuzzer.args(["--include-path", "/api/v1/login", "--include-path", "/api/v1/setup"]);
        }
        Caller::AdminToken | Caller::Role(..) => {
            // Streams that do not end by themselves are for tests of their own; at the doors wrong tries are slowed.
            for path in ["/api/v1/events", "/api/v1/login", "/api/v1/setup"] {
                fuzzer.args(["--exclude-path", path]);
            }
            // It would log itself out, or lock itself out by wrong passwords.
            fuzzer.args(["--exclude-path-regex", "^/api/v1/session(/step-up|/password|/totp)?$"]);
        }
    }
    let output = finished(fuzzer, Vec::new()).await;
    let said = text(&output);
    assert!(output.status.success(), "{}", &said[said.len().saturating_sub(12_000)..]);
    assert!(said.contains("passed"), "it tested nothing: {said}");
    assert!(master.process().exited().is_none());
    assert!(!master.log().contains("panicked"), "a handler panicked");
}
