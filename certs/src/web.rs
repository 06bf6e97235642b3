//! The certificates of the master's public TCP port: the operator's own for the names it was issued for, the CA's for
//! everything else. Own files are read again when they change; a broken new pair leaves the old one in place. Knows
//! names and keys; when to look at the files is the caller's.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use webpki::EndEntityCert;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{authority::ServerIdentity, join::Pin, tls::TlsError, verifier};

/// Why a certificate file cannot be used. None of these repeats what stands in a key file.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no certificate in PEM form", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key in PEM form", .0.display())]
    NoKey(PathBuf),
    #[error("the private key does not belong to the certificate, or is of an unknown kind")]
    Mismatch(#[source] rustls::Error),
    #[error("the certificate cannot be read")]
    Certificate(#[source] webpki::Error),
}

/// A certificate of the operator's and its key, as files.
#[derive(Debug, Clone)]
pub struct OwnFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// By what a changed file is known.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// Picks the certificate of each TCP handshake. Shared between the listener and whoever looks after the files.
#[derive(Debug)]
pub struct WebCertificates {
    files: Option<OwnFiles>,
    ours: Arc<CertifiedKey>,
    own: RwLock<Own>,
}

#[derive(Debug, Default)]
struct Own {
    key: Option<Arc<CertifiedKey>>,
    seen: Stamp,
}

impl WebCertificates {
    /// Reads the files once; a pair that is broken at the start is an error.
    pub fn new(server: &ServerIdentity, files: Option<OwnFiles>) -> Result<Arc<Self>, OwnError> {
        let ours = certified(server.chain.clone(), &server.key)?;
        let own = match &files {
            Some(files) => Own { seen: files.stamp(), key: Some(Arc::new(files.load()?)) },
            None => Own::default(),
        };
        Ok(Arc::new(Self { files, ours: Arc::new(ours), own: RwLock::new(own) }))
    }

    /// Reads the files again if they changed: true if a new pair serves from now on. After an error the old pair serves
    /// on, and the same files are not tried again. Blocks on the disk.
    pub fn refresh(&self) -> Result<bool, OwnError> {
        let Some(files) = &self.files else { return Ok(false) };
        let stamp = files.stamp();
        if self.own.read().unwrap_or_else(PoisonError::into_inner).seen == stamp {
            return Ok(false);
        }
        let loaded = files.load();
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        own.seen = stamp;
        own.key = Some(Arc::new(loaded?));
        Ok(true)
    }

    /// Whether the operator's own certificate answers for this host.
    pub fn is_own(&self, host: &str) -> bool {
        self.own_for(host).is_some()
    }

    /// What clients that know no CA can pin: SHA-256 over the public key of the certificate that answers for this host.
    pub fn pin_for(&self, host: &str) -> Pin {
        let key = self.own_for(host).unwrap_or_else(|| self.ours.clone());
        let spki = key.cert.first().and_then(verifier::spki).unwrap_or_default();
        Pin::of_spki(&spki)
    }

    fn own_for(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner).key.clone()?;
        let name = ServerName::try_from(host).ok()?;
        let leaf = own.cert.first()?;
        EndEntityCert::try_from(leaf).ok()?.verify_is_valid_for_subject_name(&name).ok()?;
        Some(own)
    }
}

impl ResolvesServerCert for WebCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = hello.server_name().and_then(|name| self.own_for(name));
        Some(own.unwrap_or_else(|| self.ours.clone()))
    }
}

impl OwnFiles {
    /// Until when the certificate is good, Unix milliseconds. Whether it and its key fit together is checked on the way.
    pub fn not_after_ms(&self) -> Result<i64, OwnError> {
        let loaded = self.load()?;
        let leaf = loaded.cert.first().ok_or_else(|| OwnError::NoCertificate(self.cert.clone()))?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| OwnError::NoCertificate(self.cert.clone()))?;
        Ok(leaf.validity().not_after.timestamp().saturating_mul(1000))
    }

    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn load(&self) -> Result<CertifiedKey, OwnError> {
        let pem = read(&self.cert)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let leaf = chain.first().ok_or_else(|| OwnError::NoCertificate(self.cert.clone()))?;
        EndEntityCert::try_from(leaf).map_err(OwnError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|_| OwnError::NoKey(self.key.clone()))?;
        certified(chain, &key)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OwnError> {
    std::fs::read(path).map_err(|source| OwnError::Read { path: path.to_owned(), source })
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<CertifiedKey, OwnError> {
    CertifiedKey::from_der(chain, key.clone_key(), &crate::tls::web_provider()).map_err(OwnError::Mismatch)
}

/// For the public TCP port: HTTP/1.1, no client certificates, nothing resumed. TLS 1.2 as well: the small downloaders of
/// routers speak nothing newer.
pub fn server_config(certificates: Arc<WebCertificates>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crate::tls::web_provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;
    use crate::authority::Authority;

    fn write(files: &OwnFiles, name: &str) -> Pin {
        let Made { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        Pin::of_spki(&verifier::spki(cert.der()).unwrap())
    }

    #[test]
    fn own_names_get_the_own_certificate_and_changed_files_serve_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = OwnFiles { cert: folder.path().join("a.crt"), key: folder.path().join("a.key") };
        let authority = Authority::load_or_create(&folder.path().join("ca")).unwrap();
        let server = authority.server_identity(&folder.path().join("ca")).unwrap();
        let first = write(&files, "master.example");
        let certificates = WebCertificates::new(&server, Some(files.clone())).unwrap();
        assert!(certificates.is_own("master.example") && certificates.pin_for("master.example") == first);
        assert!(!certificates.is_own("192.0.2.1") && certificates.pin_for("other.example") != first);
        assert!(!certificates.refresh().unwrap());

        std::fs::write(&files.cert, "broken").unwrap();
        assert!(matches!(certificates.refresh(), Err(OwnError::NoCertificate(_))));
        assert!(!certificates.refresh().unwrap(), "the same broken file is not tried again");
        assert_eq!(certificates.pin_for("master.example"), first);

        let second = write(&files, "moved.example.org");
        assert!(certificates.refresh().unwrap());
        assert!(certificates.is_own("moved.example.org") && !certificates.is_own("master.example"));
        assert_eq!(certificates.pin_for("moved.example.org"), second);
        server_config(certificates).unwrap();
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = OwnFiles { cert: folder.path().join("a.crt"), key: folder.path().join("a.key") };
        write(&files, "a.example");
        let key = std::fs::read(&files.key).unwrap();
        write(&files, "b.example");
        std::fs::write(&files.key, key).unwrap();
        assert!(matches!(files.load(), Err(OwnError::Mismatch(_))));
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(files.load(), Err(OwnError::Read { .. })));
    }
}
