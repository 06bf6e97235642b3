//! Enrolment and renewal, on ALPN `landline-enrol/1`: one request and one reply on the first stream.

use serde::{Deserialize, Serialize};

use crate::{
    control::Refusal,
    id::AgentId,
    limits::TEXT_MAX,
    wire::{self, Invalid, Message, ensure},
};

/// Largest certificate request taken, bytes of DER. An Ed25519 or P-256 one is below 400.
const CSR_MAX: usize = 2 * 1024;
/// Longest secret taken, bytes.
const SECRET_MAX: usize = 256;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum EnrolRequest {
    /// First contact: prove the secret, get a certificate for the key of the request.
    Enrol {
        agent_id: AgentId,
        secret: String,
        #[serde(with = "wire::bytes")]
        csr_der: Vec<u8>,
    },
    /// With the client certificate presented in TLS (even one that ran out): a new one for the same key. For another key
    /// only after [`RotateKey`](crate::control::FromMaster::RotateKey): it counts, and the old one no more, from its first use.
    Renew {
        #[serde(with = "wire::bytes")]
        csr_der: Vec<u8>,
    },
    /// First contact with a key that stands for many machines: the master makes the agent. The name is a wish.
    EnrolWithKey {
        name: AgentId,
        key: String,
        #[serde(with = "wire::bytes")]
        csr_der: Vec<u8>,
    },
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enrol { agent_id, .. } => write!(f, "Enrol({agent_id})"),
            Self::Renew { .. } => f.write_str("Renew"),
            Self::EnrolWithKey { name, .. } => write!(f, "EnrolWithKey({name})"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EnrolReply {
    Issued(Issued),
    Refused(Refusal),
    /// An operator has to say yes first: ask again with the same key pair. Only ever answers `EnrolWithKey`.
    Waits {
        message: String,
        /// Ask again after this long.
        retry_after_ms: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// The agent's certificate, DER. Its issuer is the CA the agent pinned.
    #[serde(with = "wire::bytes")]
    pub certificate_der: Vec<u8>,
    /// The CA certificate, DER; the agent checks it against its pin.
    #[serde(with = "wire::bytes")]
    pub ca_der: Vec<u8>,
    pub master_time_ms: i64,
}

impl Message for EnrolRequest {
    fn check(&self) -> Result<(), Invalid> {
        let csr = match self {
            Self::Enrol { secret, csr_der, .. } => {
                ensure(secret.len() <= SECRET_MAX, "secret too long")?;
                csr_der
            }
            Self::Renew { csr_der } => csr_der,
            Self::EnrolWithKey { key, csr_der, .. } => {
                ensure(key.len() <= SECRET_MAX, "key too long")?;
                csr_der
            }
        };
        ensure(!csr.is_empty() && csr.len() <= CSR_MAX, "length of the certificate request out of range")
    }
}

impl Message for EnrolReply {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Issued(issued) => {
                let plausible = |der: &[u8]| !der.is_empty() && der.len() <= 8 * 1024;
                ensure(
                    plausible(&issued.certificate_der) && plausible(&issued.ca_der),
                    "certificate length out of range",
                )
            }
            Self::Refused(refusal) => ensure(refusal.message.len() <= TEXT_MAX, "message too long"),
            Self::Waits { message, .. } => ensure(message.len() <= TEXT_MAX, "message too long"),
        }
    }
}
