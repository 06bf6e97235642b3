//! Files to and from an agent: through the API as a program would call it, and with `landline cp`.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use landline_tests::{
    agent::Agent,
    api::Api,
    copying::{content, copied, parts_in},
    master::Master,
    soak,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

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
        parts_in(self.folder.path())
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

#[tokio::test(flavor = "multi_thread")]
async fn cp_takes_files_both_ways_and_says_what_it_could_not() {
    let world = world().await;
    let desk = tempfile::tempdir().unwrap();
    let here = |name: &str| desk.path().join(name).display().to_string();
    let there = |name: &str| format!("store:{}", world.path(name).display());
    let bytes = content(3_000_000, 3);
    std::fs::write(here("large"), &bytes).unwrap();
    std::fs::write(here("odd\nname"), "small").unwrap();
    std::fs::set_permissions(here("large"), std::fs::Permissions::from_mode(0o4755)).unwrap();

    let (code, out, err) = copied(&world.master, &[&here("large"), &here("odd\nname"), &there("")]).await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("copied 2 files, 2.9 MiB"), "{err}");
    assert!(std::fs::read(world.path("large")).unwrap() == bytes);
    assert_eq!(std::fs::read(world.path("odd\nname")).unwrap(), b"small");
    let (ours, theirs) = (std::fs::metadata(here("large")).unwrap(), std::fs::metadata(world.path("large")).unwrap());
    assert_eq!(theirs.permissions().mode() & 0o7777, 0o755, "without setuid");
    assert_eq!(ours.modified().unwrap(), theirs.modified().unwrap());

    // A folder is found to be one without a slash; another name is taken as it is.
    std::fs::create_dir(world.path("folder")).unwrap();
    assert_eq!(
        copied(&world.master, &["-q", &here("large"), &there("folder")]).await,
        (0, String::new(), String::new())
    );
    assert!(std::fs::read(world.path("folder/large")).unwrap() == bytes);
    let (code, out, _) = copied(&world.master, &["-o", "json", &there("large"), &here("back")]).await;
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &summary["files"], &summary["bytes"]), (0, &1.into(), &3_000_000.into()), "{out}");
    assert!(std::fs::read(here("back")).unwrap() == bytes);
    assert_eq!(std::fs::metadata(here("back")).unwrap().modified().unwrap(), ours.modified().unwrap());

    // What fails is told by name, and the rest goes on.
    let (code, _, err) = copied(&world.master, &[&there("missing"), &there("odd\nname"), &here("")]).await;
    assert_eq!(code, 1);
    assert!(err.contains("missing") && err.contains("file_not_found") && err.contains("1 failed"), "{err}");
    assert_eq!(std::fs::read(here("odd\nname")).unwrap(), b"small");
    for (arguments, wanted) in [
        ([here("large"), here("x")], "one side is on an agent"),
        ([here("large"), "store:relative".into()], "begins with /"),
        ([here("large"), "No Agent:/x".into()], "no agent's name"),
    ] {
        let (code, _, err) = copied(&world.master, &[&arguments[0], &arguments[1]]).await;
        assert!(code == 64 && err.contains(wanted), "{code} {err}");
    }
    assert!(world.parts().is_empty());
    assert!(parts_in(desk.path()).is_empty());
}

/// A folder with folders, links and small files of many sizes; their hash by name.
fn plant(top: &Path, files: usize) {
    for number in 0..files {
        let folder = top.join(format!("d{}/e{}", number % 10, number % 100));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("f{number}")), content(number % 4000, 6)).unwrap();
    }
    std::fs::create_dir(top.join("empty")).unwrap();
    std::os::unix::fs::symlink("d0/e0/f0", top.join("link")).unwrap();
    std::fs::write(top.join("new\nline"), "odd").unwrap();
}

