//! The latest bytes of an output, each under its offset since the beginning. Both ends of a session keep one. Pure: who
//! reads, how fast, and what a loss means to them is not known here.

use std::collections::VecDeque;

/// Holds at most `capacity` bytes; what is older is dropped.
#[derive(Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Offset of the first byte held.
    start: u64,
}

impl Ring {
    /// An empty one whose first byte will be the one at `offset`. Memory is taken as it fills.
    pub fn new(capacity: usize, offset: u64) -> Self {
        Self { bytes: VecDeque::new(), capacity, start: offset }
    }

    /// Offset of the oldest byte held.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the newest byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub fn push(&mut self, piece: &[u8]) {
        let surplus = (self.bytes.len() + piece.len()).saturating_sub(self.capacity);
        let dropped = surplus.min(self.bytes.len());
        self.bytes.drain(..dropped);
        self.bytes.extend(&piece[surplus - dropped..]);
        self.start += surplus as u64;
    }

    /// Bytes were lost before they came here: what is held is dropped, and the next byte is the one at `offset`.
    pub fn skip_to(&mut self, offset: u64) {
        let end = self.end();
        self.bytes.clear();
        self.start = offset.max(end);
    }

    /// Up to `max` bytes from `offset` on; empty where nothing is held.
    pub fn read(&self, offset: u64, max: usize) -> Vec<u8> {
        let Some(skip) = offset.checked_sub(self.start) else { return Vec::new() };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.bytes.len());
        let length = (self.bytes.len() - skip).min(max);
        let (front, back) = self.bytes.as_slices();
        let mut piece = Vec::with_capacity(length);
        if skip < front.len() {
            piece.extend_from_slice(&front[skip..front.len().min(skip + length)]);
        }
        let from = (skip + piece.len()).saturating_sub(front.len());
        piece.extend_from_slice(&back[from..from + length - piece.len()]);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_latest_bytes_under_their_offsets() {
        // Against the whole output, in pieces of every size around the capacity.
        let output: Vec<u8> = (0..200_u8).collect();
        for capacity in [1, 2, 7, 16] {
            for piece in 1..40 {
                let mut ring = Ring::new(capacity, 1_000);
                let mut pushed = 0;
                for part in output.chunks(piece) {
                    ring.push(part);
                    pushed += part.len();
                    assert_eq!(ring.end(), 1_000 + pushed as u64);
                    let held = pushed.min(capacity);
                    assert_eq!(ring.start(), ring.end() - held as u64);
                    for skip in 0..=held {
                        let expected = &output[pushed - held + skip..pushed];
                        let offset = ring.start() + skip as u64;
                        assert_eq!(ring.read(offset, usize::MAX), expected);
                        assert_eq!(ring.read(offset, 3), &expected[..expected.len().min(3)]);
                    }
                    assert!(ring.read(ring.start() - 1, 1).is_empty() && ring.read(ring.end() + 9, 1).is_empty());
                }
            }
        }
    }

    #[test]
    fn what_was_lost_elsewhere_is_skipped() {
        let mut ring = Ring::new(8, 0);
        ring.push(b"abc");
        ring.skip_to(10);
        assert_eq!((ring.start(), ring.end()), (10, 10));
        ring.push(b"d");
        assert_eq!(ring.read(10, 9), b"d");
        ring.skip_to(2);
        assert_eq!(ring.end(), 11, "never backwards");
    }
}
