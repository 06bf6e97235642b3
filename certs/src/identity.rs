//! Who an agent is: its key, made on its own machine and never leaving it, and what a verified peer certificate says.
//! Reads certificates; judging them is for the TLS layer (chain) and the master (expiry, key on record).

use std::path::Path;

use proto::id::AgentId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::state::{self, StateError};

/// In front of the agent's id in the certificate's URI name.
pub(crate) const AGENT_URI: &str = "landline:agent:";

/// What a certificate of ours says of its owner. Only as good as the verification it went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub agent_id: AgentId,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_sha256: [u8; 32],
    pub not_before_ms: i64,
    pub not_after_ms: i64,
}

/// Why a certificate names no agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("not an X.509 certificate")]
    Malformed,
    #[error("the certificate names no agent")]
    NoAgent,
    #[error("the certificate names more than one agent")]
    Ambiguous,
}

/// Why an agent has no key to use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{} holds no usable key; move it away and enrol again with a new secret", path.display())]
    Unreadable { path: std::path::PathBuf, source: rcgen::Error },
    #[error("cannot make a key")]
    Generate(#[source] rcgen::Error),
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
}

/// The agent named by a certificate that TLS has already verified.
pub fn peer_identity(certificate_der: &[u8]) -> Result<PeerIdentity, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).map_err(|_| IdentityError::Malformed)?;
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut agents = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
        _ => None,
    });
    let agent_id = agents.next().ok_or(IdentityError::NoAgent)?.parse().map_err(|_| IdentityError::NoAgent)?;
    if agents.next().is_some() {
        return Err(IdentityError::Ambiguous);
    }
    let validity = certificate.validity();
    Ok(PeerIdentity {
        agent_id,
        key_sha256: Sha256::digest(certificate.public_key().raw).into(),
        not_before_ms: validity.not_before.timestamp().saturating_mul(1000),
        not_after_ms: validity.not_after.timestamp().saturating_mul(1000),
    })
}

/// An agent's private key (ECDSA P-256). Its debug form shows the public part only.
pub struct AgentKey(KeyPair);

impl AgentKey {
    /// Reads the key, or makes one (0600) where there is none. A file that is no key is left alone: it may be the only
    /// copy of an identity.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        load_or_create_key(path).map(Self)
    }

    /// A fresh one, on no disk yet.
    pub fn generate() -> Result<Self, KeyError> {
        generate_key().map(Self).map_err(KeyError::Generate)
    }

    /// From what [`pem`](Self::pem) gave.
    pub fn from_pem(pem: &SecretString) -> Option<Self> {
        parse_key(pem.expose_secret().as_bytes()).ok().map(Self)
    }

    /// The private key itself, for a file that nobody else reads.
    pub fn pem(&self) -> SecretString {
        self.0.serialize_pem().into()
    }

    /// A certificate request signed by this key. It asks for nothing: the master writes subject, names and dates.
    pub fn csr_der(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 of the SubjectPublicKeyInfo, as [`PeerIdentity::key_sha256`].
    pub fn key_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.subject_public_key_info()).into()
    }

    pub(crate) fn private_der(&self) -> PrivateKeyDer<'static> {
        private_der(&self.0)
    }
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgentKey(sha256:{})", hex::encode(self.key_sha256()))
    }
}

pub(crate) fn load_or_create_key(path: &Path) -> Result<KeyPair, KeyError> {
    match state::read_secret(path)? {
        Some(bytes) => parse_key(&bytes).map_err(|source| KeyError::Unreadable { path: path.into(), source }),
        None => {
            let key = generate_key().map_err(KeyError::Generate)?;
            state::write_secret(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
    }
}

pub(crate) fn generate_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn parse_key(pem: &[u8]) -> Result<KeyPair, rcgen::Error> {
    let pem = std::str::from_utf8(pem).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn private_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}
