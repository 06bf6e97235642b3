//! The owner's stop switch (SECURITY R29): a file in the state folder. While it is there this agent holds no line and
//! runs nothing, whoever starts it and however often. It is put there and taken away by the owner's own hand alone:
//! nothing that a master sends leads here. What has to end is not known here.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::state::{StateError, read_secret, write_secret};
use jiff::Timestamp;
use tokio::sync::watch;

/// How often a file that was put there by hand is looked for; `landline-agent lockdown` makes the agent look at once.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest reason that is kept, bytes.
pub const REASON_MAX: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    #[error("there is no state folder {}: no agent was ever here", .0.display())]
    NoFolder(PathBuf),
    #[error("the reason is longer than {REASON_MAX} bytes")]
    LongReason,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// That a machine is locked down. The reason is the owner's own note and never leaves the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imposed {
    pub since: Timestamp,
    pub reason: String,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("lockdown")
}

/// Whether the agent of this state folder is locked down. A file that cannot be read, or whatever else lies in its place,
/// locks down as well.
pub fn read(dir: &Path) -> Option<Imposed> {
    let path = file(dir);
    let since = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => Timestamp::UNIX_EPOCH,
    };
    let text = read_secret(&path).ok().flatten().unwrap_or_default();
    Some(Imposed { since, reason: String::from_utf8_lossy(&text).trim().to_owned() })
}

/// Locks down. On disk when this returns. One that is in force stays as it is, and is returned.
pub fn impose(dir: &Path, reason: &str) -> Result<Imposed, LockdownError> {
    if reason.len() > REASON_MAX {
        return Err(LockdownError::LongReason);
    }
    let Ok(folder) = fs::metadata(dir) else { return Err(LockdownError::NoFolder(dir.to_owned())) };
    if let Some(imposed) = read(dir) {
        return Ok(imposed);
    }
    let path = file(dir);
    write_secret(&path, reason.as_bytes())?;
    // Where root does it for an agent that is not root, that agent may read why.
    if rustix::process::geteuid().is_root() {
        let given = chown(&path, Some(folder.uid()), Some(folder.gid()));
        given.map_err(|source| LockdownError::Io { action: "give away", path: path.clone(), source })?;
    }
    Ok(read(dir).unwrap_or_else(|| Imposed { since: Timestamp::now(), reason: reason.to_owned() }))
}

/// Lifts it; false if there was none. Gone from the disk when this returns.
pub fn lift(dir: &Path) -> Result<bool, LockdownError> {
    let path = file(dir);
    let failed = |action, source| LockdownError::Io { action, path: path.clone(), source };
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("remove", error)),
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("sync the folder of", error))?;
    Ok(true)
}

/// The switch as a running agent watches it. Clones share it.
#[derive(Debug, Clone)]
pub struct Switch {
    dir: PathBuf,
    imposed: Arc<watch::Sender<Option<Imposed>>>,
}

impl Switch {
    /// Looks once; [`watch`](Self::watch) goes on looking.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), imposed: Arc::new(watch::Sender::new(read(dir))) }
    }

    /// Looks at the file. A look is one question to the file system's memory, and is made where it is asked for.
    pub fn look(&self) {
        let found = read(&self.dir);
        self.imposed.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
    }

    /// Looks for ever.
    pub async fn watch(self) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            every.tick().await;
            self.look();
        }
    }

    pub fn now(&self) -> Option<Imposed> {
        self.imposed.borrow().clone()
    }

    /// Resolves while the machine is locked down.
    pub async fn imposed(&self) {
        self.until(Option::is_some).await;
    }

    /// Resolves while it is not.
    pub async fn lifted(&self) {
        self.until(Option::is_none).await;
    }

    async fn until(&self, holds: impl FnMut(&Option<Imposed>) -> bool) {
        // The sender lives as long as `self`.
        let _ = self.imposed.subscribe().wait_for(holds).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_stays_until_it_is_lifted_and_keeps_its_first_word() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!((read(dir), lift(dir).unwrap()), (None, false));
        let imposed = impose(dir, "selling the house").unwrap();
        assert_eq!((read(dir).as_ref(), imposed.reason.as_str()), (Some(&imposed), "selling the house"));
        assert_eq!(impose(dir, "another").unwrap(), imposed, "a second one changes nothing");
        assert_eq!(fs::metadata(file(dir)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(lift(dir).unwrap());
        assert_eq!(read(dir), None);
        assert!(matches!(impose(dir, &"x".repeat(REASON_MAX + 1)), Err(LockdownError::LongReason)));
        assert!(matches!(impose(&dir.join("none"), ""), Err(LockdownError::NoFolder(_))));
    }

    #[test]
    fn whatever_lies_in_its_place_locks_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        fs::write(&path, b"readable by others").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(folder.path()).unwrap().reason, "", "locked down, and what others may write is not repeated");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read(folder.path()).is_some());
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/nonexistent", &path).unwrap();
        assert!(read(folder.path()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_agent_sees_it_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let switch = Switch::new(folder.path());
        let _watching = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(switch.clone().watch()));
        switch.lifted().await;
        fs::write(file(folder.path()), b"").unwrap();
        tokio::time::timeout(Duration::from_secs(1), switch.imposed()).await.unwrap();
        assert!(switch.now().is_some());
        lift(folder.path()).unwrap();
        tokio::time::timeout(Duration::from_secs(1), switch.lifted()).await.unwrap();
    }
}
