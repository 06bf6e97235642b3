//! The master's certificate authority: one key, kept in the state folder, that signs the agents' certificates and the
//! master's own. Writes every field of what it signs; of a certificate request it takes the public key and nothing else
//! (SECURITY R2). Who may have a certificate, and logging that one was issued, is the caller's.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::id::AgentId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{
    identity::{self, AGENT_URI, KeyError},
    join::Pin,
    state::{self, StateError},
    tls::SERVER_NAME,
    verifier,
};

/// Longest life of an agent's certificate, milliseconds (SECURITY R2).
const AGENT_VALID_MAX_MS: i64 = 30 * 24 * 3_600_000;
/// How far an agent's certificate reaches back, milliseconds: clocks differ.
const BACKDATE_MS: i64 = 3_600_000;
/// Years between which the CA and the server certificate are valid: no dead or far-ahead clock locks anybody out.
const LONG_LIVED: (i32, i32) = (2020, 2060);
const SERIAL_BYTES: usize = 16;

const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.crt";
const SERVER_KEY: &str = "server.key";
const SERVER_CERTIFICATE: &str = "server.crt";

/// Why there is no authority or no server identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(
        "{} is no usable CA key; restore it from a backup. Without it every agent has to enrol again",
        path.display()
    )]
    CaKey { path: PathBuf, source: rcgen::Error },
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("not a PKCS #10 certificate request")]
    Malformed,
    #[error("the certificate request is not signed by its own key")]
    Unproven,
    #[error("keys of this kind are not supported; use ECDSA P-256")]
    KeyKind(#[source] rcgen::Error),
    #[error("the requested end of validity is out of range")]
    Validity,
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

/// A certificate for an agent.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    pub der: Vec<u8>,
    /// SHA-256 of the SubjectPublicKeyInfo: what to keep on record.
    pub key_sha256: [u8; 32],
    pub not_after_ms: i64,
}

/// The master's own key and certificate, with the CA behind it.
pub struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// The CA. One per master; share it behind an `Arc`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_der: CertificateDer<'static>,
    pin: Pin,
}

