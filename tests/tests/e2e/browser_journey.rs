//! An operator's first hour in a real Chromium, from the one-time link to the replay, with the web pages of two machines
//! beside each other. What each step must show stands in `tests/browser/journey.mjs`.

use std::time::Duration;

use landline_tests::{
    browser::Browser,
    container::Container,
    firewall_site::{FirewallSite, PASSWORD, USER},
    master::Master,
    tools::tool,
};
use serde_json::json;

const STEP: Duration = Duration::from_secs(240);
const UPLOAD: u64 = 50 * 1024 * 1024;
/// A window that was closed ends its tunnel within this time.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_first_hour() {
    // One parent domain for all tunnels, so that cookies could be shared if anything let them.
    let mut master = Master::prepare("gateway.domain = \"gw.test\"\n", "");
    master.hand_out_agents();
    master.run().await;
    let bare = Container::start(&tool("dash").display().to_string(), &["curl"]).await;
    let _agents = (master.agent("fw-1").await, master.agent("fw-2").await);
    let sites = (FirewallSite::start("first firewall").await, FirewallSite::start("second firewall").await);
    let folder = tempfile::tempdir().unwrap();
    let given = json!({
        "url": master.url(),
        "setup": master.setup_link(),
        "rules": "MAP *.gw.test 127.0.0.1",
        "agents": [
            { "id": "fw-1", "port": sites.0.port, "name": "first firewall" },
            { "id": "fw-2", "port": sites.1.port, "name": "second firewall" },
        ],
        "user": USER,
        "password": PASSWORD,
        "folder": folder.path(),
        "enrol": true,
        "actions": ["operator.setup", "agent.enrol", "shell.start", "file.write", "file.read", "tunnel.open", "tunnel.close"],
        "size": UPLOAD,
    });
    let mut browser = Browser::start("journey", &given);
    let asked = browser.until("paste", STEP).await;
    let line = asked.last().and_then(|asked| asked["line"].as_str()).expect("a line").to_owned();
    let line = line.strip_suffix(')').expect("a subshell").to_owned() + " --init none --name pasted)";
    let output = bare.paste(&line);
    assert!(output.status.success(), "{output:?}");
    browser.answer(json!({ "id": "pasted" })).await;
    browser.until("window-closed", STEP).await;
    let closed = landline_tests::wait::eventually(CLOSED_WITHIN, "the tunnel of the closed window is over", || async {
        let tunnels = master.api().get("/tunnels?agent_id=fw-1").await;
        let over = tunnels["items"].as_array()?.iter().find(|tunnel| tunnel["status"] == "disconnected")?;
        Some(over["closed_reason"].clone())
    })
    .await;
    assert_eq!(closed, "window_closed");
    browser.go_on().await;
    browser.done(STEP).await;
}
