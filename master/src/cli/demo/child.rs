//! Child processes that cannot outlive us: each is started through `landline with-parent`, which asks the kernel for a
//! signal at its parent's death and then becomes the program. Dropping a child kills it.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::time::sleep;

/// What to run, and how to run it again.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<PathBuf>,
    environment: Vec<(String, PathBuf)>,
    dir: Option<PathBuf>,
    log: PathBuf,
}

impl Program {
    /// Its output goes to `log`.
    pub(super) fn new(path: &Path, log: &Path) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { path: path.to_owned(), arguments, environment, dir: None, log: log.to_owned() }
    }

    pub(super) fn arg(mut self, argument: impl Into<PathBuf>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn envs(mut self, environment: Vec<(String, PathBuf)>) -> Self {
        self.environment = environment;
        self
    }

    pub(super) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    fn spawn(&self) -> anyhow::Result<std::process::Child> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("with-parent").arg(std::process::id().to_string()).arg(&self.path).arg("--").args(&self.arguments);
        // Callers' settings must not leak into the demo's own processes.
        for name in ["LANDLINE_URL", "LANDLINE_TOKEN", "LANDLINE_DATA_DIR", "LANDLINE_CONFIG"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().cloned());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        // A group of its own: Ctrl-C in the terminal is ours to act on, in our order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", self.path.display()))
    }
}

/// A running child.
#[derive(Debug)]
pub(super) struct Child {
    program: Program,
    process: std::process::Child,
}

impl Child {
    /// Must be called on a thread that lives as long as the child may: the kernel counts the thread as the parent.
    pub(super) fn start(program: Program) -> anyhow::Result<Self> {
        let process = program.spawn()?;
        Ok(Self { program, process })
    }

    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.program.spawn()?;
        Ok(())
    }

    pub(super) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// For people: the name of its log.
    pub(super) fn name(&self) -> String {
        self.program.log.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn log(&self) -> &Path {
        &self.program.log
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self) {
        let running = matches!(self.process.try_wait(), Ok(None));
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (running, pid) {
            // Not yet waited for, so the id is still the child's.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Resolves once it has ended; callers bring the deadline.
    pub(super) async fn gone(&mut self, look_every: Duration) {
        while matches!(self.process.try_wait(), Ok(None)) {
            sleep(look_every).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The hidden command behind [`Program::spawn`].
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  landline with-parent $$ /bin/sleep -- 60")]
pub(crate) struct WithParent {
    /// Who must be alive
    parent: i32,
    program: PathBuf,
    #[arg(last = true)]
    arguments: Vec<PathBuf>,
}

impl WithParent {
    /// Returns only on failure: else this process becomes the program.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")?;
        // It may have died before we asked.
        anyhow::ensure!(getppid() == Pid::from_raw(self.parent), "the parent is gone");
        let error = Command::new(&self.program).args(&self.arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", self.program.display()))
    }
}
