//! People at a real master: the first admin by link and by command line, accounts from the command line, ids that are
//! worth nothing to others, and bodies without end at doors where nobody has to be known.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use landline_tests::{api::Api, binary, master::Master, process::resident, wait::eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// How much a master that still answers well may have grown, MiB.
const GROWN_MIB: u64 = 24;
const PASSWORD: &str = "a few words do well";

/// `landline` against the master, with a password on its standard input.
async fn landline(master: &Master, arguments: &[&str], password: &str) -> Output {
    let mut command = Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data()).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let password = format!("{password}\n");
    tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A command that asks for none has closed it already.
        let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap()
}

async fn succeeds(master: &Master, arguments: &[&str], password: &str) -> String {
    let output = landline(master, arguments, password).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    out.into_owned()
}

async fn log_in(master: &Master, name: &str, password: &str) -> (u16, Value) {
    let body = json!({ "name": name, "password": password });
    let response = reqwest::Client::new().post(format!("{}/api/v1/login", master.url())).json(&body).send().await;
    let response = response.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The one-time link that `serve` printed at its last start.
fn link(master: &Master) -> Option<String> {
    let log = master.log();
    let last = log.rsplit("the master is ready").next().unwrap_or_default();
    last.split_whitespace().find(|word| word.contains("/setup#")).map(str::to_owned)
}

/// SECURITY R18.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_comes_by_the_link_and_no_second_one() {
    let mut master = Master::start().await;
    let first = eventually(Duration::from_secs(5), "the link", || async { link(&master) }).await;
    assert!(first.starts_with(&format!("{}/setup#", master.url())), "{first}");
    master.terminate(Duration::from_secs(15)).await;
    master.run().await;
    let another = || async { link(&master).filter(|link| *link != first) };
    let second = eventually(Duration::from_secs(5), "a link of its own for each start", another).await;
    let url = format!("{}/api/v1/setup", master.url());
    let set_up = async |link: &str| {
        let token = link.split_once('#').unwrap().1;
        let body = json!({ "token": token, "name": "root", "password": PASSWORD });
        reqwest::Client::new().post(&url).json(&body).send().await.unwrap()
    };
    assert_eq!(set_up(&first).await.status(), 401);
    let made = set_up(&second).await;
    assert_eq!(made.status(), 201);
    let cookie = made.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["__Host-landline=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert_eq!(set_up(&second).await.status(), 404);
    // The session outlives the master; the link does not come back.
    master.kill();
    master.run().await;
    let cookie = cookie.split(';').next().unwrap();
    let session = reqwest::Client::new().get(format!("{}/api/v1/session", master.url())).header("Cookie", cookie);
    let session: Value = session.send().await.unwrap().json().await.unwrap();
    assert_eq!(session["operator"]["name"], "root", "{session}");
    assert_eq!(link(&master), None);
    assert_eq!(set_up(&second).await.status(), 404);
}

/// From the first admin to their removal, as an operator on the master's host does it.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_from_the_command_line() {
    let master = Master::start().await;
    let short = landline(&master, &["admin", "create", "ada"], "short").await;
    let told = String::from_utf8_lossy(&short.stderr).into_owned();
    assert!(!short.status.success() && told.contains("at least 10"), "{told}");
    let none = landline(&master, &["admin", "create", "ada"], "").await;
    assert_eq!(none.status.code(), Some(64), "{}", String::from_utf8_lossy(&none.stderr));
    let made = succeeds(&master, &["admin", "create", "Ada"], PASSWORD).await;
    assert!(made.contains("ada") && made.contains("admin"), "{made}");
    assert_eq!(log_in(&master, "ada", PASSWORD).await.0, 200);

    succeeds(&master, &["operators", "add", "bob", "--role", "operator", "--selector", "site=home"], PASSWORD).await;
    let (_, session) = log_in(&master, "bob", PASSWORD).await;
    assert_eq!(
        (&session["operator"]["role"], &session["operator"]["selector"]),
        (&json!("operator"), &json!("site=home"))
    );
    let sessions = succeeds(&master, &["operators", "sessions", "bob", "-o", "json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&sessions).unwrap().as_array().unwrap().len(), 1, "{sessions}");
    succeeds(&master, &["operators", "sessions", "bob", "--end", "all"], "").await;
    let sessions = succeeds(&master, &["operators", "sessions", "bob", "-o", "json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&sessions).unwrap(), json!([]));
    let role = succeeds(&master, &["operators", "role", "bob", "viewer", "--selector", ""], "").await;
    assert!(role.contains("viewer") && !role.contains("site=home"), "{role}");
    succeeds(&master, &["operators", "reset-password", "bob"], "another few words").await;
    assert_eq!(log_in(&master, "bob", PASSWORD).await.0, 401);
    assert_eq!(log_in(&master, "bob", "another few words").await.0, 200);
    succeeds(&master, &["operators", "reset-totp", "bob"], "").await;
    let last = landline(&master, &["operators", "rm", "ada"], "").await;
    let told = String::from_utf8_lossy(&last.stderr).into_owned();
    assert!(!last.status.success() && told.contains("last admin"), "{told}");
    succeeds(&master, &["operators", "rm", "bob"], "").await;
    let left = succeeds(&master, &["operators", "ls"], "").await;
    assert!(left.contains("ada") && !left.contains("bob"), "{left}");
    let unknown = landline(&master, &["operators", "rm", "bob"], "").await;
    assert!(!unknown.status.success());
}

/// SECURITY R14: whoever knows every id of somebody else is told what is told of ids that do not exist.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_worth_nothing_to_others() {
    let master = Master::start().await;
    let _agent = master.agent("of-a").await;
    let admin = master.api();
    admin.call(Method::PATCH, "/agents/of-a", Some(json!({ "labels": { "site": "a" } }))).await;
    let words = |role: &str| -> Vec<&str> {
        match role {
            "operator" => {
                "agents:read commands:run exec:run shells:open shells:watch files:read files:write \
                tunnels:read tunnels:write events:read tokens:read tokens:write"
            }
            _ => {
                "agents:read agents:write commands:run exec:run shells:open shells:watch files:read files:write \
                tunnels:read tunnels:write events:read tokens:read tokens:write audit:read operators:read \
                operators:write enrol:read enrol:write panel:call"
            }
        }
        .split_whitespace()
        .collect()
    };
    let token = async |role: &str, selector: &str| -> Api {
        let body = json!({ "name": "x", "permissions": words(role), "selector": selector });
        admin.with_token(admin.post("/tokens", body).await["secret"].as_str().unwrap())
    };
    let a = token("operator", "site=a").await;
    let tunnel = a.open_tunnel("of-a", 1, "tcp").await["id"].as_str().unwrap().to_owned();
    let shell =
        a.post("/agents/of-a/shells", json!({ "cols": 80, "rows": 24 })).await["id"].as_str().unwrap().to_owned();
    let exec = a.request(Method::POST, "/agents/of-a/exec").json(&json!({ "argv": ["true"] })).send().await.unwrap();
    let exec = exec.text().await.unwrap();
    let exec: Value = serde_json::from_str(exec.lines().next().unwrap()).unwrap();
    let exec = exec["exec_id"].as_str().unwrap().to_owned();

    const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";
    let target = json!({ "host": "127.0.0.1", "port": 1, "scheme": "tcp" });
    for b in [token("operator", "site=b").await, token("admin", "site=b").await] {
        let mut compared = 0;
        for route in landline::api::routes::ROUTES {
            let Some(path) = route.path.strip_prefix("/api/v1").filter(|path| path.contains('{')) else { continue };
            let (known, unknown) = match path.split('/').nth(1).unwrap() {
                "agents" => ("of-a", "nobody"),
                "tunnels" => (tunnel.as_str(), UNKNOWN),
                "shells" => (shell.as_str(), UNKNOWN),
                "execs" => (exec.as_str(), UNKNOWN),
                _ => continue,
            };
            let method: Method = route.method.parse().unwrap();
            let body = match path {
                "/agents/{id}/commands" => Some(json!({ "id": UNKNOWN, "type": "GET_STATS" })),
                "/agents/{id}/shells" => Some(json!({ "cols": 80, "rows": 24 })),
                "/agents/{id}/exec" => Some(json!({ "argv": ["true"] })),
                "/agents/{id}/files/{operation}" => Some(json!({ "path": "/" })),
                _ if matches!(route.method, "POST" | "PATCH") => Some(json!({})),
                _ => None,
            };
            let call = async |id: &str| {
                let path = path.replace("{id}", id).replace("{operation}", "list");
                b.call(method.clone(), &path, body.clone()).await
            };
            let ((hidden, told), (absent, said)) = (call(known).await, call(unknown).await);
            assert_eq!(
                (hidden, &told["code"], &told["detail"]),
                (absent, &said["code"], &said["detail"]),
                "{method} {path}"
            );
            assert!(!hidden.is_success(), "{method} {path}: {hidden}");
            compared += 1;
        }
        assert!(compared >= 20, "only {compared} routes were compared");
        let body = |id: &str| Some(json!({ "agent_id": id, "target": target.clone() }));
        let hidden = b.call(Method::POST, "/tunnels", body("of-a")).await;
        let absent = b.call(Method::POST, "/tunnels", body("nobody")).await;
        assert_eq!((hidden.0, &hidden.1["detail"]), (absent.0, &absent.1["detail"]));
    }
    assert_eq!(admin.agent("of-a").await["presence"], "online", "nothing was done to it");
    assert_eq!(admin.get(&format!("/shells/{shell}")).await["ended_at"], Value::Null);
}

/// What came of sending without end.
struct Sent {
    bytes: usize,
    took: Duration,
    answer: String,
}

/// Sends `piece` again and again, so fast or so slowly, until it is cut off.
async fn send_without_end(port: u16, head: String, piece: &'static [u8], pause: Option<Duration>) -> Sent {
    const MOST: usize = 10 << 30;
    let begun = Instant::now();
    let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    to.write_all(head.as_bytes()).await.unwrap();
    let sending = async {
        let mut bytes = 0;
        while bytes < MOST && to.write_all(piece).await.is_ok() {
            bytes += piece.len();
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        bytes
    };
    let mut answer = Vec::new();
    let receiving = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    let (bytes, ()) =
        timeout(Duration::from_secs(60), async { tokio::join!(sending, receiving) }).await.expect("it is cut off");
    Sent { bytes, took: begun.elapsed(), answer: String::from_utf8_lossy(&answer).into_owned() }
}

/// SECURITY R55: ten gigabytes, endless chunks and one byte a second, at every door, by somebody whom nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn alone_bodies_without_end_cost_nothing() {
    static CHUNK: [u8; 6 + 65_536 + 2] = {
        let mut chunk = [b' '; 6 + 65_536 + 2];
        let head = *b"10000\r";
        let mut at = 0;
        while at < head.len() {
            chunk[at] = head[at];
            at += 1;
        }
        chunk[6] = b'\n';
        chunk[6 + 65_536] = b'\r';
        chunk[6 + 65_536 + 1] = b'\n';
        chunk
    };
    let mut master = Master::start().await;
    let (port, pid) = (master.internal_port, master.process().pid());
    let head = |path: &str, length: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n")
    };
    let doors = ["/api/v1/login", "/api/v1/setup", "/api/v1/agents", "/api/v1/agents/x/files/content?path=/x", "/x"];
    // Once, so that what is allocated for good is there.
    send_without_end(port, head(doors[0], "Transfer-Encoding: chunked"), &CHUNK, None).await;
    let before = resident(pid);
    let mut work = JoinSet::new();
    for path in doors {
        for length in ["Transfer-Encoding: chunked", "Content-Length: 10737418240"] {
            for _ in 0..8 {
                work.spawn(send_without_end(port, head(path, length), &CHUNK, None));
            }
        }
    }
    let mut highest = before;
    while let Some(sent) = work.join_next().await {
        let sent = sent.unwrap();
        highest = highest.max(resident(pid));
        assert!(sent.bytes < 64 << 20, "{} bytes were taken: {}", sent.bytes, sent.answer);
    }
    for path in doors {
        for _ in 0..40 {
            let pause = Some(Duration::from_secs(1));
            work.spawn(send_without_end(port, head(path, "Content-Length: 4000"), b" ", pause));
        }
    }
    let slow = head("/api/v1/login", "X: y");
    let slow = slow.trim_end().to_owned();
    work.spawn(send_without_end(port, slow, b"a", Some(Duration::from_secs(1))));
    while let Some(sent) = work.join_next().await {
        let sent = sent.unwrap();
        highest = highest.max(resident(pid));
        assert!(sent.took < Duration::from_secs(45), "{:?}: {}", sent.took, sent.answer);
    }
    let grown = (highest.saturating_sub(before)) >> 20;
    println!("resident {} MiB before, {grown} MiB more at most", before >> 20);
    assert!(grown <= GROWN_MIB, "grown by {grown} MiB");
    assert_eq!(log_in(&master, "nobody", PASSWORD).await.0, 401, "it still answers");
}

/// SECURITY R56: one reading of every request, or none.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_readings_are_refused() {
    let master = Master::start().await;
    let raw = async |request: String| {
        let mut socket = TcpStream::connect(("127.0.0.1", master.internal_port)).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(20), socket.read_to_end(&mut answer))
            .await
            .expect("an answer and a close")
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for path in [
        "/healthz;x",
        "/healthz/..;/healthz",
        "/api/v1/agents/a%2Fb",
        "/api/v1/agents/a%2fb",
        "/api/v1/agents/..%2f",
        "/api/v1/agents/%2e%2e/tokens",
        "/api/v1/./agents",
        "/api/v1//agents",
        "//api/v1/agents",
        "/api/v1/agents/a%5cb",
        "/api/v1/agents/a\\b",
        "/api/v1/agents/a%00",
        "/api/v1/agents/%2E",
        "/api/v1/agents/;/../x",
    ] {
        let answer = raw(get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    for path in ["/HEALTHZ", "/healthz/", "/healthz%20", "/api/v1/login/", "/API/v1/login", "/api/v1/%6cogin/x"] {
        assert!(raw(get(path)).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let post = |headers: &str| {
        format!(
            "POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n\
             Connection: close\r\n\r\n{{}}"
        )
    };
    for headers in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: +2",
        "Content-Length: -1",
        "Content-Length: 2x",
        "Transfer-Encoding: chunked, identity",
        "Content-Length : 2",
        "Content-Length: 2\r\nHost: evil",
    ] {
        let answer = raw(post(headers)).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "400" | "421"), "{headers}: {answer}");
    }
}
