//! `dashboard.host`: the dashboard on the public port, by a session alone (SECURITY R19).

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use landline_tests::{master::Master, wait::eventually};
use serde_json::{Value, json};

const HOST: &str = "fleet.test";
const PASSWORD: &str = "a few words do well";

/// What came back, header and body together.
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{}", self.text))
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text.rsplit("\r\n\r\n").next().unwrap()).unwrap()
    }
}

/// curl at the public port, as `host`. A WebSocket that was taken is left after a second.
fn curl(master: &Master, host: &str, path: &str, arguments: &[&str]) -> Answer {
    let port = master.public_port;
    let mut command = Command::new("curl");
    command.args(["-k", "-sS", "-i", "--http1.1", "--max-time", if path.ends_with("/live") { "1" } else { "20" }]);
    command.arg("--resolve").arg(format!("{host}:{port}:127.0.0.1")).args(arguments);
    let output = command.arg(format!("https://{host}:{port}{path}")).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("{path}: {text}")), text }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_port_serves_the_dashboard_to_sessions_alone() {
    let mut master = Master::prepare("", "");
    master.set("LANDLINE_DASHBOARD_HOST", HOST);
    master.run().await;
    let link = eventually(Duration::from_secs(5), "the link", || async { master.setup_link() }).await;
    let set_up = json!({ "token": link.split_once('#').unwrap().1, "name": "root", "password": PASSWORD }).to_string();
    let own = format!("Origin: https://{HOST}:{}", master.public_port);
    let content = "Content-Type: application/json";
    let ask = |path: &str, arguments: &[&str]| curl(&master, HOST, path, arguments);

    // What is of the inside alone does not exist here, the first admin's link least of all.
    for path in ["/api/v1/setup", "/api/register_tunnel_agent", "/readyz", "/metrics", "/api/v1/openapi.json"] {
        let answer = ask(path, &["-H", &own, "-H", content, "-d", &set_up]);
        assert!([404, 405].contains(&answer.status), "{path} {}", answer.text);
    }
    let inside = reqwest::Client::new().post(format!("{}/api/v1/setup", master.url()));
    let inside = inside.header("Content-Type", "application/json").body(set_up).send().await;
    assert_eq!(inside.unwrap().status(), 201);

    // The page itself, what machines install from under the same name, and nothing under another.
    assert_eq!(ask("/", &[]).status, 200);
    assert!(ask("/install.sh", &[]).text.contains("#!/bin/sh"));
    for host in ["127.0.0.1", "other.test"] {
        let answer = curl(&master, host, "/api/v1/session", &[]);
        assert!([404, 421].contains(&answer.status), "{host} {}", answer.text);
    }

    // A token is nobody here; a login is somebody, on this very page alone.
    let token = std::fs::read_to_string(master.data().join("admin.token")).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    assert_eq!(ask("/api/v1/agents", &["-H", &bearer]).status, 401);
    let login = json!({ "name": "root", "password": PASSWORD }).to_string();
    let logged_in = ask("/api/v1/login", &["-H", &own, "-H", content, "-d", &login]);
    assert_eq!(logged_in.status, 200, "{}", logged_in.text);
    let cookie = format!("Cookie: {}", logged_in.header("set-cookie").split(';').next().unwrap());
    let csrf = format!("X-CSRF-Token: {}", logged_in.json()["csrf"].as_str().unwrap());
    assert_eq!(ask("/api/v1/agents", &["-H", &cookie]).status, 200);
    let foreign = ["Origin: https://evil.test".to_owned(), own.replace("https", "http")];
    let add = |origin: &str| {
        let body = r#"{"id":"home-1"}"#;
        ask("/api/v1/agents", &["-H", &cookie, "-H", &csrf, "-H", content, "-H", origin, "-d", body]).status
    };
    assert_eq!(foreign.each_ref().map(|origin| add(origin)), [403, 403]);
    assert_eq!(add(&own), 201);

    // The live socket stands on it too.
    let live = |origin: &str| {
        let key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
        let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"];
        ask("/api/v1/live", &[&upgrade[..], &["-H", key, "-H", &cookie, "-H", origin]].concat()).status
    };
    assert_eq!(foreign.each_ref().map(|origin| live(origin)), [403, 403]);
    assert_eq!(live(&own), 101);
}
