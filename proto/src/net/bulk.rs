//! Long runs of raw bytes out of a stream. Packets bring them in pieces of little more than a kilobyte; whoever hands them
//! on pays for each piece, so that they are gathered here first.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use quinn::ReadError;
use tokio::io::{AsyncRead, ReadBuf};

use super::stream::RecvHalf;

/// Pieces taken from the stream at once; with packets of 1452 bytes about 90 KiB.
const PIECES: usize = 64;

/// Reads raw bytes in large pieces, and frames before and behind them: nothing it took is lost to either.
#[derive(Debug)]
pub struct BulkReader {
    recv: RecvHalf,
    pieces: [Bytes; PIECES],
    next: usize,
    count: usize,
}

impl BulkReader {
    pub fn new(recv: RecvHalf) -> Self {
        Self { recv, pieces: std::array::from_fn(|_| Bytes::new()), next: 0, count: 0 }
    }

    /// What is there, at least one byte and at most `max`, in one piece; `None` at the clean end. Cancel-safe.
    pub async fn piece(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        if self.next == self.count && !self.fill().await? {
            return Ok(None);
        }
        let waiting = &mut self.pieces[self.next..self.count];
        let total: usize = waiting.iter().map(Bytes::len).sum();
        if total <= max && waiting.len() == 1 {
            self.next += 1;
            return Ok(Some(std::mem::take(&mut waiting[0])));
        }
        let mut gathered = BytesMut::with_capacity(total.min(max));
        for piece in waiting {
            let taken = piece.split_to(piece.len().min(max - gathered.len()));
            gathered.extend_from_slice(&taken);
            if !piece.is_empty() {
                break;
            }
            self.next += 1;
        }
        Ok(Some(gathered.freeze()))
    }

    /// What is there as it came, to be written in one go; `None` at the clean end. Cancel-safe.
    pub async fn pieces(&mut self) -> Result<Option<Vec<Bytes>>, ReadError> {
        if self.next == self.count && !self.fill().await? {
            return Ok(None);
        }
        let taken = self.pieces[self.next..self.count].iter_mut().map(std::mem::take).collect();
        self.next = self.count;
        Ok(Some(taken))
    }

    /// Reads no further and tells the peer why.
    pub fn stop(&mut self, code: crate::code::Code) {
        self.recv.stop(code);
    }

    async fn fill(&mut self) -> Result<bool, ReadError> {
        let read = self.recv.read_chunks(&mut self.pieces).await?;
        (self.next, self.count) = (0, read.unwrap_or(0));
        Ok(read.is_some())
    }
}

impl AsyncRead for BulkReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.next == self.count {
            return Poll::Ready(ready!(Pin::new(&mut self.recv).poll_read(cx, buf)));
        }
        let next = self.next;
        let piece = &mut self.pieces[next];
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        piece.advance(length);
        if piece.is_empty() {
            self.next += 1;
        }
        Poll::Ready(Ok(()))
    }
}
