//! The README's commands, run as a newcomer would: `make demo` on this checkout, then each line against it, then
//! `make demo-down`. `make test` is what runs this test.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use landline_tests::{process::Process, wait::until};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The shell blocks of the README, in order.
fn blocks() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let after = text.split("```sh\n").skip(1);
    after.filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

fn shell(script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(root())
        .env_remove("LANDLINE_URL")
        .env_remove("LANDLINE_TOKEN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}{err}");
    out.into_owned()
}

fn environment() -> Option<String> {
    std::fs::read_to_string(root().join("target/demo/env")).ok()
}

/// One demo for all its commands: it belongs to this checkout.
#[tokio::test(flavor = "multi_thread")]
async fn alone_the_readme_works() {
    let blocks = blocks();
    let both: Vec<_> = blocks.iter().map(|block| block.trim()).collect();
    assert!(both.contains(&"make demo") && both.contains(&"make test"), "{both:?}");
    let _ = std::fs::remove_file(root().join("target/demo/env"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("make");
    command.arg("demo").current_dir(root());
    let mut demo = Process::start(command, &folder.path().join("demo.log"));
    until(Duration::from_secs(300), "the demo writes its env", || {
        assert!(demo.exited().is_none(), "the demo ended: {}", demo.log());
        environment().is_some()
    })
    .await;
    let children = processes_of(&environment().unwrap());
    assert!(children >= 4, "a master and three agents run: {children}");

    let operator = blocks.iter().find(|block| block.contains("agents ls")).expect("the operator's block");
    let said = shell(operator);
    for agent in ["home-1", "home-2", "home-3"] {
        assert!(said.lines().any(|line| line.contains(agent) && line.contains("online")), "{said}");
    }
    assert!(said.contains("Linux"), "{said}");
    let listen =
        said.lines().rev().find_map(|line| line.split_whitespace().find(|word| word.starts_with("127.0.0.1:8")));
    let listen = listen.unwrap_or_else(|| panic!("no listen in {said}"));
    let page = shell(&format!("curl -fsSk https://{listen}/"));
    assert!(page.contains("home-1"), "{page}");

    let panel = blocks.iter().find(|block| block.contains("/api/v1/tunnels")).expect("the panel's block");
    let said = shell(panel);
    assert!(said.contains("\"status\":\"active\"") && said.contains("\"status\":\"success\""), "{said}");

    shell("make demo-down");
    until(Duration::from_secs(15), "the demo ended", || demo.exited().is_some()).await;
    until(Duration::from_secs(5), "no process of it is left", || processes_in(&root().join("target/demo")) == 0).await;
}

fn processes_of(environment: &str) -> usize {
    assert!(environment.contains("LANDLINE_BIN="), "{environment}");
    processes_in(&root().join("target/demo"))
}

/// Processes whose command line, folder or environment names the demo's folder.
fn processes_in(folder: &Path) -> usize {
    let wanted = folder.display().to_string();
    let names_it = |pid: &Path| {
        let program = std::fs::read_link(pid.join("exe")).unwrap_or_default();
        let ours = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("landline"));
        let told = ["cmdline", "environ"].iter().any(|file| {
            let text = std::fs::read(pid.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&wanted)
        });
        let stands = std::fs::read_link(pid.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        ours && (told || stands)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| names_it(&entry.path())).count()
}
