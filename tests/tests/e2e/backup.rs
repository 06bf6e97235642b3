//! A backup taken beside work, restored into a new data folder: agents come back by themselves, and what was
//! acknowledged before it is there.

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use landline_tests::master::Master;
use reqwest::Method;
use serde_json::json;

fn backup(master: &Master, file: &Path) -> Output {
    let config = master.folder.path().join("landline.toml");
    master.landline().arg("backup").arg("--config").arg(config).arg(file).output().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_the_fleet_back() {
    let mut master = Master::start().await;
    let _agents = [master.agent("one").await, master.agent("two").await];
    let api = master.api();
    // Work goes on while the copy is made.
    let writing = tokio::spawn(async move {
        for number in 0..10_000 {
            let sent = api.request(Method::POST, "/agents").json(&json!({ "id": format!("later-{number}") }));
            if sent.send().await.is_err() {
                return;
            }
        }
    });
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("landline.tar");
    let made = backup(&master, &file);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(mode(&file), 0o600);
    assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), 1, "nothing unfinished is left");
    let again = backup(&master, &file);
    assert_eq!(again.status.code(), Some(1), "an older backup is overwritten");
    let list = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in ["landline.db\n", "ca/ca.key\n", "quic.keys\n"] {
        assert!(list.contains(name), "{list}");
    }
    for name in ["admin.token", "lock", "-wal", "recordings", "tunnels"] {
        assert!(!list.contains(name), "{list}");
    }

    master.kill();
    writing.await.unwrap();
    std::fs::remove_dir_all(master.data()).unwrap();
    std::fs::DirBuilder::new().mode(0o700).create(master.data()).unwrap();
    let status = Command::new("tar").arg("-xpf").arg(&file).arg("-C").arg(master.data()).status().unwrap();
    assert!(status.success());
    assert_eq!((mode(&master.data().join("landline.db")), mode(&master.data().join("ca"))), (0o600, 0o700));
    master.run().await;
    let api = master.api();
    for id in ["one", "two"] {
        api.online(id, Duration::from_secs(30)).await;
    }
    assert_eq!(api.get("/audit/verify").await["whole"], true);
    assert_eq!(master.landline().arg("health").status().unwrap().code(), Some(0));
    master.kill();
    assert_eq!(master.landline().arg("health").status().unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_data_folder_is_no_backup() {
    let master = Master::prepare("", "");
    let file = master.folder.path().join("x.tar");
    let refused = backup(&master, &file);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("there is no database"), "{said}");
    assert!(!file.exists() && !master.data().exists());
}
