//! The binary as its owner meets it: exit codes, and words that say what to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

struct Owner {
    folder: tempfile::TempDir,
}

impl Owner {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landline-agent"));
        let config = self.folder.path().join("config.toml");
        if !config.exists() {
            std::fs::write(&config, "").unwrap();
        }
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.args(arguments).arg("--config").arg(config);
        command.arg("--state-dir").arg(self.folder.path().join("state"));
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        said(&self.command(arguments).output().unwrap())
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn usage_and_configuration_are_64() {
    let owner = Owner::new();
    assert_eq!(owner.run(&["frobnicate"]).0, 64);
    assert_eq!(owner.run(&["policy", "test", "exec"]).0, 64);
    let (code, text) = owner.run(&["run"]);
    assert!(code == 64 && text.contains("master_pin") && text.contains("landline agents add"), "{code} {text}");
    owner.write("config.toml", "agent_id = \"A B\"\nmastr = \"x\"\nlog_format = \"xml\"");
    let (code, text) = owner.run(&["check-config"]);
    assert_eq!(code, 64);
    for mistake in ["3 mistakes", "agent_id", "mastr", "log_format"] {
        assert!(text.contains(mistake), "{mistake}: {text}");
    }
}

#[test]
fn help_has_examples_and_the_version_is_told() {
    let owner = Owner::new();
    let (code, text) = owner.run(&["--help"]);
    assert!(code == 0 && text.contains("Examples:") && text.contains("MASTER_PIN"), "{text}");
    assert_eq!(owner.run(&["--version"]).0, 0);
}

#[test]
fn a_policy_explains_its_verdicts() {
    let owner = Owner::new();
    let policy = owner.write(
        "policy.toml",
        "[forward]\ntargets = [\"localhost:80\"]\n[exec]\nallow = [\"uptime\"]\n[commands]\nallow = [\"system.*\"]",
    );
    let test = |arguments: &[&str]| {
        let all = [&["policy", "test", "--policy-file", policy.as_str()], arguments].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_landline-agent"));
        command.current_dir(owner.folder.path()).env_clear().args(all);
        said(&command.output().unwrap())
    };
    let (code, text) = test(&["forward", "localhost:80"]);
    assert!(code == 0 && text.contains("127.0.0.1: allowed: forward.targets has \"localhost:80\""), "{text}");
    for (arguments, why) in [
        (&["forward", "localhost:81"][..], "port 81"),
        (&["forward", "169.254.169.254:80"], "metadata"),
        (&["exec", "--", "uptime", "-p"], "exec.allow"),
        (&["exec", "--shell", "uptime"], "exec.shell"),
        (&["command", "process.kill"], "commands.allow"),
    ] {
        let (code, text) = test(arguments);
        assert!(code == 1 && text.contains("denied") && text.contains(why), "{arguments:?}: {code} {text}");
    }
    assert_eq!(test(&["exec", "--", "uptime"]).0, 0);
    assert_eq!(test(&["command", "system.getInfo"]).0, 0);
    owner.write("policy.toml", "alow = 1");
    let (code, text) = test(&["command", "system.getInfo"]);
    assert!(code == 64 && text.contains("EVERYTHING IS DENIED") && text.contains("alow"), "{code} {text}");
}

#[test]
fn a_token_that_is_no_token_is_told_and_not_repeated() {
    let owner = Owner::new();
    for arguments in [&["enrol", "-"][..], &["enrol", "--token-file", "-"]] {
        let mut child = owner
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"llj1_not-a-token").unwrap();
        let (code, text) = said(&child.wait_with_output().unwrap());
        assert!(code == 64 && text.contains("join token") && !text.contains("not-a-token"), "{code} {text}");
    }
    assert_eq!(owner.run(&["enrol", "--token-file", "/nonexistent"]).0, 1);
}

#[test]
fn without_a_running_agent_status_says_so() {
    let (code, text) = Owner::new().run(&["status"]);
    assert!(code == 1 && text.contains("is it running"), "{text}");
}

#[test]
fn lax_modes_are_refused_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let owner = Owner::new();
    let state = owner.folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, text) = owner.run(&["run"]);
    assert!(code != 0 && text.contains("chmod"), "{code} {text}");
}

#[test]
fn the_shipped_examples_are_good() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let (config, policy) = (deploy.join("agent.example.toml"), deploy.join("policy.example.toml"));
    let check = |config: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landline-agent"));
        command.env_clear().current_dir(&deploy).arg("check-config").arg("--config").arg(config);
        said(&command.arg("--policy-file").arg(&policy).output().unwrap())
    };
    let (code, text) = check(&config);
    assert_eq!(code, 0, "{text}");
    // The lines that are commented out name keys that exist, too: none of their mistakes is about the key.
    let owner = Owner::new();
    let bare = |line: &str| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line).to_owned();
    let all: Vec<String> = std::fs::read_to_string(&config).unwrap().lines().map(bare).collect();
    let (_, text) = check(Path::new(&owner.write("all.toml", &all.join("\n"))));
    assert!(text.contains("join_token_file") && !text.contains("unknown key"), "{text}");
}