impl Authority {
    /// Reads the CA from `dir`, or makes one where there is none. A key that cannot be read is an error, never replaced;
    /// a lost certificate is made again for the same key, which leaves the pin as it was.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        state::open_dir(dir)?;
        let key = identity::load_or_create_key(&dir.join(CA_KEY)).map_err(|error| match error {
            KeyError::State(error) => AuthorityError::State(error),
            KeyError::Unreadable { path, source } => AuthorityError::CaKey { path, source },
            KeyError::Generate(source) | KeyError::Request(source) => AuthorityError::Make(source),
        })?;
        let spki = key.subject_public_key_info();
        let pin = Pin::of_spki(&spki);
        let path = dir.join(CA_CERTIFICATE);
        let stored = state::read_secret(&path)?.map(CertificateDer::from);
        let ca_der = match stored.filter(|der| verifier::spki(der).is_some_and(|found| found == spki)) {
            Some(der) => der,
            None => {
                let der = ca_params(&pin)?.self_signed(&key)?.der().clone();
                state::write_secret(&path, &der)?;
                der
            }
        };
        Ok(Self { issuer: Issuer::from_ca_cert_der(&ca_der, key)?, ca_der, pin })
    }

    /// The CA certificate.
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// What agents know this CA by.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// A client certificate for the key of the request, naming `agent` and nothing the request asks for. It ends at
    /// `not_after_ms` or after thirty days, whichever comes first.
    pub fn issue_agent(
        &self,
        csr_der: &[u8],
        agent: &AgentId,
        not_after_ms: i64,
    ) -> Result<IssuedCertificate, IssueError> {
        let spki = proven_key(csr_der)?;
        let public_key = SubjectPublicKeyInfo::from_der(&spki).map_err(IssueError::KeyKind)?;
        let now_ms = now_ms();
        // X.509 counts whole seconds.
        let not_after_ms = not_after_ms.min(now_ms.saturating_add(AGENT_VALID_MAX_MS)) / 1000 * 1000;
        let not_before_ms = now_ms.min(not_after_ms).saturating_sub(BACKDATE_MS);
        let mut params = leaf_params(agent.as_str(), ExtendedKeyUsagePurpose::ClientAuth)?;
        let uri = format!("{AGENT_URI}{agent}").try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(not_before_ms)?;
        params.not_after = epoch + since_epoch(not_after_ms)?;
        let certificate = params.signed_by(&public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(IssuedCertificate {
            der: certificate.der().to_vec(),
            key_sha256: Sha256::digest(&spki).into(),
            not_after_ms,
        })
    }

    /// The master's own identity under [`SERVER_NAME`], kept in `dir`. Made anew when it is missing, cannot be read, or
    /// belongs to another CA: nobody knows the master by it, only by the CA.
    pub fn server_identity(&self, dir: &Path) -> Result<ServerIdentity, AuthorityError> {
        state::open_dir(dir)?;
        let (key_path, certificate_path) = (dir.join(SERVER_KEY), dir.join(SERVER_CERTIFICATE));
        let key = state::read_secret(&key_path)?.and_then(|pem| identity::parse_key(&pem).ok());
        let certificate = state::read_secret(&certificate_path)?.map(CertificateDer::from);
        if let (Some(key), Some(certificate)) = (key, certificate)
            && self.is_ours(&key, &certificate)
        {
            return Ok(self.identity(&key, certificate));
        }
        let key = identity::generate_key()?;
        let mut params = leaf_params(SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        state::write_secret(&key_path, key.serialize_pem().as_bytes())?;
        state::write_secret(&certificate_path, &certificate)?;
        Ok(self.identity(&key, certificate))
    }

    fn is_ours(&self, key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
        verifier::spki(certificate).is_some_and(|found| found == key.subject_public_key_info())
            && verifier::server_chain(
                &self.pin,
                certificate,
                std::slice::from_ref(&self.ca_der),
                SERVER_NAME,
                verifier::now(),
            )
            .is_ok()
    }

    fn identity(&self, key: &KeyPair, certificate: CertificateDer<'static>) -> ServerIdentity {
        ServerIdentity { chain: vec![certificate, self.ca_der.clone()], key: identity::private_der(key) }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.pin)
    }
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerIdentity")
    }
}

/// SHA-256 of the public key of a request that is signed by it.
pub fn csr_key_sha256(csr_der: &[u8]) -> Result<[u8; 32], IssueError> {
    Ok(Sha256::digest(proven_key(csr_der)?).into())
}

/// The public key of a request whose signature proves that the sender holds the private one.
fn proven_key(csr_der: &[u8]) -> Result<Vec<u8>, IssueError> {
    let (rest, request) = X509CertificationRequest::from_der(csr_der).map_err(|_| IssueError::Malformed)?;
    if !rest.is_empty() {
        return Err(IssueError::Malformed);
    }
    request.verify_signature().map_err(|_| IssueError::Unproven)?;
    Ok(request.certification_request_info.subject_pki.raw.to_vec())
}

/// Everything that all certificates of ours share.
fn base_params(common_name: &str) -> Result<CertificateParams, StateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(LONG_LIVED.0, 1, 1);
    params.not_after = date_time_ymd(LONG_LIVED.1, 1, 1);
    let mut serial = state::random(SERIAL_BYTES)?;
    // Positive and of full length, as X.509 wants it.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(params)
}

fn ca_params(pin: &Pin) -> Result<CertificateParams, StateError> {
    // The name tells two CAs apart where both are known, so that chains are built to the right one.
    let mut params = base_params(&format!("Landline CA {}", hex::encode(&pin.as_bytes()[..4])))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(common_name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, StateError> {
    let mut params = base_params(common_name)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn since_epoch(unix_ms: i64) -> Result<Duration, IssueError> {
    u64::try_from(unix_ms).map(Duration::from_millis).map_err(|_| IssueError::Validity)
}
