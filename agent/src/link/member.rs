//! Who this agent is to its master: key, certificate, pin, address. Merges what the owner configured with what an earlier
//! enrolment left, and keeps what a new one brings.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    config::{Join, Proof, address::MasterAddress},
    freshness::Freshness,
    state::{Enrolment, FolderError, StateDir},
};
use certs::{
    identity::{AgentKey, IdentityError, peer_identity},
    join::Pin,
    tls::{self, TlsError},
};
use proto::{enrol::Issued, id::AgentId};
use rustls::ClientConfig;

/// The day this version was made, Unix milliseconds: no certificate is judged by an earlier time, however wrong the
/// machine's clock is.
pub(crate) const MADE_ON_MS: i64 = 1_795_305_600_000;
/// A master that claims a later time than this is wrong, and believing it would outlive every certificate: 20 years.
const PLAUSIBLE_UNTIL_MS: i64 = MADE_ON_MS + 20 * 365 * 86_400_000;

/// Why this agent cannot even try.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("not enrolled, and the configuration lacks {}; paste what `landline agents add` prints, or use `landline-agent enrol TOKEN`", .0.join(", "))]
    Incomplete(Vec<&'static str>),
    #[error("enrolled as {enrolled}, configured as {configured}; to change, configure the new agent's secret as well")]
    OtherAgent { enrolled: AgentId, configured: AgentId },
    #[error(
        "enrolled with another master than the configured one (its pin differs); to change, configure the new secret as well"
    )]
    OtherMaster,
}

