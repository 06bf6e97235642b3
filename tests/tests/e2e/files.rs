//! Operations on files of an agent: through the API, as the original panel's commands, and with `landline fs`.

use std::{path::Path, process::Command};

use landline_tests::{agent::Agent, api::Api, binary, liar::now_ms, master::Master};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A master and one agent that opens one folder.
struct World {
    master: Master,
    _agent: Agent,
    folder: TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start().await;
    let policy = format!("[files]\nroots = [{:?}]\n", folder.path());
    let agent = master.agent_under("store", Some(&policy)).await;
    World { master, _agent: agent, folder }
}

impl World {
    fn api(&self) -> Api {
        self.master.api()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn call(&self, operation: &str, body: Value) -> Value {
        self.api().post(&format!("/agents/store/files/{operation}"), body).await
    }

    async fn refused(&self, operation: &str, body: Value) -> (u16, String) {
        self.api().refused(Method::POST, &format!("/agents/store/files/{operation}"), Some(body)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_reached_by_its_word() {
    let world = world().await;
    let path = |name: &str| world.path(name);
    world.call("mkdir", json!({ "path": path("a/b"), "parents": true })).await;
    let written = world.call("write", json!({ "path": path("a/f"), "content": "one\ntwo\n", "mode": "640" })).await;
    assert_eq!((&written["complete"], &written["size"]), (&json!(true), &json!(8)));
    world.call("write", json!({ "path": path("a/bytes"), "content_base64": "AP8=" })).await;
    let read = world.call("read", json!({ "path": path("a/f"), "offset": 4, "length": 3 })).await;
    assert_eq!((&read["content"]["data"], &read["more"], &read["size"]), (&json!("two"), &json!(true), &json!(8)));
    assert_eq!(world.call("read", json!({ "path": path("a/bytes") })).await["content"]["data_base64"], "AP8=");
    assert_eq!(world.call("exists", json!({ "path": path("a/f") })).await["exists"], true);
    assert_eq!(world.call("exists", json!({ "path": path("none") })).await["exists"], false);
    let stat = world.call("stat", json!({ "path": path("a/f") })).await;
    assert_eq!((&stat["entries"][0]["mode"], &stat["entries"][0]["kind"]), (&json!("640"), &json!("file")));
    assert_eq!(world.call("type", json!({ "path": path("a/f") })).await["mime"], "text/plain");
    world.call("touch", json!({ "path": path("a/f"), "modified_ns": 1_000_000_000_000_000_000_i64 })).await;
    world.call("chmod", json!({ "path": path("a/f"), "mode": "600" })).await;
    world.call("chown", json!({ "path": path("a/f"), "user": "0" })).await;
    world.call("symlink", json!({ "path": path("a/link"), "target": "f" })).await;
    assert_eq!(world.call("readlink", json!({ "path": path("a/link") })).await["target"]["name"], "f");
    let sha = world.call("checksum", json!({ "path": path("a/f"), "algorithm": "sha256" })).await;
    assert_eq!((&sha["algorithm"], sha["hash"].as_str().unwrap().len()), (&json!("sha256"), 64));
    world.call("copy", json!({ "path": path("a"), "to": path("copy"), "recursive": true })).await;
    world.call("rename", json!({ "path": path("copy"), "to": path("moved") })).await;
    let found = world.call("search", json!({ "path": path(""), "pattern": "f" })).await;
    assert_eq!(found["entries"].as_array().unwrap().len(), 2);
    let lines = world.call("grep", json!({ "path": path("a"), "pattern": "^tw" })).await;
    assert_eq!((&lines["lines"][0]["name"], &lines["lines"][0]["number"]), (&json!("f"), &json!(2)));
    assert_eq!(world.call("du", json!({ "path": path("a") })).await["files"], 5);
    for (pack, unpack, name) in [("zip", "unzip", "a.zip"), ("tar", "untar", "a.tar"), ("tar", "untar", "a.tgz")] {
        world.call(pack, json!({ "path": path("a"), "to": path(name) })).await;
        let into = path(&format!("{name}.d"));
        world.call(unpack, json!({ "path": path(name), "to": into })).await;
        assert_eq!(std::fs::read(Path::new(&into).join("a/f")).unwrap(), b"one\ntwo\n", "{name}");
    }
    world.call("gzip", json!({ "path": path("a/f"), "to": path("f.gz") })).await;
    world.call("gunzip", json!({ "path": path("f.gz"), "to": path("f") })).await;
    let listed = world.call("list", json!({ "path": path(""), "limit": 2 })).await;
    assert_eq!((&listed["entries"][0]["name"], &listed["more"]), (&json!("a"), &json!(true)));
    world.call("remove", json!({ "path": path("moved"), "recursive": true })).await;
    assert!(!Path::new(&path("moved")).exists());

    assert_eq!(world.refused("nothing", json!({ "path": path("a") })).await, (404, "not_found".into()));
    assert_eq!(world.refused("upload_chunk", json!({ "path": path("x"), "total": 0, "content": "" })).await.0, 404);
    assert_eq!(world.refused("stat", json!({ "path": "/etc/passwd" })).await, (403, "outside_roots".into()));
    assert_eq!(world.refused("mkdir", json!({ "path": path("a") })).await, (409, "file_exists".into()));
    assert_eq!(world.refused("stat", json!({ "path": path("a"), "to": path("b") })).await, (422, "invalid".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_reads_changes_nothing() {
    let world = world().await;
    let permissions = json!({ "name": "reader", "permissions": ["files:read", "agents:read"] });
    let token = world.api().post("/tokens", permissions).await;
    let reader = world.api().with_token(token["secret"].as_str().unwrap_or_else(|| panic!("{token}")));
    reader.post("/agents/store/files/list", json!({ "path": world.path("") })).await;
    let mkdir =
        reader.refused(Method::POST, "/agents/store/files/mkdir", Some(json!({ "path": world.path("x") }))).await;
    assert_eq!(mkdir, (403, "forbidden".into()));
    assert!(!Path::new(&world.path("x")).exists());
    // What changed something stands in the trail, with its outcome.
    world.call("mkdir", json!({ "path": world.path("x") })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_panels_file_actions_answer_in_their_shape() {
    let world = world().await;
    let action = async |action: &str, payload: Value| {
        let id = format!("{action}-{}", uuid::Uuid::new_v4());
        let call =
            json!({ "id": id, "type": "FILE_ACTION", "action": action, "timestamp": now_ms(), "payload": payload });
        let reply = world.api().post("/agents/store/commands", call).await;
        assert_eq!(reply["requestId"], id.as_str());
        reply
    };
    let path = |name: &str| world.path(name);
    let chunk = |offset: u64, text: &str| json!({ "path": path("f"), "offset": offset, "total": 10, "content": text });
    let first = action("upload_chunk", chunk(0, "01234")).await;
    assert_eq!((&first["status"], &first["data"]["offset"]), (&json!("success"), &json!(5)), "{first}");
    let wrong = action("upload_chunk", chunk(3, "3")).await;
    assert_eq!(
        (&wrong["status"], &wrong["code"], &wrong["data"]["offset"]),
        (&json!("error"), &json!("bad_offset"), &json!(5))
    );
    assert_eq!(action("upload_chunk", chunk(5, "56789")).await["data"]["complete"], true);
    assert_eq!(std::fs::read(path("f")).unwrap(), b"0123456789");
    let piece = action("download_chunked", json!({ "path": path("f"), "offset": 8 })).await;
    assert_eq!(piece["data"]["content"]["data"], "89");
    assert_eq!(action("ls", json!({ "path": path("") })).await["data"]["entries"][0]["name"], "f");
    assert_eq!(action("file_type", json!({ "path": path("f") })).await["data"]["mime"], "text/plain");
    assert_eq!(action("delete", json!({ "path": path("f") })).await["status"], "success");
    let gone = action("stat", json!({ "path": path("f") })).await;
    assert_eq!((&gone["status"], &gone["code"]), (&json!("error"), &json!("file_not_found")));
    let stale =
        json!({ "id": "old", "type": "FILE_ACTION", "action": "ls", "timestamp": 5, "payload": { "path": "/" } });
    let refused = world.api().refused(Method::POST, "/agents/store/commands", Some(stale)).await;
    assert_eq!(refused, (409, "stale".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn fs_shows_tables_and_json() {
    let world = world().await;
    std::fs::write(world.folder.path().join("esc\x1b[2J"), "x").unwrap();
    std::fs::write(world.folder.path().join("log"), "needle\n").unwrap();
    let fs = |arguments: &[&str]| {
        let mut command = Command::new(binary("landline"));
        command.env("LANDLINE_URL", world.master.url()).env("LANDLINE_DATA_DIR", world.master.data());
        let output = command.arg("fs").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let remote = |name: &str| format!("store:{}", world.path(name));
    let (code, out, err) = fs(&["ls", &remote("")]);
    assert!(code == 0 && out.contains("log") && out.contains("esc\\u{1b}[2J") && !out.contains('\x1b'), "{out}{err}");
    let (_, out, _) = fs(&["ls", "-o", "json", &remote("")]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len(), 2, "{out}");
    for (arguments, wanted) in [
        (vec!["mkdir".into(), "-p".into(), remote("a/b")], ""),
        (vec!["cat".into(), remote("log")], "needle\n"),
        (vec!["cp".into(), remote("log"), remote("a/log")], ""),
        (vec!["mv".into(), remote("a/log"), remote("a/b/log")], ""),
        (vec!["grep".into(), "NEED".into(), remote(""), "-i".into()], "a/b/log:1:needle\nlog:1:needle\n"),
        (vec!["find".into(), remote(""), "lo?".into()], "a/b/log\nlog\n"),
        (vec!["chmod".into(), "600".into(), remote("log")], ""),
        (vec!["ln".into(), "log".into(), remote("link")], ""),
        (vec!["readlink".into(), remote("link")], "log\n"),
        (vec!["tar".into(), remote("a.tgz"), remote("a")], ""),
        (vec!["untar".into(), remote("a.tgz"), remote("out")], ""),
        (vec!["rm".into(), "-r".into(), remote("a"), remote("out")], ""),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, out, err) = fs(&arguments);
        let mut lines: Vec<&str> = out.split_inclusive('\n').collect();
        lines.sort_unstable();
        assert_eq!((code, lines.concat().as_str()), (0, wanted), "{arguments:?}: {err}");
    }
    let (code, out, _) = fs(&["hash", "--algorithm", "md5", &remote("log")]);
    assert!(code == 0 && out.starts_with("b9a1af44ed52b7a01d1ed5c4b65b81f8") || out.len() > 33, "{out}");
    assert!(fs(&["stat", &remote("log")]).1.contains("600"));
    assert!(fs(&["du", &remote("")]).1.contains("KiB"));
    let (code, _, err) = fs(&["rm", &remote("none")]);
    assert!(code == 1 && err.contains("file_not_found"), "{err}");
    let (code, _, err) = fs(&["rm", "/local"]);
    assert!(code == 64 && err.contains("AGENT:/PATH"), "{err}");
}
