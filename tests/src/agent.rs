//! One real agent process in a folder of its own.

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binary,
    confined::{self, Prefix},
    process::Process,
    tools::faketime,
};

/// Everything an owner may allow; what the tests of features run under.
pub const ALLOW_ALL: &str = "allow_all = true\n";

/// An agent and what it needs to start again with the same identity.
#[derive(Debug)]
pub struct Agent {
    pub id: String,
    pub folder: TempDir,
    environment: Vec<(String, String)>,
    prefix: Prefix,
    process: Option<Process>,
}

impl Agent {
    /// Prepares an agent from what `POST /agents` answered. `policy` is the text of its policy file; `None` writes none.
    pub fn new(created: &Value, policy: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let token = created["join_token"].as_str().unwrap_or_else(|| panic!("no join token in {created}"));
        let id = created["agent"]["id"].as_str().or(created["id"].as_str()).expect("an id").to_owned();
        let mut environment = vec![
            ("LANDLINE_JOIN_TOKEN".to_owned(), token.to_owned()),
            ("LANDLINE_STATE_DIR".to_owned(), folder.path().join("state").display().to_string()),
            ("LANDLINE_ACTIONS_DIR".to_owned(), folder.path().join("actions.d").display().to_string()),
        ];
        // A policy file that is named must exist, or everything is denied.
        if let Some(policy) = policy {
            let file = folder.path().join("policy.toml");
            std::fs::write(&file, policy).expect("a policy");
            environment.push(("LANDLINE_POLICY_FILE".to_owned(), file.display().to_string()));
        }
        Self { id, folder, environment, prefix: Prefix::new(), process: None }
    }

    /// Sets a variable for the starts to come.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Confines the starts to come.
    pub fn confine(&mut self, prefix: Prefix) {
        self.prefix = prefix;
    }

    /// Sends the agent's line through a link instead of straight to the master.
    pub fn through(&mut self, link: &crate::link::Link) {
        self.set("MASTER_URL", &link.address.to_string());
    }

    /// Lets [`set_clock`](Self::set_clock) move the wall clock of the starts to come, while they run.
    pub fn adjustable_clock(&mut self) {
        self.set_clock(0);
        let (library, file) = (faketime(), self.clock_file().display().to_string());
        self.set("LD_PRELOAD", &library);
        self.set("FAKETIME_TIMESTAMP_FILE", &file);
        self.set("FAKETIME_CACHE_DURATION", "1");
        self.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// So many hours ahead of this machine's, within a second.
    pub fn set_clock(&self, hours: i32) {
        std::fs::write(self.clock_file(), format!("{hours:+}h\n")).expect("its clock can be set");
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    pub fn start(&mut self) {
        let mut command = confined::command(&self.prefix, &binary("landline-agent"));
        command.arg("run").current_dir(self.folder.path()).envs(self.environment.iter().cloned());
        self.process = Some(Process::start(command, &self.log_path()));
    }

    /// `landline-agent` with other words, as the owner of this one runs it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("landline-agent"));
        command.args(arguments).current_dir(self.folder.path()).envs(self.environment.iter().cloned());
        command
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }
}
