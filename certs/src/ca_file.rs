//! A CA certificate handed over as a file, for owners who copy the file rather than the pin. It is reduced to the
//! pin: nothing else of it is trusted.

use x509_parser::{pem::Pem, prelude::FromDer, prelude::X509Certificate};

use crate::join::Pin;

/// Why a file holds no CA to pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCaFile {
    #[error("no certificate in PEM or DER form")]
    NoCertificate,
    #[error("its first certificate cannot be read")]
    Malformed,
    #[error("its first certificate is not a CA's")]
    NotCa,
}

/// The pin of the first certificate in a PEM text, or of the one in a DER file, which is how the master keeps its own.
pub fn pin_of_file(bytes: &[u8]) -> Result<Pin, BadCaFile> {
    let mut blocks = Pem::iter_from_buffer(bytes).filter_map(Result::ok);
    let first = blocks.find(|block| block.label == "CERTIFICATE").map(|block| block.contents);
    let der = match (&first, bytes.first()) {
        (Some(contents), _) => contents.as_slice(),
        // Every DER certificate is a SEQUENCE; no text begins with that byte.
        (None, Some(0x30)) => bytes,
        (None, _) => return Err(BadCaFile::NoCertificate),
    };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| BadCaFile::Malformed)?;
    if !certificate.is_ca() {
        return Err(BadCaFile::NotCa);
    }
    Ok(Pin::of_spki(certificate.public_key().raw))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::authority::Authority;

    fn pem(der: &[u8]) -> String {
        format!("some text\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
    }

    #[test]
    fn a_ca_file_gives_the_pin_of_its_ca_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca")).unwrap();
        assert_eq!(pin_of_file(pem(authority.ca_der()).as_bytes()), Ok(authority.pin()));
        assert_eq!(pin_of_file(b"hello"), Err(BadCaFile::NoCertificate));
        assert_eq!(pin_of_file(authority.ca_der()), Ok(authority.pin()));
        assert_eq!(pin_of_file(pem(b"hello").as_bytes()), Err(BadCaFile::Malformed));
    }
}
