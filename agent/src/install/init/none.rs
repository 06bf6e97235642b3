//! No init system: a supervisor in the background, `landline-agent supervise`, which this starts and ends.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{
    super::{InstallError, Layout, grant::Grant, place::Placing},
    Init, InitError,
};

/// Name of the file with the supervisor's process id, below the configuration folder: root's, as the supervisor is.
pub const PID_FILE: &str = "supervisor.pid";
/// Time for supervisor and agent to end after SIGTERM, before they are killed.
const END_WITHIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct NoInit {
    pub(super) layout: Layout,
    pub(super) user: String,
}

impl NoInit {
    fn pid_file(&self) -> PathBuf {
        self.layout.config_dir.join(PID_FILE)
    }

    /// The supervisor, if the process of that number is one.
    fn running(&self) -> Option<Pid> {
        let number: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let pid = Pid::from_raw(number)?;
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_else(|_| b"supervise".to_vec());
        let ours = line.windows(9).any(|word| word == b"supervise");
        (ours && lives(pid)).then_some(pid)
    }
}

/// One that only waits for its parent to look is over.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let over = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    !over && test_kill_process(pid).is_ok()
}

impl Init for NoInit {
    fn write(&self, _: &Placing<'_>, _: &[Grant]) -> Result<(), InstallError> {
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.pid_file()]
    }

    fn is_installed(&self) -> bool {
        self.pid_file().exists()
    }

    fn start(&self) -> Result<(), InitError> {
        self.stop()?;
        let mut command = Command::new(&self.layout.program);
        command.arg("supervise").arg("--as").arg(&self.user).current_dir("/");
        // The environment of whoever pasted the line is none of the agent's business.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It outlives this process on purpose; `stop` finds it by its file.
        command.spawn().map(drop).map_err(InitError::Supervisor)
    }

    fn stop(&self) -> Result<(), InitError> {
        let Some(pid) = self.running() else { return Ok(()) };
        let begun = Instant::now();
        let _ = kill_process(pid, Signal::TERM);
        while lives(pid) {
            if begun.elapsed() > END_WITHIN {
                let _ = kill_process(pid, Signal::KILL);
            }
            if begun.elapsed() > END_WITHIN * 2 {
                return Err(InitError::WillNotEnd(pid.as_raw_nonzero().get()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}
