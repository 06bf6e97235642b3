//! Cuts a stream into lines, whatever pieces it comes in.

/// Longest line of the stream: one piece of 32 KiB in base64 or escaped text, with room.
const LINE_MAX: usize = 1 << 20;

/// The master does not send what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadLine {
    #[error("the master sent a line longer than {LINE_MAX} bytes")]
    TooLong,
    #[error("the master sent a line that this version does not know")]
    Unknown(#[from] serde_json::Error),
    #[error("the master sent output that is neither text nor base64")]
    Undecodable,
}

/// What came and is no whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that this piece completes, without the empty ones.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, BadLine> {
        self.rest.extend_from_slice(piece);
        let mut lines = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            if length > 0 {
                lines.push(self.rest[begin..begin + length].to_vec());
            }
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if self.rest.len() > LINE_MAX { Err(BadLine::TooLong) } else { Ok(lines) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_any_pieces() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").unwrap().is_empty());
        assert_eq!(lines.push(b":1}\n\n{}\n{").unwrap(), [b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
        assert_eq!(lines.push(b"}\n").unwrap(), [b"{}".to_vec()]);
        assert!(lines.push(&vec![b'x'; LINE_MAX + 1]).is_err());
    }
}
