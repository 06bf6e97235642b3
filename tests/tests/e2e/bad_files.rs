//! Files that are not as one would wish: odd names, paths that lead out, sources that change meanwhile, owners who forbid.
//! Each is done exactly or refused by its own code, through the API and through the command line.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use landline_tests::{
    agent::Agent,
    binary,
    copying::{content, cp, parts_in},
    link::Shape,
    master::Master,
    wait::until,
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Names that programs trip over; each stands for itself and nothing else.
const NAMES: [&[u8]; 16] = [
    b"new\nline",
    b"esc\x1b[2J\x1b]0;title\x07",
    b"tab\tand\rreturn",
    b"no utf-8 \xff\xfe",
    b"half \xc3",
    b" ",
    b"-rf",
    b"--",
    b"*",
    b"$(reboot)`reboot`",
    b"quote'\"\\",
    b"%2e%2e%2f",
    b"..a",
    b"a:b?c#d&e=f+g",
    "gr\u{fc}n \u{202e}txt.exe".as_bytes(),
    b"~",
];

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
    fn path(&self, name: &[u8]) -> PathBuf {
        self.folder.path().join(OsStr::from_bytes(name))
    }

    fn encoded(&self, name: &[u8]) -> String {
        STANDARD.encode(self.path(name).as_os_str().as_bytes())
    }

    fn remote(&self, name: &[u8]) -> OsString {
        OsString::from_vec([b"store:", self.path(name).as_os_str().as_bytes()].concat())
    }

    async fn call(&self, operation: &str, body: Value) -> Value {
        self.master.api().post(&format!("/agents/store/files/{operation}"), body).await
    }

    async fn landline(&self, arguments: Vec<OsString>) -> Output {
        let mut command = Command::new(binary("landline"));
        command.env("LANDLINE_URL", self.master.url()).env("LANDLINE_DATA_DIR", self.master.data()).args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn done(&self, arguments: Vec<OsString>) -> Output {
        let output = self.landline(arguments.clone()).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

fn shown_safely(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains(&0x1b) && !text.contains(&0x07), "{:?}", String::from_utf8_lossy(text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_names_through_the_api_and_the_command_line() {
    let world = world().await;
    for name in NAMES {
        let at = |name: &[u8]| json!({ "path_base64": world.encoded(name) });
        let with = |name: &[u8], key: &str, value: Value| {
            let mut body = at(name);
            body[key] = value;
            body
        };
        world.call("write", with(name, "content", json!("odd"))).await;
        assert_eq!(std::fs::read(world.path(name)).unwrap(), b"odd", "{name:?}");
        assert_eq!(world.call("read", at(name)).await["content"]["data"], "odd");
        let listed = world.call("list", json!({ "path": world.folder.path() })).await;
        let entry = &listed["entries"][0];
        let told = match entry["name_base64"].as_str() {
            Some(encoded) => STANDARD.decode(encoded).unwrap(),
            None => entry["name"].as_str().unwrap().as_bytes().to_vec(),
        };
        assert_eq!(told, name, "{entry}");
        world.call("copy", with(name, "to_base64", json!(world.encoded(b"other")))).await;
        world.call("remove", at(name)).await;
        world.call("rename", with(b"other", "to_base64", json!(world.encoded(name)))).await;
        // The same by command line, through a terminal that must stay whole.
        let down = tempfile::tempdir().unwrap();
        let here = down.path().join(OsStr::from_bytes(name));
        world.done(vec!["cp".into(), world.remote(name), here.clone().into()]).await;
        assert_eq!(std::fs::read(&here).unwrap(), b"odd", "{name:?}");
        shown_safely(&world.done(vec!["fs".into(), "ls".into(), world.remote(b"")]).await);
        shown_safely(&world.done(vec!["fs".into(), "stat".into(), world.remote(name)]).await);
        world.done(vec!["fs".into(), "rm".into(), world.remote(name)]).await;
        shown_safely(&world.landline(vec!["fs".into(), "rm".into(), world.remote(name)]).await);
        world.done(vec!["cp".into(), here.into(), world.remote(b"")]).await;
        assert_eq!(std::fs::read(world.path(name)).unwrap(), b"odd", "{name:?}");
        std::fs::remove_file(world.path(name)).unwrap();
    }
    let long = json!({ "path": world.path(&[b'x'; 256]), "content": "x" });
    let refused = world.master.api().refused(Method::POST, "/agents/store/files/write", Some(long)).await;
    assert_eq!(refused, (422, "agent_refused".into()));
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_leads_out_of_the_roots() {
    let world = world().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let secret = outside.path().join("secret");
    let top = world.folder.path().display().to_string();
    let name = outside.path().file_name().unwrap().to_str().unwrap().to_owned();
    std::os::unix::fs::symlink(outside.path(), world.path(b"link")).unwrap();
    std::os::unix::fs::symlink(format!("../{name}/secret"), world.path(b"file")).unwrap();
    std::os::unix::fs::symlink("link/secret", world.path(b"twice")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", world.path(b"magic")).unwrap();
    std::fs::create_dir(world.path(b"d")).unwrap();
    let spellings = [
        secret.display().to_string(),
        format!("{top}/../{name}/secret"),
        format!("{top}/d/../../{name}/secret"),
        format!("{top}/./d/.././../{name}/./secret"),
        format!("{top}//..//{name}//secret"),
        format!("{top}/link/secret"),
        format!("{top}/file"),
        format!("{top}/twice"),
        format!("{top}/magic{}", secret.display()),
        format!("/proc/self/root{}", secret.display()),
        format!("/proc/self/cwd/../../..{}", secret.display()),
        format!("/dev/fd/../../..{}", secret.display()),
    ];
    let api = world.master.api();
    for path in &spellings {
        let get = api.request(Method::GET, "/agents/store/files/content").query(&[("path", path)]);
        let put = api.request(Method::PUT, "/agents/store/files/content").query(&[("path", path)]).body("new");
        for request in [get, put] {
            let response = request.send().await.unwrap();
            let (status, problem): (_, Value) = (response.status().as_u16(), response.json().await.unwrap());
            assert_eq!((status, &problem["code"]), (403, &json!("outside_roots")), "{path}: {problem}");
            assert!(!problem.to_string().contains("secret\""), "{problem}");
        }
        for (operation, more) in [
            ("read", json!({})),
            ("write", json!({ "content": "new" })),
            ("checksum", json!({})),
            ("grep", json!({ "pattern": "s" })),
            ("chmod", json!({ "mode": "777" })),
            ("touch", json!({})),
            ("copy", json!({ "to": format!("{top}/d/got") })),
            ("tar", json!({ "to": format!("{top}/d/got") })),
            ("gzip", json!({ "to": format!("{top}/d/got") })),
        ] {
            let mut body = more;
            body["path"] = json!(path);
            let refused = api.refused(Method::POST, &format!("/agents/store/files/{operation}"), Some(body)).await;
            assert_eq!(refused, (403, "outside_roots".into()), "{operation} {path}");
        }
    }
    for (path, code) in [("etc/passwd", "invalid"), ("", "invalid"), ("/a\0b", "invalid")] {
        let refused = api.refused(Method::POST, "/agents/store/files/read", Some(json!({ "path": path }))).await;
        assert_eq!(refused, (422, code.into()), "{path:?}");
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(world.path(b"d")).unwrap().count(), 0);
}

/// A source that is written to while it is on its way is told, and the old file stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_changes_on_its_way_is_never_taken_for_the_file() {
    /// More than all windows on the way hold: it is still being read when it is on its way.
    const SIZE: usize = 48_000_000;
    let (master, here, there) = (Master::start().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_agent, link) = master.agent_behind("far", 8).await;
    for (up, folder) in [(true, &here), (false, &there)] {
        let source = folder.path().join("source");
        std::fs::write(&source, content(SIZE, 1)).unwrap();
        let destination = if up { there.path() } else { here.path() }.join("old");
        std::fs::write(&destination, "old").unwrap();
        let (local, remote) = if up { (&source, &destination) } else { (&destination, &source) };
        let (local, remote) = (local.display().to_string(), format!("far:{}", remote.display()));
        let arguments = if up { ["-q", &local, &remote] } else { ["-q", &remote, &local] };
        link.shape(Shape { rate: Some(8_000_000), ..Shape::default() });
        let running = cp(&master, &arguments).spawn().unwrap();
        let arriving = destination.parent().unwrap().to_owned();
        until(Duration::from_secs(30), "the file is on its way", || !parts_in(&arriving).is_empty()).await;
        // Written to again and again, so that no second attempt finds it at rest.
        let pid = running.id();
        let waiting = tokio::task::spawn_blocking(move || running.wait_with_output().unwrap());
        let mut turn = 0_u64;
        while !waiting.is_finished() {
            let mut file = std::fs::OpenOptions::new().append(true).open(&source).unwrap();
            file.write_all(&turn.to_be_bytes()).unwrap();
            turn += 1;
            // The pace of the writer.
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(turn < 3_000, "process {pid} is still at it");
            link.shape(Shape::default());
        }
        let output = waiting.await.unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if up { 0 } else { 1 }), "{err}");
        if up {
            // What grows is sent as far as it was when it was looked at: that state, whole.
            assert!(std::fs::read(&destination).unwrap() == content(SIZE, 1), "the state it was hashed in");
        } else {
            assert!(err.contains("source_changed"), "{err}");
            assert_eq!(std::fs::read(&destination).unwrap(), b"old");
        }
    }
    // Overwritten in the middle, it is no state of the file any more.
    let (source, target) = (here.path().join("source"), there.path().join("old"));
    std::fs::write(&source, content(SIZE, 2)).unwrap();
    std::fs::write(&target, "old").unwrap();
    link.shape(Shape { rate: Some(8_000_000), ..Shape::default() });
    let arguments = ["-q", &source.display().to_string(), &format!("far:{}", target.display())];
    let running = cp(&master, &arguments).spawn().unwrap();
    until(Duration::from_secs(30), "the file is on its way", || !parts_in(there.path()).is_empty()).await;
    let file = std::fs::OpenOptions::new().write(true).open(&source).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 47_990_000).unwrap();
    link.shape(Shape::default());
    let output = tokio::task::spawn_blocking(move || running.wait_with_output().unwrap()).await.unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("wrong_hash"), "{err}");
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    assert!(parts_in(there.path()).is_empty());
}

/// What the owner did not allow is refused as that, each thing by itself, and nothing of it happens.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_forbids_is_obeyed_and_named() {
    let master = Master::start().await;
    let _agent = master.agent_under("closed", Some("[forward]\ntargets = [\"localhost:*\"]\n")).await;
    let api = master.api();
    let mark = tempfile::tempdir().unwrap();
    let path = mark.path().join("made").display().to_string();
    let touch = format!("touch {path}");
    for (call, body) in [
        ("shells", json!({ "cols": 80, "rows": 24, "shell": touch })),
        ("exec", json!({ "shell": touch })),
        ("exec", json!({ "argv": ["touch", path] })),
        ("files/write", json!({ "path": path, "content": "x" })),
        ("files/mkdir", json!({ "path": path })),
        ("files/list", json!({ "path": "/" })),
        ("files/exists", json!({ "path": "/etc/passwd" })),
    ] {
        let refused = api.refused(Method::POST, &format!("/agents/closed/{call}"), Some(body)).await;
        assert_eq!(refused, (403, "policy".into()), "{call}");
    }
    for (method, what) in [(Method::GET, "/etc/passwd"), (Method::PUT, path.as_str())] {
        let request = api.request(method, "/agents/closed/files/content").query(&[("path", what)]).body("x");
        let problem: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(problem["code"], "policy", "{problem}");
    }
    assert!(!Path::new(&path).exists());
    assert_eq!(std::fs::read_dir(mark.path()).unwrap().count(), 0);
}
