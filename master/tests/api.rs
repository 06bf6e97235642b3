//! The API of one master in this process, over real sockets: who may call what, and what hostile callers get.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use landline::{
    access::Permission,
    api::routes::{PANEL_CALLS, Permit, ROUTES},
    app::App,
    config::Config,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// One master on free ports, and its admin token.
struct Master {
    app: App,
    admin: String,
    _folder: TempDir,
}

impl Master {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let socket = folder.path().join("api.sock");
        let text = format!(
            "data_dir = {data:?}\n[public]\nlisten = \"127.0.0.1:0\"\ntcp_listen = \"127.0.0.1:0\"\naddress = \"127.0.0.1:7443\"\n\
             [internal]\nlisten = \"127.0.0.1:0\"\nhosts = \"panel.example\"\nunix_socket = {socket:?}\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [tunnel]\nport_range = \"29000-29099\"\n"
        );
        let config = Config::parse(&text, []).unwrap_or_else(|errors| panic!("{errors}")).config;
        let app = App::start(config).await.unwrap();
        let admin = std::fs::read_to_string(data.join("admin.token")).unwrap().trim().to_owned();
        Self { app, admin, _folder: folder }
    }

    fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let request = http.request(method, format!("http://{}{path}", self.app.internal));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, path, token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, &self.admin, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn token(&self, permissions: &[&str], selector: &str) -> (String, String) {
        let made =
            self.post("/api/v1/tokens", json!({ "name": "t", "permissions": permissions, "selector": selector })).await;
        (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
    }

    /// Sends bytes as they are and gives what comes back until the other end closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.app.internal).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(20), socket.read_to_end(&mut answer))
            .await
            .expect("an answer and a close")
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A path of the route with an id that cannot exist.
fn path_of(pattern: &str) -> String {
    let id = "00000000-0000-4000-8000-000000000000";
    pattern.replace("{id}", id).replace("{session}", id)
}

/// Every route × every permission, alone in a token; no token; a wrong one (SECURITY R13).
#[tokio::test(flavor = "multi_thread")]
async fn each_route_takes_its_permission_and_no_other() {
    let master = Master::start().await;
    let mut tokens = Vec::new();
    for permission in Permission::ALL {
        tokens.push((*permission, master.token(&[permission.word()], "").await.1));
    }
    let panel = PANEL_CALLS.iter().flat_map(|call| [format!("/api/{call}"), format!("/api/{call}.php")]);
    let mut routes: Vec<(Method, String, Option<Permission>)> =
        panel.map(|path| (Method::POST, path, Some(Permission::PanelCall))).collect();
    for route in ROUTES.iter().filter(|route| route.path != "/api/v1/events") {
        let needed = match route.permit {
            // The doors of people: no token opens or closes them (tests/people.rs).
            Permit::Anyone if route.method == "POST" => continue,
            Permit::Anyone => None,
            Permit::Token(action) => Some(action.permission()),
            Permit::Session => {
                let (method, path) = (route.method.parse::<Method>().unwrap(), path_of(route.path));
                assert_eq!(master.call(method.clone(), &path, &master.admin, None).await.0, 403, "{method} {path}");
                assert_eq!(master.call(method.clone(), &path, "", None).await.0, 401, "{method} {path}");
                continue;
            }
        };
        routes.push((route.method.parse().unwrap(), path_of(route.path), needed));
    }
    for (method, path, needed) in routes {
        let Some(needed) = needed else {
            let (status, _) = master.call(method.clone(), &path, "", None).await;
            assert_eq!(status, 200, "{path}");
            continue;
        };
        let (status, problem) = master.call(method.clone(), &path, "", None).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (401, Some("unauthorized")), "{method} {path}");
        for (permission, token) in &tokens {
            let (status, problem) = master.call(method.clone(), &path, token, None).await;
            let refused = status == 403 && problem["code"] == "forbidden";
            assert_eq!(refused, *permission != needed, "{method} {path} with {permission:?}: {status} {problem}");
            assert_ne!(status, 401, "{method} {path}");
            assert!(!status.is_server_error(), "{method} {path}: {status}");
        }
    }
    // Once: guesses are slowed.
    assert_eq!(master.call(Method::GET, "/api/v1/agents", "llt_wrong", None).await.0, 401);
    master.app.stop().await;
}

