//! Scripts of `tests/browser` in a process of their own: a real Chromium that does what an operator would. Talks with them
//! line by line; what the pages must look like is the scripts' business.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::tools::tool;

/// A script that runs; killed with its browser when dropped.
pub struct Browser {
    name: String,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    errors: tokio::task::JoinHandle<String>,
}

/// Where pictures of pages go, for people to look at.
pub fn pictures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots")
}

impl Browser {
    /// Starts `tests/browser/NAME.mjs`, which finds `given` as its own.
    pub fn start(name: &str, given: &Value) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("browser");
        let installed = folder.join("node_modules");
        assert!(installed.exists(), "{} is missing: run deploy/dev/install-test-tools", installed.display());
        let pages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../master/dashboard/dist/index.html");
        assert!(pages.exists(), "{} is missing: run make dashboard", pages.display());
        let mut command = Command::new(tool("node"));
        command.arg(format!("{name}.mjs")).current_dir(&folder).env("LANDLINE_GIVEN", given.to_string());
        command.env("CHROMIUM", tool("chromium")).kill_on_drop(true);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node starts");
        let stdin = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut stderr = child.stderr.take().expect("a pipe");
        let errors = tokio::spawn(async move {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text).await;
            text
        });
        Self { name: name.to_owned(), child, stdin, lines, errors }
    }

    /// The next thing the script tells; panics with its error when it failed, or when it says nothing for so long.
    pub async fn told(&mut self, within: Duration) -> Value {
        match tokio::time::timeout(within, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")),
            Ok(_) => {
                let errors = (&mut self.errors).await.unwrap_or_default();
                panic!("{} failed:\n{errors}", self.name)
            }
            Err(_) => panic!("{} said nothing for {within:?}", self.name),
        }
    }

    /// What it tells up to this word, which comes last.
    pub async fn until(&mut self, word: &str, within: Duration) -> Vec<Value> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.told(within).await);
            if heard.last().is_some_and(|last| last["word"] == word) {
                return heard;
            }
        }
    }

    /// Answers a request of the script.
    pub async fn answer(&mut self, value: Value) {
        let line = format!("{value}\n");
        self.stdin.write_all(line.as_bytes()).await.expect("the script reads");
    }

    /// Answers a request that needs nothing but to be carried out.
    pub async fn go_on(&mut self) {
        self.answer(json!({})).await;
    }

    /// Waits for its good end, and gives what it told on the way.
    pub async fn done(mut self, within: Duration) -> Vec<Value> {
        let heard = self.until("done", within).await;
        let status = tokio::time::timeout(within, self.child.wait()).await.expect("it ends").expect("it ran");
        assert!(status.success(), "{}: {status}", self.name);
        heard
    }
}
