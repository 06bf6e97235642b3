//! The two questions TLS asks of us: is this client's certificate from our CA, and is this server the one that was
//! pinned. Signatures are checked by webpki, always; only the choice of anchor and of time is ours.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, spki_for_anchor};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::join::Pin;

/// The system's clock; one that stands before 1970 counts as 1970.
pub(crate) fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime::since_unix_epoch(since.unwrap_or_default())
}

/// The SubjectPublicKeyInfo of a certificate, DER.
pub(crate) fn spki(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let anchor = anchor_from_trusted_cert(certificate).ok()?;
    Some(spki_for_anchor(&anchor).to_vec())
}

/// Whether `leaf` is a server certificate for `name`, valid at `time`, issued by the pinned CA, which must be among
/// `presented`.
pub(crate) fn server_chain(
    pin: &Pin,
    leaf: &CertificateDer<'_>,
    presented: &[CertificateDer<'_>],
    name: &str,
    time: UnixTime,
) -> Result<(), Error> {
    let pinned = presented.iter().find(|ca| spki(ca).is_some_and(|spki| Pin::of_spki(&spki) == *pin));
    let pinned = pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
    let anchor = anchor_from_trusted_cert(pinned).map_err(refused)?;
    let leaf = chain(leaf, &anchor, time, KeyUsage::server_auth())?;
    let name = ServerName::try_from(name).map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
    leaf.verify_is_valid_for_subject_name(&name).map_err(refused)
}

fn chain<'a>(
    leaf: &'a CertificateDer<'a>,
    anchor: &TrustAnchor<'_>,
    time: UnixTime,
    usage: KeyUsage,
) -> Result<EndEntityCert<'a>, Error> {
    let leaf = EndEntityCert::try_from(leaf).map_err(refused)?;
    // No intermediates: our CA signs its leaves itself.
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, std::slice::from_ref(anchor), &[], time, usage, None, None)
        .map_err(refused)?;
    Ok(leaf)
}

fn refused(error: webpki::Error) -> Error {
    let what = match error {
        webpki::Error::BadDer | webpki::Error::TrailingData(_) => CertificateError::BadEncoding,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(what)
}

/// The master's view of clients: none, or one with a certificate of our CA. Whether it ran out is asked later, at Hello,
/// because an expired one may still renew.
#[derive(Debug)]
pub(crate) struct AgentsOfOurCa {
    anchor: TrustAnchor<'static>,
    provider: Arc<CryptoProvider>,
}

impl AgentsOfOurCa {
    pub(crate) fn new(ca: &CertificateDer<'_>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        Ok(Self { anchor: anchor_from_trusted_cert(ca).map_err(refused)?.to_owned(), provider })
    }
}

impl ClientCertVerifier for AgentsOfOurCa {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let time = within_validity(end_entity, now)?;
        chain(end_entity, &self.anchor, time, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `now`, moved into the certificate's own validity: the chain is judged, its age is not.
fn within_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (from, to) = (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
    let clamped = now.as_secs().max(from).min(to);
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(clamped)))
}

/// The agent's view of the master: whoever holds a server certificate of the pinned CA.
#[derive(Debug)]
pub(crate) struct PinnedMaster {
    pin: Pin,
    at_least: UnixTime,
    provider: Arc<CryptoProvider>,
}

impl PinnedMaster {
    /// `at_least_ms` is the latest time known to have passed: it stands in for a clock that lags behind it.
    pub(crate) fn new(pin: Pin, at_least_ms: i64, provider: Arc<CryptoProvider>) -> Self {
        let at_least = Duration::from_millis(u64::try_from(at_least_ms).unwrap_or(0));
        Self { pin, at_least: UnixTime::since_unix_epoch(at_least), provider }
    }
}

impl ServerCertVerifier for PinnedMaster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        server_chain(&self.pin, end_entity, intermediates, &server_name.to_str(), now.max(self.at_least))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes any server for what it is: nobody that is trusted with anything.
#[derive(Debug)]
pub(crate) struct Nobody;

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crate::tls::web_provider().signature_verification_algorithms.supported_schemes()
    }
}