/// What lies outside a token's selector answers as what does not exist (SECURITY R14), and is in no list.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_does_not_cover_does_not_exist_for_it() {
    let master = Master::start().await;
    for (id, site) in [("inside", "here"), ("outside", "there")] {
        master.post("/api/v1/agents", json!({ "id": id, "labels": { "site": site }, "external_id": id.len() })).await;
    }
    let target = json!({ "host": "localhost", "port": 1, "scheme": "tcp" });
    let tunnel = master.post("/api/v1/tunnels", json!({ "agent_id": "outside", "target": target })).await;
    let tunnel = tunnel["id"].as_str().unwrap();
    let all: Vec<_> = Permission::ALL.iter().map(|permission| permission.word()).collect();
    let (_, narrow) = master.token(&all, "site=here").await;
    let unknown_tunnel = "00000000-0000-4000-8000-000000000000";
    for (method, path) in [
        (Method::GET, "/api/v1/agents/ID"),
        (Method::DELETE, "/api/v1/agents/ID"),
        (Method::GET, "/api/v1/agents/ID/timeline"),
        (Method::POST, "/api/v1/agents/ID/secret"),
        (Method::GET, "/api/v1/tunnels/TUNNEL"),
        (Method::DELETE, "/api/v1/tunnels/TUNNEL"),
        (Method::POST, "/api/v1/tunnels/TUNNEL/heartbeat"),
        (Method::POST, "/api/v1/tunnels/TUNNEL/extend"),
        (Method::POST, "/api/tunnel_close?request_id=TUNNEL"),
    ] {
        let hidden = path.replace("ID", "outside").replace("TUNNEL", tunnel);
        let absent = path.replace("ID", "nobody").replace("TUNNEL", unknown_tunnel);
        let hidden = master.call(method.clone(), &hidden, &narrow, None).await;
        let absent = master.call(method.clone(), &absent, &narrow, None).await;
        assert_eq!(hidden.0, 404, "{method} {path}");
        assert_eq!(hidden.0, absent.0, "{method} {path}");
        assert!(hidden.1["code"] == absent.1["code"] && hidden.1["detail"] == absent.1["detail"], "{method} {path}");
    }
    let (_, agents) = master.call(Method::GET, "/api/v1/agents", &narrow, None).await;
    let ids: Vec<_> = agents["items"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["inside"]);
    let (_, tunnels) = master.call(Method::GET, "/api/v1/tunnels", &narrow, None).await;
    assert_eq!(tunnels["items"], json!([]));
    for (path, body) in [
        ("/api/v1/agents", json!({ "id": "new", "labels": { "site": "there" } })),
        ("/api/v1/agents", json!({ "id": "new" })),
    ] {
        assert_eq!(master.call(Method::POST, path, &narrow, Some(body)).await.0, 403, "outside its own labels");
    }
    let escape = json!({ "labels": { "site": "there" } });
    assert_eq!(master.call(Method::PATCH, "/api/v1/agents/inside", &narrow, Some(escape)).await.0, 403);
    let (status, made) = master
        .call(Method::POST, "/api/v1/tokens", &narrow, Some(json!({ "name": "x", "permissions": ["agents:read"] })))
        .await;
    assert_eq!((status.as_u16(), made["selector"].as_str()), (201, Some("site=here")), "never above its creator");
    master.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_does_it_once() {
    let master = Master::start().await;
    let send = async |key: &str, body: Value| {
        let request = master.request(Method::POST, "/api/v1/agents", &master.admin).header("Idempotency-Key", key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let first = send("k1", json!({ "id": "once" })).await;
    assert_eq!(first.0, 201);
    let again = send("k1", json!({ "id": "once" })).await;
    assert_eq!((again.0, &again.1["secret"]), (201, &first.1["secret"]), "the very same answer");
    let other = send("k1", json!({ "id": "other" })).await;
    assert_eq!((other.0, other.1["code"].as_str()), (409, Some("idempotency_key_reused")));
    assert_eq!(send("", json!({ "id": "x" })).await.0, 422);
    // A refused call leaves the key free.
    assert_eq!(send("k2", json!({ "id": "NOT GOOD" })).await.0, 422);
    assert_eq!(send("k2", json!({ "id": "good" })).await.0, 201);
    // The secret is kept as a hash and nowhere else.
    let secret = first.1["secret"].as_str().unwrap().to_owned();
    let database = master._folder.path().join("data");
    master.app.stop().await;
    for entry in std::fs::read_dir(database).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds the secret", entry.path().display());
    }
}

/// SECURITY R15: a revoked token's stream ends within five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_token_ends_its_event_stream() {
    let master = Master::start().await;
    let (id, secret) = master.token(&["events:read"], "").await;
    let mut stream = master.request(Method::GET, "/api/v1/events?cursor=0", &secret).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    master.post("/api/v1/agents", json!({ "id": "seen" })).await;
    let mut text = String::new();
    while !text.contains("agent.added") {
        let piece = timeout(Duration::from_secs(5), stream.chunk()).await.expect("the event arrives").unwrap();
        text.push_str(&String::from_utf8_lossy(&piece.expect("the stream goes on")));
    }
    let revoked = Instant::now();
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(master.call(Method::DELETE, &path, &master.admin, None).await.0, 204);
    let ended = async { while stream.chunk().await.unwrap().is_some() {} };
    timeout(Duration::from_secs(5), ended).await.expect("the stream ends");
    assert!(revoked.elapsed() < Duration::from_secs(5));
    assert_eq!(master.call(Method::GET, "/api/v1/agents", &secret, None).await.0, 401);
    master.app.stop().await;
}

