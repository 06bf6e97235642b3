//! One binary message of the WebSocket carrier: a batch of QUIC packets that belong together. Encoding, and decoding
//! with every bound; no I/O.
//!
//! `ecn` (1 byte: the mark of the packets, 0 to 3) · `segment_size` (2 bytes, big-endian: bytes of each packet but the last,
//! which may be shorter) · the packets, one behind the other.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest QUIC packet inside a WebSocket, bytes.
pub const PACKET_MAX: u16 = 4096;
/// Most packets of one message.
pub const PACKETS_MAX: usize = 10;
/// Bytes in front of the packets.
const HEAD: usize = 3;
/// Largest message, bytes.
pub const MESSAGE_MAX: usize = HEAD + PACKETS_MAX * PACKET_MAX as usize;

/// Packets that came in one message, or what is left of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Explicit congestion notification as in IP: 0 is none.
    pub ecn: u8,
    segment_size: u16,
    data: Bytes,
}

/// A message that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    #[error("a message of {0} bytes holds no packet")]
    Empty(usize),
    #[error("a message of {0} bytes, above {MESSAGE_MAX}")]
    TooLarge(usize),
    #[error("packets of {0} bytes; 1 to {PACKET_MAX} are allowed")]
    SegmentSize(u16),
    #[error("{0} packets in one message, above {PACKETS_MAX}")]
    TooMany(usize),
    #[error("{0} is no congestion mark")]
    Ecn(u8),
}

/// The message for packets of `segment_size` bytes each.
pub fn encode(ecn: u8, segment_size: u16, packets: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEAD + packets.len());
    message.put_u8(ecn);
    message.put_u16(segment_size);
    message.put_slice(packets);
    message.freeze()
}

/// Copies nothing.
pub fn decode(mut message: Bytes) -> Result<Batch, BadBatch> {
    let length = message.len();
    if length <= HEAD {
        return Err(BadBatch::Empty(length));
    }
    if length > MESSAGE_MAX {
        return Err(BadBatch::TooLarge(length));
    }
    let (ecn, segment_size) = (message.get_u8(), message.get_u16());
    if ecn > 3 {
        return Err(BadBatch::Ecn(ecn));
    }
    if !(1..=PACKET_MAX).contains(&segment_size) {
        return Err(BadBatch::SegmentSize(segment_size));
    }
    let packets = message.len().div_ceil(segment_size.into());
    if packets > PACKETS_MAX {
        return Err(BadBatch::TooMany(packets));
    }
    Ok(Batch { ecn, segment_size, data: message })
}

impl Batch {
    /// The next packet; `None` when all were taken.
    pub fn next_packet(&mut self) -> Option<Bytes> {
        let length = self.data.len().min(self.segment_size.into());
        (length > 0).then(|| self.data.split_to(length))
    }

    /// Bytes of the packets that are left.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets(mut batch: Batch) -> Vec<Bytes> {
        std::iter::from_fn(|| batch.next_packet()).collect()
    }

    #[test]
    fn the_bytes_are_these() {
        let message = encode(2, 3, b"abcabcab");
        assert_eq!(&message[..], b"\x02\x00\x03abcabcab");
        let batch = decode(message).unwrap();
        assert_eq!((batch.ecn, batch.bytes()), (2, 8));
        assert_eq!(packets(batch), ["abc", "abc", "ab"]);
    }

    #[test]
    fn what_no_honest_peer_sends_is_refused() {
        let large = vec![7; MESSAGE_MAX - HEAD];
        for (message, why) in [
            (Bytes::new(), BadBatch::Empty(0)),
            (encode(0, 100, b""), BadBatch::Empty(3)),
            (encode(0, 0, b"x"), BadBatch::SegmentSize(0)),
            (encode(0, PACKET_MAX + 1, b"x"), BadBatch::SegmentSize(PACKET_MAX + 1)),
            (encode(0, 1, b"elevenbytes"), BadBatch::TooMany(11)),
            (encode(4, 1, b"x"), BadBatch::Ecn(4)),
            (encode(0, PACKET_MAX, &[&large[..], b"x"].concat()), BadBatch::TooLarge(MESSAGE_MAX + 1)),
        ] {
            assert_eq!(decode(message), Err(why));
        }
        assert_eq!(packets(decode(encode(0, PACKET_MAX, &large)).unwrap()).len(), PACKETS_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_an_error(bytes: Vec<u8>) {
            if let Ok(batch) = decode(bytes.clone().into()) {
                let (ecn, size) = (batch.ecn, batch.segment_size);
                let packets = packets(batch);
                prop_assert!((1..=PACKETS_MAX).contains(&packets.len()));
                prop_assert_eq!(&encode(ecn, size, &packets.concat())[..], &bytes[..]);
            }
        }
    }
}
