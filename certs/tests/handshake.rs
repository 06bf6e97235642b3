//! Both TLS configurations against each other, in memory: who gets through, who does not, and whose clock may be wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use certs::{
    authority::Authority,
    identity::{AgentKey, peer_identity},
    join::Pin,
    tls::{self, SERVER_NAME},
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};

const DAY_MS: i64 = 24 * 3_600_000;

struct House {
    authority: Authority,
    server: Arc<ServerConfig>,
    key: AgentKey,
    root: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&root.path().join("master")).unwrap();
        let server = server(&authority, &root.path().join("master"));
        let key = AgentKey::load_or_create(&root.path().join("agent.key")).unwrap();
        Self { authority, server, key, root }
    }

    fn certificate(&self, not_after_ms: i64) -> Vec<u8> {
        let csr = self.key.csr_der().unwrap();
        self.authority.issue_agent(&csr, &"home-1".parse().unwrap(), not_after_ms).unwrap().der
    }

    fn line(&self, at_least_ms: i64) -> ClientConfig {
        let certificate = self.certificate(now_ms() + DAY_MS);
        let config = tls::agent_line_config(&self.authority.pin(), &self.key, &certificate, at_least_ms).unwrap();
        ClientConfig::clone(&config)
    }
}

fn server(authority: &Authority, dir: &Path) -> Arc<ServerConfig> {
    tls::server_config(authority, &authority.server_identity(dir).unwrap()).unwrap()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Runs a handshake to its end and a little further, so that both sides have said all they have to say.
fn shake(
    client: impl Into<Arc<ClientConfig>>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(client.into(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

#[test]
fn an_agent_and_its_master_agree_on_tls_13_and_the_first_cipher() {
    let house = House::new();
    let (client, server) = shake(house.line(0), &house.server).unwrap();
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let suite = server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(server.alpn_protocol(), Some(proto::ALPN_LINE));
    assert_eq!(client.alpn_protocol(), Some(proto::ALPN_LINE));
    let peer = peer_identity(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!((peer.agent_id.as_str(), peer.key_sha256), ("home-1", house.key.key_sha256()));
}

#[test]
fn enrolment_needs_no_certificate_and_renewal_brings_one() {
    let house = House::new();
    let pin = house.authority.pin();
    let (_, server) = shake(tls::agent_enrol_config(&pin, None, 0).unwrap(), &house.server).unwrap();
    assert_eq!((server.alpn_protocol(), server.peer_certificates()), (Some(proto::ALPN_ENROL), None));

    let certificate = house.certificate(now_ms() + DAY_MS);
    let renewal = tls::agent_enrol_config(&pin, Some((&house.key, &certificate)), 0).unwrap();
    let (_, server) = shake(renewal, &house.server).unwrap();
    assert_eq!(server.alpn_protocol(), Some(proto::ALPN_ENROL));
    assert_eq!(server.peer_certificates().unwrap()[0].as_ref(), certificate);
}

#[test]
fn a_certificate_of_five_weeks_ago_passes_tls_and_says_how_old_it_is() {
    let house = House::new();
    let ended = (now_ms() - 35 * DAY_MS) / 1000 * 1000;
    let certificate = house.certificate(ended);
    let config = tls::agent_line_config(&house.authority.pin(), &house.key, &certificate, 0).unwrap();
    let (_, server) = shake(config, &house.server).unwrap();
    let peer = peer_identity(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(peer.not_after_ms, ended);
}

#[test]
fn a_master_under_another_ca_is_refused_before_anything_is_sent() {
    let (house, stranger) = (House::new(), House::new());
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(shake(house.line(0), &stranger.server).unwrap_err(), unknown);
    let enrol = tls::agent_enrol_config(&house.authority.pin(), None, 0).unwrap();
    assert_eq!(shake(enrol, &stranger.server).unwrap_err(), unknown);
    let wrong_pin = tls::agent_enrol_config(&Pin::of_spki(b"other"), None, 0).unwrap();
    assert_eq!(shake(wrong_pin, &house.server).unwrap_err(), unknown);
}

#[test]
fn the_pinned_ca_beside_a_leaf_it_did_not_sign_convinces_nobody() {
    let (house, liar) = (House::new(), House::new());
    // The liar's own key and certificate, and behind them the CA that the agent pinned: its certificate is public.
    let dir = liar.root.path().join("master");
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(dir.join("server.key")).unwrap()).unwrap();
    let leaf = std::fs::read(dir.join("server.crt")).unwrap();
    let chain = vec![leaf.into(), house.authority.ca_der().to_vec().into()];
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![proto::ALPN_LINE.to_vec()];
    let refused = shake(house.line(0), &Arc::new(config)).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::UnknownIssuer));
}

#[test]
fn an_agent_cannot_pose_as_the_master() {
    let house = House::new();
    let leaf = house.certificate(now_ms() + DAY_MS);
    let pem = std::fs::read_to_string(house.root.path().join("agent.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&pem).unwrap();
    let chain = vec![leaf.into(), house.authority.ca_der().to_vec().into()];
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![proto::ALPN_LINE.to_vec()];
    assert!(matches!(shake(house.line(0), &Arc::new(config)), Err(Error::InvalidCertificate(_))));
}

#[test]
fn clients_of_another_ca_and_the_masters_own_certificate_are_refused() {
    let (house, stranger) = (House::new(), House::new());
    // Trusts our master, but its certificate is of another CA.
    let certificate = stranger.certificate(now_ms() + DAY_MS);
    let config = tls::agent_line_config(&house.authority.pin(), &stranger.key, &certificate, 0).unwrap();
    let refused = shake(config, &house.server).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::UnknownIssuer));

    let dir = house.root.path().join("master");
    let key = AgentKey::load_or_create(&dir.join("server.key")).unwrap();
    let certificate = std::fs::read(dir.join("server.crt")).unwrap();
    let config = tls::agent_line_config(&house.authority.pin(), &key, &certificate, 0).unwrap();
    assert!(matches!(shake(config, &house.server), Err(Error::InvalidCertificate(_))));
}

#[test]
fn a_certificate_without_its_key_is_of_no_use() {
    let (house, thief) = (House::new(), House::new());
    let certificate = house.certificate(now_ms() + DAY_MS);
    tls::agent_line_config(&house.authority.pin(), &thief.key, &certificate, 0).unwrap_err();
}

#[test]
fn no_clock_locks_anybody_out() {
    let house = House::new();
    let ten_years_ahead = u64::try_from(now_ms() / 1000).unwrap() + 10 * 365 * 86_400;
    let build_date_ms = 1_767_225_600_000;
    for (clock, at_least_ms) in [(0, build_date_ms), (ten_years_ahead, build_date_ms), (ten_years_ahead, 0)] {
        let mut client = house.line(at_least_ms);
        client.time_provider = Arc::new(Clock(clock));
        shake(client, &house.server).unwrap_or_else(|error| panic!("agent at {clock}: {error}"));
        let mut server = ServerConfig::clone(&house.server);
        server.time_provider = Arc::new(Clock(clock));
        shake(house.line(at_least_ms), &Arc::new(server)).unwrap_or_else(|error| panic!("master at {clock}: {error}"));
    }
    // The rule has an edge: with neither clock nor a known time, the certificate counts as not yet valid.
    let mut client = house.line(0);
    client.time_provider = Arc::new(Clock(0));
    let refused = shake(client, &house.server).unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(CertificateError::NotValidYet)), "{refused}");
}

#[test]
fn nothing_is_resumed_and_no_early_data_is_taken() {
    let house = House::new();
    let client = Arc::new(house.line(0));
    for _ in 0..2 {
        let (mut client, server) = shake(client.clone(), &house.server).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
        assert!(client.early_data().is_none());
    }
    // Even a client that wants to.
    let mut eager = house.line(0);
    eager.resumption = rustls::client::Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let (_, server) = shake(eager.clone(), &house.server).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_stranger_to_both_protocols_is_told_so() {
    let house = House::new();
    let mut client = house.line(0);
    client.alpn_protocols = vec![b"h3".to_vec()];
    assert_eq!(shake(client, &house.server).unwrap_err(), Error::NoApplicationProtocol);
}

#[test]
fn the_servers_identity_persists_and_is_made_anew_when_it_cannot_be_used() {
    let house = House::new();
    let dir = house.root.path().join("master");
    let leaf = |server: &Arc<ServerConfig>| {
        let (client, _) = shake(house.line(0), server).unwrap();
        client.peer_certificates().unwrap()[0].to_vec()
    };
    let first = leaf(&house.server);
    assert_eq!(first, leaf(&server(&house.authority, &dir)));

    let other_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let stranger = House::new();
    let of_another_ca = std::fs::read(stranger.root.path().join("master/server.crt")).unwrap();
    let damages: [(&str, &[u8]); 4] = [
        ("server.crt", b"nonsense"),
        ("server.key", b"nonsense"),
        ("server.key", other_key.as_bytes()),
        ("server.crt", &of_another_ca),
    ];
    for (file, damage) in damages {
        let before = leaf(&server(&house.authority, &dir));
        std::fs::write(dir.join(file), damage).unwrap();
        let after = leaf(&server(&house.authority, &dir));
        assert_ne!(before, after, "{file}");
        assert_eq!(after, leaf(&server(&house.authority, &dir)), "{file}");
    }
}
