//! The agent's folder: its key, its certificate and whom it belongs to, the master's time it last heard, its journal.
//! One running agent per folder. What the files mean to TLS is not known here.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use certs::{
    identity::{AgentKey, KeyError, peer_identity},
    join::Pin,
    state::{StateError, open_dir, read_secret, write_secret},
};
use proto::id::AgentId;
use rustix::fs::FlockOperation;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::config::address::MasterAddress;

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("the state folder cannot be used")]
    State(#[from] StateError),
    #[error("another agent is running with the state folder {}; each needs its own (--state-dir)", .0.display())]
    InUse(PathBuf),
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("the agent's key cannot be used")]
    Key(#[from] KeyError),
    #[error("{} is damaged; move it away and enrol again with a new secret", .0.display())]
    Damaged(PathBuf),
}

/// The open folder. Holds its lock until dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    _lock: File,
}

/// What enrolment left: whose agent this is, and its certificate. One file together with the key, so that a crash leaves
/// the old ones or the new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    pub master: MasterAddress,
    pub pin: Pin,
    pub agent_id: AgentId,
    pub certificate_der: Vec<u8>,
    pub not_before_ms: i64,
    pub not_after_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct EnrolmentText {
    master: String,
    master_pin: String,
    agent_id: AgentId,
    certificate: String,
    /// Of the certificate, where it is not `agent.key`: PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl StateDir {
    /// Creates the folder where needed, checks its mode, and takes its lock.
    pub fn open(dir: &Path) -> Result<Self, FolderError> {
        open_dir(dir)?;
        let path = dir.join("lock");
        let lock_error = |source| FolderError::Lock { path: path.clone(), source };
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(lock_error)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::InUse(dir.to_owned())),
            Err(error) => Err(lock_error(error.into())),
        }
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// The key in use: that of the enrolment, else the one made for the first.
    pub fn key(&self) -> Result<AgentKey, FolderError> {
        let path = enrolment_file(&self.dir);
        let text =
            read_secret(&path)?.and_then(|bytes| toml::from_str::<EnrolmentText>(str::from_utf8(&bytes).ok()?).ok());
        match text.and_then(|text| text.key) {
            Some(pem) => AgentKey::from_pem(&pem.into()).ok_or(FolderError::Damaged(path)),
            None => Ok(AgentKey::load_or_create(&self.first_key())?),
        }
    }

    fn first_key(&self) -> PathBuf {
        self.dir.join("agent.key")
    }

    pub fn enrolment(&self) -> Result<Option<Enrolment>, FolderError> {
        read_enrolment(&self.dir)
    }

    /// Keeps the enrolment with its key. A first key that is not this one is worth nothing any more and goes.
    pub fn save_enrolment(&self, enrolment: &Enrolment, key: &AgentKey) -> Result<(), FolderError> {
        let first = read_secret(&self.first_key())?.and_then(|bytes| String::from_utf8(bytes).ok());
        let first = first.and_then(|pem| AgentKey::from_pem(&pem.into()));
        let is_first = first.is_some_and(|first| first.key_sha256() == key.key_sha256());
        let text = EnrolmentText {
            master: enrolment.master.to_string(),
            master_pin: enrolment.pin.to_string(),
            agent_id: enrolment.agent_id.clone(),
            certificate: hex::encode(&enrolment.certificate_der),
            key: (!is_first).then(|| key.pem().expose_secret().to_owned()),
        };
        let text = toml::to_string(&text).unwrap_or_default();
        write_secret(&enrolment_file(&self.dir), text.as_bytes())?;
        if !is_first {
            // It comes again with the next enrolment that needs one.
            let _ = std::fs::remove_file(self.first_key());
        }
        Ok(())
    }

    /// The master's time as it was last told, Unix milliseconds; 0 if it never was.
    pub fn master_ms(&self) -> i64 {
        read_master_ms(&self.dir)
    }

    pub fn save_master_ms(&self, master_ms: i64) -> Result<(), FolderError> {
        Ok(write_secret(&self.dir.join("master-time"), master_ms.to_string().as_bytes())?)
    }
}

/// Where a running agent answers `landline-agent status`.
pub fn status_socket(dir: &Path) -> PathBuf {
    dir.join("status.sock")
}

fn enrolment_file(dir: &Path) -> PathBuf {
    dir.join("enrolment.toml")
}

/// Reads the enrolment without taking the folder's lock.
pub fn read_enrolment(dir: &Path) -> Result<Option<Enrolment>, FolderError> {
    let path = enrolment_file(dir);
    let Some(bytes) = read_secret(&path)? else { return Ok(None) };
    match parse(&bytes) {
        Some(enrolment) => Ok(Some(enrolment)),
        None => Err(FolderError::Damaged(path)),
    }
}

/// The master's time as it was last told, without taking the folder's lock.
pub fn read_master_ms(dir: &Path) -> i64 {
    let stored = read_secret(&dir.join("master-time")).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&stored).trim().parse().unwrap_or(0)
}

fn parse(bytes: &[u8]) -> Option<Enrolment> {
    let text: EnrolmentText = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let certificate_der = hex::decode(text.certificate).ok()?;
    let identity = peer_identity(&certificate_der).ok()?;
    Some(Enrolment {
        master: text.master.parse().ok()?,
        pin: text.master_pin.parse().ok()?,
        agent_id: text.agent_id,
        certificate_der,
        not_before_ms: identity.not_before_ms,
        not_after_ms: identity.not_after_ms,
    })
}

#[cfg(test)]
mod tests {
    use certs::authority::Authority;

    use super::*;

    #[test]
    fn an_enrolment_reads_back_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca")).unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        assert_eq!(state.enrolment().unwrap(), None);
        let agent_id: AgentId = "home-1".parse().unwrap();
        let in_a_year_ms = 1_900_000_000_000;
        let issued = authority.issue_agent(&state.key().unwrap().csr_der().unwrap(), &agent_id, in_a_year_ms).unwrap();
        let identity = peer_identity(&issued.der).unwrap();
        let enrolment = Enrolment {
            master: "[::1]:7443".parse().unwrap(),
            pin: authority.pin(),
            agent_id,
            certificate_der: issued.der,
            not_before_ms: identity.not_before_ms,
            not_after_ms: identity.not_after_ms,
        };
        state.save_enrolment(&enrolment, &state.key().unwrap()).unwrap();
        assert_eq!(state.enrolment().unwrap().as_ref(), Some(&enrolment));
        let new = AgentKey::generate().unwrap();
        assert_ne!(state.key().unwrap().key_sha256(), new.key_sha256());
        state.save_enrolment(&enrolment, &new).unwrap();
        assert_eq!(state.key().unwrap().key_sha256(), new.key_sha256());
        assert!(!state.first_key().exists(), "the old key is left on the disk");
        write_secret(&enrolment_file(&state.dir), b"master = 1").unwrap();
        assert!(matches!(state.enrolment(), Err(FolderError::Damaged(_))));
    }

    #[test]
    fn one_agent_per_folder_and_the_time_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        let state = StateDir::open(&dir).unwrap();
        assert!(matches!(StateDir::open(&dir), Err(FolderError::InUse(_))));
        assert_eq!(state.master_ms(), 0);
        state.save_master_ms(123).unwrap();
        drop(state);
        assert_eq!(StateDir::open(&dir).unwrap().master_ms(), 123);
    }
}
