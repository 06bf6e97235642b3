//! Files to and from an agent: through the API as a program would call it, and with `landline cp`.

use std::{os::unix::fs::PermissionsExt, path::Path};

use landline_tests::{agent::Agent, api::Api, master::Master};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes that differ all over, the same for the same seed.
fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A master and one agent that opens one folder.
struct World {
    master: Master,
    agent: Agent,
    folder: TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start().await;
    let policy = format!("[files]\nroots = [{:?}]\n", folder.path());
    let agent = master.agent_under("store", Some(&policy)).await;
    World { master, agent, folder }
}

impl World {
    fn api(&self) -> Api {
        self.master.api()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What stands beside the files: parts that nobody finished.
    fn parts(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| Some(name.to_str()?.to_owned())).filter(|name| name.ends_with(".part")).collect()
    }

    async fn get(&self, path: &Path, headers: &[(&str, &str)]) -> Response {
        let mut request = self.api().request(Method::GET, "/agents/store/files/content");
        request = request.query(&[("path", path.to_str().unwrap())]);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn put(&self, name: &str, query: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, Value) {
        let request = self.api().request(Method::PUT, "/agents/store/files/content");
        let path = self.path(name);
        let response = request.query(&[("path", path.to_str().unwrap())]).query(query).body(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_both_ways_whole_and_in_part() {
    let world = world().await;
    let bytes = content(5_000_000, 1);
    let hash = blake3::hash(&bytes).to_hex();
    let (status, put) = world.put("f", &[("mode", "640"), ("blake3", &hash)], bytes.clone()).await;
    assert_eq!((status, &put["complete"], &put["created"]), (StatusCode::CREATED, &true.into(), &true.into()), "{put}");
    assert_eq!(put["blake3"], hash.as_str());
    assert!(std::fs::read(world.path("f")).unwrap() == bytes);
    assert_eq!(std::fs::metadata(world.path("f")).unwrap().permissions().mode() & 0o7777, 0o640);

    let whole = world.get(&world.path("f"), &[]).await;
    assert_eq!((whole.status(), header(&whole, "content-length")), (StatusCode::OK, "5000000"));
    assert_eq!((header(&whole, "landline-mode"), header(&whole, "landline-size")), ("640", "5000000"));
    let state = header(&whole, "etag").to_owned();
    assert!(whole.bytes().await.unwrap() == bytes);

    let part = world.get(&world.path("f"), &[("range", "bytes=4999990-"), ("if-match", &state)]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&part, "content-range"), "bytes 4999990-4999999/5000000");
    assert!(part.bytes().await.unwrap() == bytes[4_999_990..]);
    let beyond = world.get(&world.path("f"), &[("range", "bytes=5000000-")]).await;
    assert_eq!(header(&beyond, "content-range"), "bytes */5000000");
    assert_eq!(code(beyond).await, (416, "bad_range".into()));

    // Without a hash it is written too, and another state is found out.
    let (status, put) = world.put("f", &[], b"new".to_vec()).await;
    assert_eq!((status, &put["created"]), (StatusCode::OK, &false.into()));
    let changed = world.get(&world.path("f"), &[("if-match", &state)]).await;
    assert_eq!(code(changed).await, (412, "precondition_failed".into()));
    assert!(world.parts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_goes_on_where_it_ended() {
    let world = world().await;
    let bytes = content(1_000_000, 2);
    let hash = blake3::hash(&bytes).to_hex();
    let query = |offset: &'static str| [("size", "1000000"), ("blake3", hash.as_str()), ("offset", offset)];
    let (status, put) = world.put("f", &query("0"), bytes[..300_000].to_vec()).await;
    assert_eq!((status, &put["offset"], &put["complete"]), (StatusCode::ACCEPTED, &300_000.into(), &false.into()));
    let (status, problem) = world.put("f", &query("0"), bytes[..300_000].to_vec()).await;
    assert_eq!(
        (status, &problem["code"], &problem["offset"]),
        (StatusCode::CONFLICT, &"bad_offset".into(), &300_000.into())
    );
    let path = world.path("f");
    let asked = world.api().request(Method::GET, "/agents/store/files/upload");
    let asked = asked.query(&[("path", path.to_str().unwrap()), ("size", "1000000"), ("blake3", &hash)]);
    let held: Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(held["offset"], 300_000);
    let (status, _) = world.put("f", &query("300000"), bytes[300_000..].to_vec()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(std::fs::read(world.path("f")).unwrap() == bytes);
    assert!(world.parts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_is_refused_by_its_own_code() {
    let world = world().await;
    std::fs::create_dir(world.path("folder")).unwrap();
    std::fs::write(world.path("old"), "old").unwrap();
    std::os::unix::fs::symlink("/etc", world.path("out")).unwrap();
    for (path, wanted) in [
        (world.path("missing"), (404, "file_not_found")),
        (world.path("folder"), (409, "not_a_file")),
        (world.path("out/passwd"), (403, "outside_roots")),
        (world.path("../passwd"), (403, "outside_roots")),
        ("/dev/null".into(), (403, "outside_roots")),
        ("relative".into(), (422, "invalid")),
    ] {
        let (status, code) = code(world.get(&path, &[]).await).await;
        assert_eq!((status, code.as_str()), wanted, "{path:?}");
    }
    let wrong = "0".repeat(64);
    let (status, problem) = world.put("old", &[("blake3", &wrong)], b"new".to_vec()).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &"wrong_hash".into()));
    let (status, problem) = world.put("folder", &[], b"new".to_vec()).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &"not_a_file".into()));
    let (status, problem) = world.put("out/x", &[], b"new".to_vec()).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &"outside_roots".into()));
    assert_eq!(std::fs::read(world.path("old")).unwrap(), b"old");
    assert!(world.parts().is_empty());

    let _closed = world.master.agent_under("closed", Some("[exec]\nallow = []\n")).await;
    let refused = world.api().request(Method::GET, "/agents/closed/files/content").query(&[("path", "/etc/hosts")]);
    assert_eq!(code(refused.send().await.unwrap()).await, (403, "policy".into()));
    let _ = &world.agent;
}