/// A reply to enrolment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    #[error("the certificate cannot be read")]
    Unreadable(#[from] IdentityError),
    #[error("the certificate is for {0}, not for this agent")]
    OtherAgent(AgentId),
    #[error("the certificate is for another key")]
    OtherKey,
    #[error("the certificate cannot be kept")]
    Keep(#[from] FolderError),
}

#[derive(Debug)]
pub struct Member {
    pub master: MasterAddress,
    pub pin: Pin,
    pub agent_id: AgentId,
    proof: Option<Proof>,
    left_by_installer: Option<PathBuf>,
    state: StateDir,
    freshness: Arc<Freshness>,
    identity: Mutex<Identity>,
}

/// A key, and what was issued for it.
#[derive(Debug, Clone)]
struct Identity {
    key: Arc<AgentKey>,
    enrolment: Option<Enrolment>,
}

impl Member {
    pub fn new(state: StateDir, join: Join, freshness: Arc<Freshness>) -> Result<Self, MemberError> {
        let key = Arc::new(state.key()?);
        let enrolment = fitting(state.enrolment()?, &join)?;
        let known = |missing: &'static str| enrolment.as_ref().ok_or(missing);
        let master = join.master.ok_or("master").or_else(|missing| known(missing).map(|known| known.master.clone()));
        let pin = join.pin.ok_or("master_pin").or_else(|missing| known(missing).map(|known| known.pin));
        let named = join.agent_id.or_else(|| match (&enrolment, &join.proof) {
            // With a key the name is the agent's to propose.
            (None, Some(Proof::Key(_))) => Some(name_for(&gethostname::gethostname().to_string_lossy())),
            _ => None,
        });
        let agent_id = named.ok_or("agent_id").or_else(|missing| known(missing).map(|known| known.agent_id.clone()));
        let proof = join.proof.as_ref().map(drop).ok_or("agent_secret").or_else(|missing| known(missing).map(drop));
        match (master, pin, agent_id, proof) {
            (Ok(master), Ok(pin), Ok(agent_id), Ok(())) => {
                let identity = Mutex::new(Identity { key, enrolment });
                let (proof, left_by_installer) = (join.proof, join.left_by_installer);
                let member = Self { master, pin, agent_id, proof, left_by_installer, state, freshness, identity };
                if member.enrolment().is_some() {
                    member.forget_left();
                }
                Ok(member)
            }
            (master, pin, agent_id, proof) => {
                let missing = [master.err(), pin.err(), agent_id.err(), proof.err()];
                Err(MemberError::Incomplete(missing.into_iter().flatten().collect()))
            }
        }
    }

    /// What to enrol with, where the owner configured something.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// There is a certificate now.
    fn forget_left(&self) {
        if let Some(path) = &self.left_by_installer
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a used join token could not be removed");
        }
    }

    pub fn enrolment(&self) -> Option<Enrolment> {
        self.lock().enrolment.clone()
    }

    /// The key in use.
    pub fn key(&self) -> Arc<AgentKey> {
        self.lock().key.clone()
    }

    /// TLS for a line; `None` before enrolment.
    pub fn line_tls(&self) -> Option<Result<Arc<ClientConfig>, TlsError>> {
        let Identity { key, enrolment } = self.lock().clone();
        Some(tls::agent_line_config(&self.pin, &key, &enrolment?.certificate_der, self.at_least_ms()))
    }

    /// TLS for a first enrolment, which presents nothing, or for a renewal, which presents the certificate it renews.
    pub fn enrol_tls(&self, renewal: bool) -> Result<Arc<ClientConfig>, TlsError> {
        let Identity { key, enrolment } = self.lock().clone();
        let enrolment = enrolment.filter(|_| renewal);
        let client = enrolment.as_ref().map(|enrolment| (&*key, enrolment.certificate_der.as_slice()));
        tls::agent_enrol_config(&self.pin, client, self.at_least_ms())
    }

    /// Checks that a certificate is this agent's and of this key, and keeps both. Blocks on the disk.
    pub fn keep(&self, issued: &Issued, key: Arc<AgentKey>) -> Result<(), NotOurs> {
        let identity = peer_identity(&issued.certificate_der)?;
        if identity.agent_id != self.agent_id {
            return Err(NotOurs::OtherAgent(identity.agent_id));
        }
        if identity.key_sha256 != key.key_sha256() {
            return Err(NotOurs::OtherKey);
        }
        let enrolment = Enrolment {
            master: self.master.clone(),
            pin: self.pin,
            agent_id: self.agent_id.clone(),
            certificate_der: issued.certificate_der.clone(),
            not_before_ms: identity.not_before_ms,
            not_after_ms: identity.not_after_ms,
        };
        self.state.save_enrolment(&enrolment, &key)?;
        *self.lock() = Identity { key, enrolment: Some(enrolment) };
        self.forget_left();
        Ok(())
    }

    /// Keeps the master's time for a next start with a dead clock. Blocks on the disk.
    pub fn keep_time(&self, master_ms: i64) {
        if let Err(error) = self.state.save_master_ms(master_ms) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the master's time was not stored");
        }
    }

    /// The master's time: as it runs, else as it was last told; 0 if it never was.
    pub fn master_ms(&self) -> i64 {
        self.freshness.master_ms().unwrap_or_else(|| self.state.master_ms())
    }

    fn at_least_ms(&self) -> i64 {
        self.master_ms().clamp(MADE_ON_MS, PLAUSIBLE_UNTIL_MS)
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stored enrolment, if it is the configured agent's with the configured master. One that is not is only given up
/// where a secret for the new one is at hand.
fn fitting(stored: Option<Enrolment>, join: &Join) -> Result<Option<Enrolment>, MemberError> {
    let Some(stored) = stored else { return Ok(None) };
    let other_agent = join.agent_id.as_ref().filter(|configured| **configured != stored.agent_id);
    let other_master = join.pin.as_ref().is_some_and(|pin| *pin != stored.pin);
    match (other_agent, other_master, &join.proof) {
        (None, false, _) => Ok(Some(stored)),
        (_, _, Some(_)) => Ok(None),
        (Some(configured), _, None) => {
            Err(MemberError::OtherAgent { enrolled: stored.agent_id, configured: configured.clone() })
        }
        (None, true, None) => Err(MemberError::OtherMaster),
    }
}

/// A host's name as an agent's: what does not fit becomes a dash.
pub fn name_for(hostname: &str) -> AgentId {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = hostname.chars().map(plain).collect();
    name.truncate(proto::limits::AGENT_ID_MAX);
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let fallback = |_| "agent".parse().unwrap_or_else(|_| unreachable!("a plain word is an id"));
    name.parse().unwrap_or_else(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_becomes_an_id() {
        let long = "x".repeat(100);
        let cases = [
            ("Nas.Local", "nas.local"),
            ("fw_1", "fw_1"),
            ("Büro PC", "b-ro-pc"),
            ("-x-", "x"),
            ("", "agent"),
            ("日本", "agent"),
            (long.as_str(), &long[..63]),
        ];
        for (hostname, name) in cases {
            assert_eq!(name_for(hostname).as_str(), name, "{hostname}");
        }
    }
}
