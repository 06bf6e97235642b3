//! A real OpenSSH server with keys of its own, and what its clients need to know.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{peers::free_port, process::Process, wait::until};

/// sshd for the user of the test.
#[derive(Debug)]
pub struct OpenSsh {
    pub port: u16,
    pub user: String,
    pub folder: TempDir,
    process: Process,
}

impl OpenSsh {
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same at another address of this machine.
    pub async fn start_at(address: Ipv4Addr) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let path = folder.path();
        for key in ["host", "user"] {
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path.join(key)).status();
            assert!(made.expect("ssh-keygen runs").success(), "no key was made");
        }
        std::fs::copy(path.join("user.pub"), path.join("authorized_keys")).expect("a list of keys");
        std::fs::write(path.join("sshd_config"), configuration(path, address, port)).expect("a configuration");
        if rustix::process::geteuid().is_root() {
            // Where sshd locks its unprivileged child in; a package script would make it at boot.
            std::fs::create_dir_all("/run/sshd").expect("root may");
        }
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(path.join("sshd_config"));
        let process = Process::start(command, &path.join("sshd.log"));
        let listens = || std::net::TcpStream::connect((address, port)).is_ok();
        until(Duration::from_secs(10), "sshd listens", listens).await;
        let user = Command::new("id").arg("-un").stderr(Stdio::null()).output().expect("id runs");
        let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
        Self { port, user, folder, process }
    }

    /// A client configuration: `blocks` name the hosts, this adds the keys.
    pub fn client_config(&self, blocks: &str) -> PathBuf {
        let path = self.folder.path();
        let common = format!(
            "Host *\n  IdentityFile {0}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {0}/known_hosts\n  \
             StrictHostKeyChecking accept-new\n  BatchMode yes\n  LogLevel ERROR\n  ConnectTimeout 20\n",
            path.display()
        );
        let file = path.join("ssh_config");
        std::fs::write(&file, format!("{blocks}\n{common}")).expect("a configuration");
        file
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn configuration(folder: &Path, address: Ipv4Addr, port: u16) -> String {
    format!(
        "Port {port}\nListenAddress {address}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\n\
         PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
         Subsystem sftp internal-sftp\n",
        folder.display()
    )
}
