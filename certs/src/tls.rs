//! TLS of both ends: version 1.3 only, one crypto provider passed explicitly, AES-128-GCM first, nothing resumed and no
//! early data (SECURITY R6). Whether the peer is welcome beyond its chain is decided above.

use std::sync::Arc;

use proto::{ALPN_ENROL, ALPN_LINE};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite},
    },
    pki_types::CertificateDer,
    server::NoServerSessionStorage,
    version::TLS13,
};

use crate::{
    authority::{Authority, ServerIdentity},
    identity::AgentKey,
    join::Pin,
    verifier::{AgentsOfOurCa, Nobody, PinnedMaster},
};

/// The name every master's certificate carries: agents know a master by its CA, not by where it lives.
pub const SERVER_NAME: &str = "landline.internal";

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("key and certificate do not make a TLS configuration")]
    Config(#[from] rustls::Error),
}

/// The one crypto provider, to be passed wherever rustls would otherwise look for a process-wide one.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    // AES-256 costs 17 % and ChaCha20 21 % of the rate where the processor has AES.
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
}

/// For the public TCP port: the same with TLS 1.2's suites of the same ciphers behind it.
pub(crate) fn web_provider() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&provider());
    provider.cipher_suites.extend([
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]);
    Arc::new(provider)
}

/// For the master: both ALPNs; a client certificate is optional, and where there is one it must be of our CA. Its expiry
/// and key are for the caller to check.
pub fn server_config(authority: &Authority, server: &ServerIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let clients = AgentsOfOurCa::new(&authority.ca_der().into(), provider.clone())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(clients))
        .with_single_cert(server.chain.clone(), server.key.clone_key())?;
    config.alpn_protocols = vec![ALPN_LINE.to_vec(), ALPN_ENROL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// For the TLS around a WebSocket that carries a line: nothing is verified and nothing is presented, because nothing is
/// trusted to it. The QUIC inside does both, against the pin, whatever terminates this TLS.
pub fn outside_config() -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(web_provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Nobody))
        .with_no_client_auth();
    // WebSockets go over HTTP/1.1, and some proxies choose another by themselves.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For an agent's line. `at_least_ms` is the latest time known to have passed, Unix milliseconds.
pub fn agent_line_config(
    pin: &Pin,
    key: &AgentKey,
    certificate_der: &[u8],
    at_least_ms: i64,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config(pin, Some((key, certificate_der)), at_least_ms, ALPN_LINE)
}

/// For enrolment, and with `client` for renewal.
pub fn agent_enrol_config(
    pin: &Pin,
    client: Option<(&AgentKey, &[u8])>,
    at_least_ms: i64,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config(pin, client, at_least_ms, ALPN_ENROL)
}

fn client_config(
    pin: &Pin,
    client: Option<(&AgentKey, &[u8])>,
    at_least_ms: i64,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let master = PinnedMaster::new(*pin, at_least_ms, provider.clone());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(master));
    let mut config = match client {
        Some((key, der)) => {
            builder.with_client_auth_cert(vec![CertificateDer::from(der.to_vec())], key.private_der())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}
