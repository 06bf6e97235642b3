//! Encoding of messages: postcard, with a length in front when framed. Decoders take what they know, ignore the tail,
//! and check the bounds that postcard cannot express.

use serde::{Serialize, de::DeserializeOwned};

/// A message that may travel in a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Checks what the types alone do not hold: counts, lengths, ranges. Called on everything received.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A bound that a received message broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not a valid encoding")]
    Malformed,
    #[error("{0}")]
    Invalid(&'static str),
}

/// Encodes one message, without a length in front.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    // Serialising to a growing vector fails only for types postcard cannot describe; none of ours is one, and the
    // round-trip tests visit every variant.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Decodes one message and checks its bounds. Bytes behind what this build knows are ignored. Allocates no more than
/// a small multiple of `bytes.len()`: callers bound that first.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let (message, _tail) = postcard::take_from_bytes::<M>(bytes).map_err(|_| DecodeError::Malformed)?;
    message.check().map_err(|Invalid(what)| DecodeError::Invalid(what))?;
    Ok(message)
}

/// `Err` with `what` unless `holds`: the one-liner that `check` implementations are made of.
pub(crate) fn ensure(holds: bool, what: &'static str) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid(what)) }
}
