//! `landline-agent supervise`: keeps the agent running in the background where there is no init system to do it. Detaches
//! itself, restarts what ends, and ends with what it started on SIGTERM.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use landline_agent::{
    install::{Layout, USER, init::Kind},
    platform::users,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Between the end of an agent and the next one.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Time for the agent to end by itself after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);
/// A longer log is put aside at the next start, bytes; one older one is kept.
const LOG_MAX: u64 = 4 << 20;
/// The agent's word for a configuration that no restart puts right.
const USAGE: i32 = super::EXIT_USAGE as i32;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  landline-agent supervise")]
pub(super) struct Arguments {
    /// Whose process the agent is.
    #[arg(long = "as", value_name = "USER", default_value = USER)]
    user: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // A terminal that closes takes its own session with it, not this one. Already a leader: nothing to do.
    let _ = rustix::process::setsid();
    let layout = Layout::new(Path::new("/"), Kind::None);
    let pid_file = PidFile::write(layout.config_dir.join(landline_agent::install::init::PID_FILE))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(keep(&layout, &arguments.user));
    drop(pid_file);
    result
}

/// Removed when dropped.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        std::fs::write(&path, format!("{}\n", std::process::id())).with_context(|| format!("cannot write {shown}"))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn keep(layout: &Layout, user: &str) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    loop {
        let mut child = tokio::process::Command::from(agent(layout, user)?);
        let mut child = child.kill_on_drop(true).spawn().context("cannot start the agent")?;
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        match ended {
            None => {
                if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
                    let _ = kill_process(pid, Signal::TERM);
                }
                if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
                    child.kill().await.context("cannot end the agent")?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Some(Ok(status)) if status.code() == Some(USAGE) => {
                bail!("the agent's configuration is wrong; its log says how")
            }
            Some(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn agent(layout: &Layout, user: &str) -> anyhow::Result<Command> {
    if std::fs::metadata(&layout.log).is_ok_and(|log| log.len() > LOG_MAX) {
        let _ = std::fs::rename(&layout.log, layout.log.with_extension("log.1"));
    }
    if let Some(folder) = layout.log.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    let log = File::options().create(true).append(true).open(&layout.log);
    let log = log.with_context(|| format!("cannot write {}", layout.log.display()))?;
    let mut command = Command::new(&layout.program);
    command.arg("run").current_dir(&layout.config_dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    if user != "root" {
        let found = users::find(user).with_context(|| format!("there is no user {user}"))?;
        command.uid(found.uid).gid(found.gid);
    }
    Ok(command)
}