/// Everything below a folder: names, kinds, bytes, modes, times.
fn snapshot(top: &Path) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = std::collections::BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let said = if meta.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if meta.is_symlink() {
                format!("link {}", std::fs::read_link(&path).unwrap().display())
            } else {
                let hash = blake3::hash(&std::fs::read(&path).unwrap());
                format!("{hash} {:o} {}.{}", meta.mode() & 0o777, meta.mtime(), meta.mtime_nsec())
            };
            all.insert(path.strip_prefix(top).unwrap().to_owned(), said);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_goes_both_ways_and_only_what_differs_goes_again() {
    let world = world().await;
    let files = soak::count(400, 20_000);
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("tree");
    std::fs::create_dir(&source).unwrap();
    plant(&source, files);
    let here = |name: &str| desk.path().join(name).display().to_string();
    let there = |name: &str| format!("store:{}", world.path(name).display());

    let (code, _, err) = copied(&world.master, &[&here("tree"), &there("up")]).await;
    assert!(code == 64 && err.contains("-r"), "{err}");
    let (code, _, err) = copied(&world.master, &["-r", &here("tree"), &there("up")]).await;
    assert_eq!(code, 0, "{err}");
    eprintln!("up: {err}");
    assert_eq!(snapshot(&source), snapshot(&world.path("up")));
    let (code, _, err) = copied(&world.master, &["-r", &there("up"), &here("down")]).await;
    assert_eq!(code, 0, "{err}");
    eprintln!("down: {err}");
    assert_eq!(snapshot(&source), snapshot(&desk.path().join("down")));

    // Again: the same copy, only what differs. And with a slash at the end, into a folder.
    std::fs::write(source.join("d1/e1/f1"), "changed").unwrap();
    let differs = async |name: &str| {
        let (code, out, err) = copied(&world.master, &["-r", "-o", "json", &here("tree"), &there(name)]).await;
        let summary: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &summary["files"], &summary["same"]), (0, &1.into(), &files.into()), "{out}{err}");
    };
    differs("up").await;
    assert_eq!(snapshot(&source), snapshot(&world.path("up")));
    std::fs::write(source.join("d1/e1/f1"), "changed again").unwrap();
    std::fs::create_dir(world.path("into")).unwrap();
    std::fs::rename(world.path("up"), world.path("into/tree")).unwrap();
    differs("into/").await;
    assert_eq!(snapshot(&source), snapshot(&world.path("into/tree")));
    assert!(world.parts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_somebody_else_is_filled_only_when_that_is_said() {
    let world = world().await;
    let desk = tempfile::tempdir().unwrap();
    let here = |name: &str| desk.path().join(name).display().to_string();
    let there = |name: &str| format!("store:{}", world.path(name).display());
    for (folder, name) in [(desk.path().join("site"), "index.html"), (world.path("srv"), "database")] {
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(name), name).unwrap();
    }
    std::fs::create_dir(here("other")).unwrap();
    std::fs::write(here("other/notes"), "notes").unwrap();
    for arguments in [[here("site"), there("srv")], [there("srv"), here("other")]] {
        let (code, _, err) = copied(&world.master, &["-r", &arguments[0], &arguments[1]]).await;
        assert!(code == 64 && err.contains("holds other things"), "{code} {err}");
    }
    assert_eq!(snapshot(&world.path("srv")).len() + snapshot(&desk.path().join("other")).len(), 2);
    for arguments in [[here("site/."), there("srv")], [there("srv/."), here("other")]] {
        let (code, _, err) = copied(&world.master, &["-r", &arguments[0], &arguments[1]]).await;
        assert_eq!(code, 0, "{err}");
    }
    let named = |name: &str| snapshot(&desk.path().join("other")).contains_key(Path::new(name));
    assert!(["notes", "database", "index.html"].into_iter().all(named));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_refused_by_name_and_not_waited_for() {
    let world = world().await;
    let desk = tempfile::tempdir().unwrap();
    let pipe = desk.path().join("pi\x1b[2Jpe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let target = format!("store:{}", world.path("x").display());
    let pipe = pipe.display().to_string();
    let arguments = [&*pipe, &target];
    let copying = copied(&world.master, &arguments);
    let (code, _, err) = tokio::time::timeout(Duration::from_secs(60), copying).await.expect("it ends");
    assert!(code == 1 && err.contains("it is a pipe"), "{code} {err}");
    assert!(!err.contains('\x1b'), "{err:?}");
}
