//! An operator's first hour in a real Chromium, from the one-time link to the replay: a bare machine with a network of its
//! own becomes an agent by the line as the page shows it, is worked on, and shows its web page beside another machine's.
//! What each step must show stands in `tests/browser/journey.mjs`.

use std::time::Duration;

use landline_tests::{
    browser::Browser,
    container::{Container, HOSTNAME},
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
    let (bare, here) = Container::start_apart(&tool("dash").display().to_string(), &["curl"]).await;
    // One parent domain for all tunnels, so that cookies could be shared if anything let them.
    let mut master = Master::prepare_at(here, "gateway.domain = \"gw.test\"\n", "");
    master.hand_out_agents();
    master.run().await;
    let _other = master.agent("fw-2").await;
    let sites = (bare.site("first firewall"), FirewallSite::start("second firewall").await);
    assert!(bare.paste("mkdir -m 777 /tmp/dropped").status.success());
    let given = json!({
        "url": master.url(),
        "setup": master.setup_link(),
        "rules": "MAP *.gw.test 127.0.0.1",
        "agents": [
            { "id": HOSTNAME, "port": sites.0.port, "name": "first firewall" },
            { "id": "fw-2", "port": sites.1.port, "name": "second firewall" },
        ],
        "user": USER,
        "password": PASSWORD,
        "folder": "/tmp/dropped",
        "actions": ["operator.setup", "agent.enrol", "shell.start", "file.write", "file.read", "tunnel.open", "tunnel.close"],
        "size": UPLOAD,
    });
    let mut browser = Browser::start("journey", &given);
    let asked = browser.until("paste", STEP).await;
    let line = asked.last().and_then(|asked| asked["line"].as_str()).expect("a line").to_owned();
    let output = bare.paste(&line);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains(&format!("(none); {HOSTNAME} is online in ")), "{output:?}");
    browser.go_on().await;
    browser.until("window-closed", STEP).await;
    let closed = landline_tests::wait::eventually(CLOSED_WITHIN, "the tunnel of the closed window is over", || async {
        let tunnels = master.api().get(&format!("/tunnels?agent_id={HOSTNAME}")).await;
        let over = tunnels["items"].as_array()?.iter().find(|tunnel| tunnel["status"] == "disconnected")?;
        Some(over["closed_reason"].clone())
    })
    .await;
    assert_eq!(closed, "window_closed");
    browser.go_on().await;
    browser.done(STEP).await;
}
