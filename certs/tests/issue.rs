//! What the CA signs and what it keeps: nothing of a certificate request but its key, and its files across restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use certs::{
    authority::{Authority, AuthorityError, IssueError, IssuedCertificate},
    identity::{AgentKey, IdentityError, peer_identity},
    state::StateError,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

const DAY_MS: i64 = 24 * 3_600_000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn issue(authority: &Authority, csr: &[u8], not_after_ms: i64) -> Result<IssuedCertificate, IssueError> {
    authority.issue_agent(csr, &"home-1".parse().unwrap(), not_after_ms)
}

/// A request for everything an agent must not have.
fn greedy_csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["landline.internal".into(), "other-agent".into()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "other-agent");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    // privateKeyUsagePeriod: the one place where a request can name dates; 2020 to 2035.
    let period = b"\x30\x22\x80\x0f20200101000000Z\x81\x0f20350101000000Z".to_vec();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 16], period)];
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn nothing_a_request_asks_for_is_in_the_certificate() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(&root.path().join("ca")).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let before = now_ms();
    let issued = issue(&authority, &greedy_csr(&key), before + 3650 * DAY_MS).unwrap();

    let (_, certificate) = X509Certificate::from_der(&issued.der).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=home-1");
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names, [GeneralName::URI("landline:agent:home-1")]);
    assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
    let usages = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && !usages.server_auth && !usages.any, "{usages:?}");
    let key_usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(key_usage.digital_signature() && !key_usage.key_cert_sign() && !key_usage.crl_sign());
    assert!(certificate.extensions().iter().all(|extension| extension.oid.to_id_string() != "2.5.29.16"));
    assert!(certificate.raw_serial().len() >= 16);
    certificate.verify_signature(Some(X509Certificate::from_der(authority.ca_der()).unwrap().1.public_key())).unwrap();

    let identity = peer_identity(&issued.der).unwrap();
    assert_eq!(identity.agent_id.as_str(), "home-1");
    assert_eq!(identity.key_sha256, issued.key_sha256);
    assert_eq!(identity.not_after_ms, issued.not_after_ms);
    assert!(identity.not_after_ms <= now_ms() + 30 * DAY_MS && identity.not_after_ms > before + 29 * DAY_MS);
    assert!(identity.not_before_ms <= before - 3_590_000 && identity.not_before_ms > before - DAY_MS);
}

#[test]
fn the_caller_sets_the_end_and_every_certificate_has_its_own_serial() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(root.path().join("ca").as_path()).unwrap();
    let key = AgentKey::load_or_create(&root.path().join("agent.key")).unwrap();
    let csr = key.csr_der().unwrap();
    let end = (now_ms() + 7 * DAY_MS) / 1000 * 1000;
    let (one, other) = (issue(&authority, &csr, end).unwrap(), issue(&authority, &csr, end).unwrap());
    assert_eq!(one.not_after_ms, end);
    assert_eq!(one.key_sha256, key.key_sha256());
    let serial = |der: &[u8]| X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec();
    assert_ne!(serial(&one.der), serial(&other.der));
    assert!(matches!(issue(&authority, &csr, -1), Err(IssueError::Validity)));
    assert!(matches!(issue(&authority, &csr, i64::MIN), Err(IssueError::Validity)));
}

#[test]
fn requests_without_proof_of_possession_or_sense_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(&root.path().join("ca")).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let good = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let soon = now_ms() + DAY_MS;

    // Somebody else's key under our signature: swap the public key and keep the rest.
    let victim = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let at = good.windows(65).position(|window| window == key.public_key_raw()).unwrap();
    let mut stolen = good.clone();
    stolen[at..at + 65].copy_from_slice(victim.public_key_raw());
    assert!(matches!(issue(&authority, &stolen, soon), Err(IssueError::Unproven)));

    let mut trailing = good.clone();
    trailing.push(0);
    assert!(matches!(issue(&authority, &trailing, soon), Err(IssueError::Malformed)));
    for length in 0..good.len() {
        assert!(issue(&authority, &good[..length], soon).is_err(), "cut at {length}");
    }
    issue(&authority, &good, soon).unwrap();
    // Another kind of key is the agent's choice as long as TLS can verify it.
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&ed25519).unwrap().der().to_vec();
    issue(&authority, &csr, soon).unwrap();
}

#[test]
fn the_authority_and_the_agent_key_survive_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("ca");
    let first = Authority::load_or_create(&dir).unwrap();
    let again = Authority::load_or_create(&dir).unwrap();
    assert_eq!((first.pin(), first.ca_der()), (again.pin(), again.ca_der()));

    fs::remove_file(dir.join("ca.crt")).unwrap();
    let renewed = Authority::load_or_create(&dir).unwrap();
    assert_eq!(first.pin(), renewed.pin(), "a lost CA certificate changed the pin");

    let path = root.path().join("agent.key");
    let key = AgentKey::load_or_create(&path).unwrap();
    assert_eq!(AgentKey::load_or_create(&path).unwrap().key_sha256(), key.key_sha256());
    assert_eq!(mode(&path), 0o600);
    for file in ["ca.key", "ca.crt"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&dir), 0o700);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_damaged_or_exposed_ca_key_is_an_error_and_never_replaced() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("ca");
    Authority::load_or_create(&dir).unwrap();
    let key = dir.join("ca.key");
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    chmod(&key, 0o644);
    let lax = Authority::load_or_create(&dir).unwrap_err();
    assert!(matches!(lax, AuthorityError::State(StateError::LaxMode { .. })));
    assert!(lax.to_string().contains(&format!("chmod 0600 {}", key.display())), "{lax}");
    chmod(&key, 0o600);
    chmod(&dir, 0o755);
    let lax = Authority::load_or_create(&dir).unwrap_err();
    assert!(lax.to_string().contains(&format!("chmod 0700 {}", dir.display())), "{lax}");
    chmod(&dir, 0o700);

    fs::write(&key, "not a key").unwrap();
    assert!(matches!(Authority::load_or_create(&dir), Err(AuthorityError::CaKey { .. })));
    assert_eq!(fs::read(&key).unwrap(), b"not a key");

    let agent_key = root.path().join("agent.key");
    AgentKey::load_or_create(&agent_key).unwrap();
    fs::write(&agent_key, "\u{fffd}").unwrap();
    AgentKey::load_or_create(&agent_key).unwrap_err();
    chmod(&agent_key, 0o640);
    assert!(AgentKey::load_or_create(&agent_key).unwrap_err().to_string().contains("chmod 0600"));
}

#[test]
fn foreign_certificates_name_no_agent() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(&root.path().join("ca")).unwrap();
    assert_eq!(peer_identity(authority.ca_der()), Err(IdentityError::NoAgent));
    assert_eq!(peer_identity(b"nonsense"), Err(IdentityError::Malformed));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let named = |names: &[&str]| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| rcgen::SanType::URI((*name).try_into().unwrap())).collect();
        peer_identity(params.self_signed(&key).unwrap().der()).map(|identity| identity.agent_id.to_string())
    };
    assert_eq!(named(&["landline:agent:a"]), Ok("a".into()));
    assert_eq!(named(&["landline:agent:a", "landline:agent:b"]), Err(IdentityError::Ambiguous));
    assert_eq!(named(&["landline:agent:../b"]), Err(IdentityError::NoAgent));
    assert_eq!(named(&["landline:node:b"]), Err(IdentityError::NoAgent));
}
