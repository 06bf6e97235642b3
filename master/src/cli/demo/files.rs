//! The demo's folder: configuration, the agents' homes, logs, the lock that says it runs, and the `env` file that tells
//! callers where everything is.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use tokio::time::{Instant, sleep};

use super::{ports::Ports, site::Site};
use crate::api::dto::agent::Credentials;

const LOCK: &str = "lock";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of a log, when something failed.
const TAIL_LINES: usize = 20;

/// The folder, by its absolute path.
#[derive(Debug, Clone)]
pub(super) struct DemoDir(PathBuf);

impl DemoDir {
    pub(super) fn prepare(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path.canonicalize()?;
        certs::state::open_dir(&path).or_else(|_| {
            use std::os::unix::fs::PermissionsExt;
            // Ours to close: it holds a token.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
        })?;
        Ok(Self(path))
    }

    /// Removes what an earlier demo left. Only names that a demo makes: the folder was chosen by a caller.
    pub(super) fn empty(&self) -> anyhow::Result<()> {
        for name in ["data", "home-1", "home-2", "home-3"] {
            allow_absent(fs::remove_dir_all(self.0.join(name)))?;
        }
        for name in ["env", "master.toml", "master.log", "home-1.log", "home-2.log", "home-3.log"] {
            allow_absent(fs::remove_file(self.0.join(name)))?;
        }
        Ok(())
    }

    pub(super) fn config(&self) -> PathBuf {
        self.0.join("master.toml")
    }

    pub(super) fn env(&self) -> PathBuf {
        self.0.join("env")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }

    pub(super) fn log_tail(&self, name: &str) -> String {
        tail(&self.log(name))
    }

    pub(super) fn write_config(&self, ports: &Ports) -> anyhow::Result<()> {
        let text = format!(
            "# Written by `landline demo`.\ndata_dir = {data:?}\n\n[public]\nlisten = \"127.0.0.1:{public}\"\n\
             address = \"127.0.0.1:{public}\"\n\n[internal]\nlisten = \"127.0.0.1:{internal}\"\n\n[metrics]\n\
             listen = \"127.0.0.1:{metrics}\"\n",
            data = self.0.join("data"),
            public = ports.public,
            internal = ports.internal,
            metrics = ports.metrics,
        );
        Ok(fs::write(self.config(), text)?)
    }

    /// Where the first administrator is made, as the master printed it at its start. Nothing before it did.
    pub(super) fn setup_link(&self) -> Option<String> {
        let log = fs::read_to_string(self.log("master")).ok()?;
        let printed = log.split_whitespace().rfind(|word| word.contains("/setup#"));
        printed.map(|link| link.trim_matches('"').to_owned())
    }

    pub(super) fn admin_token(&self) -> anyhow::Result<String> {
        let token = fs::read_to_string(self.0.join("data/admin.token")).context("the master wrote no admin token")?;
        Ok(token.trim().to_owned())
    }

    /// The agent's home: what `landline agents add` prints, pasted, and a policy that allows everything.
    pub(super) fn write_agent(&self, id: &str, credentials: &Credentials) -> anyhow::Result<PathBuf> {
        let home = self.0.join(id);
        certs::state::open_dir(&home)?;
        certs::state::write_secret(&home.join(".env"), credentials.env.as_bytes())?;
        fs::write(home.join("policy.toml"), "allow_all = true\n")?;
        Ok(home)
    }

    pub(super) fn agent_environment(&self, id: &str) -> Vec<(String, PathBuf)> {
        let home = self.0.join(id);
        [("STATE_DIR", "state"), ("ACTIONS_DIR", "actions.d"), ("POLICY_FILE", "policy.toml")]
            .map(|(name, file)| (format!("LANDLINE_{name}"), home.join(file)))
            .to_vec()
    }

    /// Whole or not at all: scripts wait for this file.
    pub(super) fn write_env(&self, ports: &Ports, token: &str, binary: &Path, sites: &[Site]) -> anyhow::Result<()> {
        let mut lines = vec![
            format!("LANDLINE_URL={}", ports.url()),
            format!("LANDLINE_TOKEN={token}"),
            format!("LANDLINE_METRICS_URL={}", ports.metrics_url()),
            format!("LANDLINE_BIN={}", quoted(&binary.to_string_lossy())),
        ];
        lines.extend(sites.iter().enumerate().map(|(n, site)| format!("DEMO_SITE_{}={}", n + 1, site.port())));
        Ok(certs::state::write_secret(&self.env(), format!("{}\n", lines.join("\n")).as_bytes())?)
    }

    pub(super) fn forget_env(&self) {
        let _ = fs::remove_file(self.env());
    }
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn allow_absent(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The last lines of a file, for an error message.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Held while a demo runs; the kernel lets go of it however the process ends. Holds the process id.
pub(super) struct Lock(#[allow(dead_code, reason = "held, not read")] File);

impl Lock {
    pub(super) fn take(dir: &DemoDir) -> anyhow::Result<Self> {
        let path = dir.0.join(LOCK);
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("a demo runs already in {}; end it with: make demo-down", dir.0.display());
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        file.sync_all()?;
        Ok(Self(file))
    }
}

/// Ends the demo that runs in `path`, and waits until it and what it started are gone.
pub(super) async fn end(path: &Path, within: Duration) -> anyhow::Result<()> {
    let mut file = match File::options().read(true).write(true).open(path.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("no demo runs in {}", path.display());
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.join(LOCK).display())),
    };
    let deadline = Instant::now() + within;
    let mut told = None;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        // The lock is held, so the id in it is alive. It is told once; later rounds only wait.
        let pid = holder(&mut file)?;
        if told != Some(pid) {
            kill_process(pid, Signal::TERM).context("cannot signal the demo")?;
            told = Some(pid);
        }
        if Instant::now() >= deadline {
            let _ = kill_process(pid, Signal::KILL);
            bail!("the demo did not end within {within:?} and was killed; its children end with it");
        }
        sleep(LOOK_EVERY).await;
    }
    if told.is_none() {
        eprintln!("no demo runs in {}", path.display());
    }
    Ok(())
}

fn holder(file: &mut File) -> anyhow::Result<Pid> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.context("the lock holds no process id; is the demo just starting? Try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_demo_per_folder() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DemoDir::prepare(&folder.path().join("demo")).unwrap();
        let lock = Lock::take(&dir).unwrap();
        assert!(Lock::take(&dir).is_err());
        drop(lock);
        Lock::take(&dir).unwrap();
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
