//! systemd, rc.d and procd: files, and their own programs to start and end what these describe.

use std::{path::PathBuf, process::Command};

use super::{
    super::{InstallError, grant::Grant, place::Placing},
    Init, InitError, Kind,
    files::Files,
};

pub(super) struct Service {
    pub(super) kind: Kind,
    pub(super) files: Files,
    pub(super) image: bool,
}

impl Init for Service {
    fn write(&self, placing: &Placing<'_>, grants: &[Grant]) -> Result<(), InstallError> {
        self.files.write(self.kind, placing, grants)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.all(self.kind)
    }

    fn is_installed(&self) -> bool {
        self.files.main(self.kind).exists()
    }

    fn start(&self) -> Result<(), InitError> {
        match self.kind {
            Kind::Systemd => {
                run("systemctl", &["daemon-reload"])?;
                run("systemctl", &["restart", "landline-agent"])
            }
            Kind::Rcd => run("service", &["landline_agent", "restart"]),
            Kind::Procd => run("/etc/init.d/landline-agent", &["restart"]),
            Kind::None => Ok(()),
        }
    }

    fn stop(&self) -> Result<(), InitError> {
        match self.kind {
            Kind::Systemd => run("systemctl", &["stop", "landline-agent"]),
            Kind::Rcd => run("service", &["landline_agent", "stop"]),
            Kind::Procd => run("/etc/init.d/landline-agent", &["stop"]),
            Kind::None => Ok(()),
        }
    }

    /// What systemd still remembers; nothing depends on it.
    fn removed(&self) {
        if self.kind == Kind::Systemd && !self.image {
            let _ = run("systemctl", &["daemon-reload"]);
            let _ = run("systemctl", &["reset-failed", "landline-agent"]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), InitError> {
    let command = format!("{program} {}", arguments.join(" "));
    match Command::new(program).args(arguments).output() {
        Err(source) => Err(InitError::Spawn { command, source }),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(InitError::Failed { command, told })
        }
    }
}
