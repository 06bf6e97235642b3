//! Disks that are full and limits that are used up: each write that finds no room fails by its own code, the old file is as
//! it was, and nothing of the new one is left (SECURITY R50, R61).

use std::{os::unix::fs::DirBuilderExt, path::PathBuf, time::Duration};

use landline_tests::{
    agent::{ALLOW_ALL, Agent},
    api::Api,
    binary,
    confined::{Prefix, command, seen_by, small_disk, small_files},
    copying::{content, copied, parts_in},
    master::Master,
    terminal::{Terminal, open},
    wait::eventually,
};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// An agent that is confined, and a folder that it may write to.
struct World {
    master: Master,
    _agent: Agent,
    folder: tempfile::TempDir,
    /// The folder as the agent has it.
    seen: PathBuf,
}

async fn world(prefix: impl FnOnce(&std::path::Path) -> Prefix) -> World {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let mut agent = Agent::new(&master.add("store").await, Some(ALLOW_ALL));
    agent.confine(prefix(folder.path()));
    agent.start();
    master.api().online("store", Duration::from_secs(10)).await;
    let seen = seen_by(agent.process().pid(), folder.path());
    std::fs::write(seen.join("old"), "old").unwrap();
    World { master, _agent: agent, folder, seen }
}

impl World {
    fn api(&self) -> Api {
        self.master.api()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> (u16, Value) {
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let request = self.api().request(Method::PUT, "/agents/store/files/content");
        let request = request.query(&[("path", self.path(name)), ("blake3", hash)]);
        let response = request.body(bytes).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn refused(&self, operation: &str, body: Value) -> (u16, String) {
        self.api().refused(Method::POST, &format!("/agents/store/files/{operation}"), Some(body)).await
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.seen).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn no_space() -> (u16, String) {
    (507, "no_space".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_old_file_stays_and_nothing_of_the_new() {
    let world = world(|folder| small_disk(folder, 4 * MIB as u64)).await;
    let (status, problem) = world.put("old", content(8 * MIB, 1)).await;
    assert_eq!((status, &problem["code"]), (507, &json!("no_space")), "{problem}");
    let desk = tempfile::tempdir().unwrap();
    let large = desk.path().join("large");
    std::fs::write(&large, content(8 * MIB, 1)).unwrap();
    let to = format!("store:{}", world.path("old"));
    let (code, _, err) = copied(&world.master, &[&large.display().to_string(), &to]).await;
    assert!(code == 1 && err.contains("no_space"), "{code} {err}");
    assert_eq!(std::fs::read(world.seen.join("old")).unwrap(), b"old");
    assert_eq!(world.names(), ["old"]);

    // Operations that write: what they were given stays, what they began is gone.
    assert_eq!(world.put("most", content(5 * MIB / 2, 2)).await.0, 201);
    let (most, copy, old) = (world.path("most"), world.path("copy"), world.path("old"));
    assert_eq!(world.refused("copy", json!({ "path": most, "to": copy })).await, no_space());
    assert_eq!(world.refused("tar", json!({ "path": most, "to": copy })).await, no_space());
    assert_eq!(world.refused("zip", json!({ "path": most, "to": copy })).await, no_space());
    assert_eq!(world.refused("gzip", json!({ "path": most, "to": old, "replace": true })).await, no_space());
    assert_eq!(world.names(), ["most", "old"]);
    assert_eq!(std::fs::read(world.seen.join("old")).unwrap(), b"old");
    // There is room again at once.
    assert_eq!(world.put("old", content(MIB, 3)).await.0, 200);
}

/// A small archive with a large content fills the disk it is given, no more, and is taken back where it was under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_at_the_disks_end() {
    let world = world(|folder| small_disk(folder, 4 * MIB as u64)).await;
    let bombs = "import gzip, io, tarfile, zipfile, sys\n\
        zeros = bytes(64 << 20)\n\
        gzip.open(sys.argv[1] + '/bomb.gz', 'wb').write(zeros)\n\
        zipfile.ZipFile(sys.argv[1] + '/bomb.zip', 'w', zipfile.ZIP_DEFLATED).writestr('zeros', zeros)\n\
        tar = tarfile.open(sys.argv[1] + '/bomb.tgz', 'w:gz')\n\
        info = tarfile.TarInfo('zeros')\n\
        info.size = len(zeros)\n\
        tar.addfile(info, io.BytesIO(zeros))\n\
        tar.close()\n";
    let made = std::process::Command::new("python3").args(["-c", bombs]).arg(&world.seen).status().unwrap();
    assert!(made.success());
    let before = world.names();
    let (gz, out) = (world.path("bomb.gz"), world.path("out"));
    assert_eq!(world.refused("gunzip", json!({ "path": gz, "to": out })).await, no_space());
    assert_eq!(world.names(), before);
    for (operation, name) in [("unzip", "bomb.zip"), ("untar", "bomb.tgz")] {
        let body = json!({ "path": world.path(name), "to": out });
        assert_eq!(world.refused(operation, body).await, no_space(), "{name}");
        let left: Vec<_> = std::fs::read_dir(world.seen.join("out")).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    assert_eq!(world.put("small", content(MIB, 3)).await.0, 201, "there is room again");
}

/// Limits on what one may store (a quota, a limit of file sizes) are a full disk to whoever meets them.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_a_limit_of_file_sizes_the_old_file_stays() {
    let world = world(|_| small_files(2 * MIB as u64)).await;
    let (status, problem) = world.put("old", content(3 * MIB, 1)).await;
    assert_eq!((status, &problem["code"]), (507, &json!("no_space")), "{problem}");
    assert_eq!(std::fs::read(world.seen.join("old")).unwrap(), b"old");
    assert_eq!(world.names(), ["old"]);
    assert_eq!(world.put("old", content(MIB, 3)).await.0, 200, "the agent lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_to_a_full_disk_leaves_nothing_on_it() {
    let (master, folder, desk) = (Master::start().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _agent = master.agent("store").await;
    std::fs::write(folder.path().join("large"), content(8 * MIB, 1)).unwrap();
    let landline = binary("landline").display().to_string();
    let script = format!(
        "echo old > {0}/f; {landline} cp -q store:{1}/large {0}/f; echo code=$?; cat {0}/f; ls -A {0}",
        desk.path().display(),
        folder.path().display()
    );
    let mut shell = command(&small_disk(desk.path(), 4 * MIB as u64), std::path::Path::new("sh"));
    shell.args(["-c", &script]).env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out, "code=1\nold\nf\n", "{err}");
    assert!(err.contains("No space left"), "{err}");
    assert!(parts_in(desk.path()).is_empty());
}

/// A master whose recordings lie on a disk of 256 KiB.
async fn master_with_little_room_to_record(strict: bool) -> Master {
    let mut master = Master::prepare("", &format!("[recording]\nstrict = {strict}"));
    let recordings = master.data().join("recordings");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&recordings).unwrap();
    master.confine(small_disk(&recordings, 256 * 1024));
    master.run().await;
    master
}

const FLOOD: &str = "stty -opost; echo $$ > PID; i=0; while :; do i=$((i+1)); echo $i; done";

/// Where nothing may go unrecorded, a session whose recording finds no room is over, and with it what it ran (R61).
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_not_go_unrecorded_ends_when_the_disk_is_full() {
    let mut master = master_with_little_room_to_record(true).await;
    let agent = master.agent("desk").await;
    let api = master.api();
    let mark = agent.folder.path().join("pid");
    let id = open(&api, "desk", &FLOOD.replace("PID", &mark.display().to_string())).await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    assert_eq!(terminal.exit().await["reason"], "recording_failed");
    let pid = std::fs::read_to_string(&mark).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    eventually(Duration::from_secs(10), "its program is gone", || async { (!process.exists()).then_some(()) }).await;
    let row = api.get(&format!("/shells/{id}")).await;
    assert_eq!((&row["end_reason"], &row["recorded"]), (&json!("recording_failed"), &json!(false)), "{row}");
    // What is on record is what was shown, and no more was shown than that.
    let recorded = replayed(&master, &id).await;
    assert!(recorded.starts_with(&terminal.shown), "{} recorded, {} shown", recorded.len(), terminal.shown.len());
    // The rest of the disk goes too: then none is opened at all.
    let full = seen_by(master.process().pid(), &master.data().join("recordings/rest"));
    assert!(std::fs::write(full, content(MIB, 1)).is_err());
    let new = json!({ "cols": 80, "rows": 24 });
    let (status, code) = api.refused(Method::POST, "/agents/desk/shells", Some(new)).await;
    assert_eq!((status, code.as_str()), (507, "recording_failed"));
    assert_eq!(api.get("/shells?running=true").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_go_unrecorded_goes_on_and_says_so() {
    let master = master_with_little_room_to_record(false).await;
    let _agent = master.agent("desk").await;
    let api = master.api();
    let id = open(&api, "desk", "stty -opost; seq 1 100000; read x; exit 3").await;
    let mut terminal = Terminal::attach(&api, &id, "offset=0").await.unwrap();
    terminal.until_text("\n100000\n").await;
    terminal.send(b"\n").await;
    assert_eq!(terminal.exit().await["code"], 3);
    let row = api.get(&format!("/shells/{id}")).await;
    assert_eq!((&row["end_reason"], &row["recorded"]), (&json!("exited"), &json!(false)), "{row}");
    assert!(terminal.shown.starts_with(&replayed(&master, &id).await), "a valid prefix is on record");
}

async fn replayed(master: &Master, id: &str) -> Vec<u8> {
    let mut command = std::process::Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data());
    command.args(["replay", "--instant", id]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
