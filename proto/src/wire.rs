//! Encoding of messages: postcard, with a length in front when framed. Decoders take what they know, ignore the tail,
//! and check the bounds that postcard cannot express.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, SeqAccess, Visitor},
};

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

/// Byte strings taken and given in one piece. The encoding is that of a list of bytes; without this each byte would pass
/// through the codec on its own.
pub(crate) mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Decodes a list and keeps no more than `MAX` items and one, so that `check` can refuse what is too long while a few
/// bytes of empty items never grow into a large list. For every list whose items are larger than their encoding.
pub(crate) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct AtMost<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::with_capacity(items.size_hint().unwrap_or(0).min(MAX + 1));
            while let Some(item) = items.next_element()? {
                if kept.len() <= MAX {
                    kept.push(item);
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

/// `Err` with `what` unless `holds`: the one-liner that `check` implementations are made of.
pub(crate) fn ensure(holds: bool, what: &'static str) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid(what)) }
}
