//! The commands, on this very machine.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::*;
use crate::config::PolicyFile;

fn controllers(actions_dir: &Path) -> Controllers {
    let policy = Policy::load(&PolicyFile::Default("/nonexistent/policy.toml".into()));
    Controllers::new(Arc::new(policy), Sampler::default(), actions_dir.to_owned())
}

async fn run(controllers: &Controllers, name: &str, payload: &str) -> Result<Value, Failure> {
    let (service, action) = name.split_once('.').unwrap();
    let command =
        Command { service: service.into(), action: action.into(), payload: payload.into(), timeout_ms: 10_000 };
    controllers.run(RequestId::random(), &command).await
}

fn script(dir: &Path, name: &str, body: &str, mode: u32) {
    let path = dir.join(name.replace('.', "/"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_machine_describes_itself() {
    let controllers = controllers(Path::new("/nonexistent"));
    let usage = run(&controllers, "system.getUsage", "").await.unwrap();
    assert!(usage["cpu"].is_number() && usage["ram"].as_u64().unwrap() > 0);
    let info = run(&controllers, "system.getInfo", "{}").await.unwrap();
    assert!(!info["hostname"].as_str().unwrap().is_empty() && info["cpus"].as_u64().unwrap() > 0);
    let interfaces = run(&controllers, "network.interfaces", "").await.unwrap();
    assert!(interfaces["interfaces"].as_array().unwrap().iter().any(|one| one["name"] == "lo"));
    for name in ["network.connections", "network.routes", "network.dns"] {
        run(&controllers, name, "").await.unwrap();
    }
}

#[tokio::test]
async fn processes_are_listed_and_killed() {
    let controllers = controllers(Path::new("/nonexistent"));
    let mut child = tokio::process::Command::new("sleep").arg("654").kill_on_drop(true).spawn().unwrap();
    let pid = child.id().unwrap();
    let listed = run(&controllers, "process.list", r#"{"filter": "sleep 654"}"#).await.unwrap();
    assert!(listed["processes"].as_array().unwrap().iter().any(|one| one["pid"] == pid), "{listed}");
    let info = run(&controllers, "process.info", &format!(r#"{{"pid": {pid}}}"#)).await.unwrap();
    assert_eq!(info["name"], "sleep");
    run(&controllers, "process.kill", &format!(r#"{{"pid": {pid}, "signal": "SIGKILL"}}"#)).await.unwrap();
    let status = child.wait().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let gone = run(&controllers, "process.info", &format!(r#"{{"pid": {pid}}}"#)).await.unwrap_err();
    assert_eq!(gone.code, Code::ACTION_FAILED);
    for payload in [r#"{"pid": 1}"#, r#"{"pid": -1}"#, r#"{"pid": 0}"#, r#"{"pid": 2, "signal": "X"}"#, "{}", "x"] {
        assert_eq!(run(&controllers, "process.kill", payload).await.unwrap_err().code, Code::INVALID, "{payload}");
    }
}

#[tokio::test]
async fn odd_names_of_services_never_become_arguments() {
    let controllers = controllers(Path::new("/nonexistent"));
    for name in ["", "-f", "../x", "a b", "a;b", "a\nb", "/etc"] {
        let payload = serde_json::json!({ "name": name }).to_string();
        let failure = run(&controllers, "service.status", &payload).await.unwrap_err();
        assert_eq!(failure.code, Code::INVALID, "{name:?}");
    }
}

#[tokio::test]
async fn the_owners_actions_take_and_give_json() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    script(dir, "backup.echo", "cat", 0o755);
    script(dir, "backup.quiet", "exit 0", 0o755);
    script(dir, "backup.fail", "echo disk is full >&2; exit 3", 0o755);
    script(dir, "backup.text", "echo hello", 0o755);
    script(dir, "backup.long", "head -c 70000 /dev/zero", 0o755);
    script(dir, "backup.plain", "exit 0", 0o644);
    script(dir, "backup.open", "exit 0", 0o777);
    let controllers = controllers(dir);
    assert_eq!(run(&controllers, "backup.echo", r#"{"a":[1]}"#).await.unwrap(), serde_json::json!({ "a": [1] }));
    assert_eq!(run(&controllers, "backup.quiet", "").await.unwrap(), Value::Null);
    for (name, said) in [
        ("backup.fail", "disk is full"),
        ("backup.text", "not JSON"),
        ("backup.long", "longer than"),
        ("backup.plain", "chmod +x"),
        ("backup.open", "chmod go-w"),
    ] {
        let failure = run(&controllers, name, "").await.unwrap_err();
        assert_eq!(failure.code, Code::ACTION_FAILED, "{name}");
        assert!(failure.message.contains(said), "{name}: {}", failure.message);
    }
    let unknown = run(&controllers, "backup.absent", "").await.unwrap_err();
    assert_eq!(unknown.code, Code::UNKNOWN_ACTION);
}

#[tokio::test]
async fn a_command_that_is_dropped_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mark = folder.path().join("pids");
    let body = format!("sleep 600 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", mark.display());
    script(folder.path(), "slow.wait", &body, 0o755);
    let controllers = controllers(folder.path());
    let running = run(&controllers, "slow.wait", "");
    let started = async {
        while !mark.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = running => panic!("ended by itself: {result:?}"),
        () = started => {}
    }
    let pids = fs::read_to_string(&mark).unwrap();
    for pid in pids.split_whitespace().map(|pid| pid.parse().unwrap()) {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while crate::platform::start_time(pid).is_some() {
            assert!(std::time::Instant::now() < deadline, "process {pid} is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