/// A reader that comes back with its cursor misses nothing, also over a restart of the bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_reads_on_where_it_stopped() {
    let master = Master::start().await;
    for id in ["a1", "a2", "a3"] {
        master.post("/api/v1/agents", json!({ "id": id })).await;
    }
    let read = async |cursor: &str, wanted: usize| {
        let path = format!("/api/v1/events?cursor={cursor}");
        let mut stream = master.request(Method::GET, &path, &master.admin).send().await.unwrap();
        let mut text = String::new();
        while text.matches("agent.added").count() < wanted {
            let piece = timeout(Duration::from_secs(5), stream.chunk()).await.expect("in time").unwrap();
            text.push_str(&String::from_utf8_lossy(&piece.expect("the stream goes on")));
        }
        text
    };
    let all = read("0", 3).await;
    let ids: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let rest = read(ids[0], 2).await;
    assert!(!rest.contains("\"a1\"") && rest.contains("\"a2\"") && rest.contains("\"a3\""), "{rest}");
    let (_, timeline) = master.call(Method::GET, "/api/v1/agents/a2/timeline", &master.admin, None).await;
    assert!(timeline["items"].is_array(), "{timeline}");
    master.app.stop().await;
}

/// SECURITY R52, R55, R56: nobody needs to be known for these.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_bounded_before_authentication() {
    let master = Master::start().await;
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for (path, host, status) in [
        ("/healthz", "127.0.0.1", 200),
        ("/healthz", "panel.example:1234", 200),
        ("/healthz", "evil.example", 421),
        ("/api/v1/agents/a%2fb", "localhost", 400),
        ("/api/v1/agents/a;b", "localhost", 400),
        ("/api/v1/../v1/agents", "localhost", 400),
        ("/nothing", "localhost", 404),
    ] {
        let answer = master.raw(get(path, host).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} at {host}: {answer}");
    }
    let post = |length: &str| {
        format!(
            "POST /api/v1/agents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\n{length}\r\nConnection: close\r\n\r\n",
            master.admin
        )
    };
    let mut declared = post("Content-Length: 10000000000").into_bytes();
    declared.resize(declared.len() + 100_000, b' ');
    assert!(master.raw(&declared).await.starts_with("HTTP/1.1 413 "), "ten gigabytes");
    let mut chunked = post("Transfer-Encoding: chunked").into_bytes();
    for _ in 0..3000 {
        chunked.extend_from_slice(b"20\r\n                                \r\n");
    }
    assert!(master.raw(&chunked).await.starts_with("HTTP/1.1 413 "), "endless chunks");
    let anonymous = b"POST /api/v1/agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n";
    let mut socket = TcpStream::connect(master.app.internal).await.unwrap();
    socket.write_all(anonymous).await.unwrap();
    let mut answer = [0; 12];
    timeout(Duration::from_secs(2), socket.read_exact(&mut answer)).await.expect("no body is waited for").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    let mut long = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    long.resize(100_000, b'x');
    long.extend_from_slice(b"\r\n\r\n");
    assert!(master.raw(&long).await.starts_with("HTTP/1.1 431 "), "a header without end");
    master.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_panels_calls_keep_their_shapes() {
    let master = Master::start().await;
    master.post("/api/v1/agents", json!({ "id": "fw", "external_id": 17 })).await;
    let (_, token) = master.token(&["panel:call"], "").await;
    let form = async |call: &str, body: &'static str| {
        let request = master.request(Method::POST, &format!("/api/{call}.php"), &token);
        let response =
            request.header("Content-Type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(form("quickconnect_check", "firewall_id=17").await, (200, json!({ "has_requests": false })));
    let target = json!({ "host": "localhost", "port": 443, "scheme": "https" });
    let tunnel = master.post("/api/v1/tunnels", json!({ "agent_id": "fw", "target": target })).await;
    assert_eq!(form("quickconnect_check", "firewall_id=17").await, (200, json!({ "has_requests": true })));
    let id = tunnel["id"].as_str().unwrap();
    let json =
        async |call: &str, body: Value| master.call(Method::POST, &format!("/api/{call}"), &token, Some(body)).await;
    let status = json!({ "request_id": id, "status": "active", "tunnel_pid": 4711, "tunnel_port": "8443" });
    assert_eq!(json("tunnel_status", status).await, (StatusCode::OK, json!({ "success": true })));
    let path = format!("/api/v1/tunnels/{id}");
    let (_, shown) = master.call(Method::GET, &path, &master.admin, None).await;
    assert_eq!(shown["status"], "pending", "a panel forces no state");
    assert_eq!((&shown["tunnel_pid"], &shown["tunnel_port"]), (&json!(4711), &json!(8443)));
    let beat = json("tunnel_heartbeat", json!({ "request_id": id })).await;
    assert_eq!(beat, (StatusCode::OK, json!({ "keep_alive": true })));
    let closed = json("tunnel_close", json!({ "request_id": id })).await;
    assert_eq!(closed, (StatusCode::OK, json!({ "success": true })));
    let beat = json("tunnel_heartbeat", json!({ "request_id": id })).await;
    assert_eq!(beat, (StatusCode::OK, json!({ "keep_alive": false })));
    for (call, field) in
        [("tunnel_status", "request_id"), ("tunnel_close", "request_id"), ("tunnel_heartbeat", "request_id")]
    {
        let (status, answer) = json(call, json!({ field: "nothing" })).await;
        assert_eq!((status.as_u16(), &answer["success"]), (404, &json!(false)), "{call}");
    }
    assert_eq!(form("quickconnect_check", "firewall_id=18").await.1["success"], false);
    master.app.stop().await;
}

/// The same API on a unix socket that is its owner's alone, and gone with the master.
#[tokio::test(flavor = "multi_thread")]
async fn the_unix_socket_serves_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let master = Master::start().await;
    let path = master._folder.path().join("api.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), socket.read_to_string(&mut answer)).await.expect("in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let Master { app, _folder, .. } = master;
    app.stop().await;
    assert!(!path.exists());
}

/// Commands that were never sent say why.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_sent_is_a_problem() {
    let master = Master::start().await;
    master.post("/api/v1/agents", json!({ "id": "off" })).await;
    let now_s = landline::clock::unix_ms() / 1000;
    let code = async |timestamp: i64| {
        let body = json!({ "id": "1", "type": "GET_STATS", "timestamp": timestamp });
        let path = "/api/v1/agents/off/commands";
        let (status, problem) = master.call(Method::POST, path, &master.admin, Some(body)).await;
        (status.as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(code(now_s).await, (409, "agent_offline".to_owned()));
    let exec = json!({ "argv": ["true"] });
    let (status, problem) = master.call(Method::POST, "/api/v1/agents/off/exec", &master.admin, Some(exec)).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("agent_offline")));
    master.app.stop().await;
}
