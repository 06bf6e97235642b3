//! A connection that never was a socket: the gateway's end is a stream to read and write, the tunnel's end is carried by
//! the relay like any accepted connection. Keeps the difference between an end of file and a reset, both ways.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, BytesMut};
use proto::net::socket::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait in one direction.
const LANE_MAX: usize = 64 * 1024;

/// The end that the relay carries. Dropping it without [`Socket::shutdown_write`] resets the other end.
#[derive(Debug)]
pub(super) struct Inner(Arc<Pipe>);

/// The end that the gateway uses. Dropping it without a shutdown resets the connection to the target.
#[derive(Debug)]
pub struct Outer(Arc<Pipe>);

#[derive(Debug, Default)]
struct Pipe {
    to_target: Mutex<Lane>,
    from_target: Mutex<Lane>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    bytes: BytesMut,
    end: Option<End>,
    /// Nobody will read any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Reset,
}

/// The two ends of a new connection.
pub(super) fn pipe() -> (Inner, Outer) {
    let pipe = Arc::new(Pipe::default());
    (Inner(pipe.clone()), Outer(pipe))
}

impl Lane {
    fn poll_readable(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_some() || !self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf || self.bytes.len() < LANE_MAX {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes as many bytes as there is room for; `WouldBlock` where there is none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.deaf || self.end.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = LANE_MAX.saturating_sub(self.bytes.len()).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.extend_from_slice(&bytes[..room]);
        wake(&mut self.reader);
        Ok(room)
    }

    /// Hands bytes to `take`, which says how many it took; 0 at the clean end.
    fn read(&mut self, take: impl FnOnce(&[u8]) -> usize) -> io::Result<usize> {
        match (self.bytes.is_empty(), self.end) {
            (_, Some(End::Reset)) => return Err(io::ErrorKind::ConnectionReset.into()),
            (true, Some(End::Clean)) => return Ok(0),
            (true, None) => return Err(io::ErrorKind::WouldBlock.into()),
            (false, _) => {}
        }
        let taken = take(&self.bytes);
        self.bytes.advance(taken);
        wake(&mut self.writer);
        Ok(taken)
    }

    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        wake(&mut self.reader);
    }

    fn deafen(&mut self) {
        self.deaf = true;
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket for Inner {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        poll_fn(|context| lock(&self.0.to_target).poll_readable(context))
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        poll_fn(|context| lock(&self.0.from_target).poll_writable(context))
    }

    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        lock(&self.0.to_target).read(|bytes| {
            buffer.extend_from_slice(bytes);
            bytes.len()
        })
    }

    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut lane = lock(&self.0.from_target);
        let mut written = 0;
        for piece in pieces {
            match lane.write(piece) {
                Ok(count) if count == piece.len() => written += count,
                Ok(count) => return Ok(written + count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        lock(&self.0.from_target).finish(End::Clean);
        Ok(())
    }

    fn reset_on_close(&self) {
        lock(&self.0.from_target).finish(End::Reset);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.0.from_target).finish(End::Reset);
        lock(&self.0.to_target).deafen();
    }
}

impl AsyncRead for Outer {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut lane = lock(&self.0.from_target);
        if lane.poll_readable(context).is_pending() {
            return Poll::Pending;
        }
        let read = lane.read(|bytes| {
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            count
        });
        Poll::Ready(read.map(|_| ()))
    }
}

impl AsyncWrite for Outer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut lane = lock(&self.0.to_target);
        if lane.poll_writable(context).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(lane.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.to_target).finish(End::Clean);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        lock(&self.0.to_target).finish(End::Reset);
        lock(&self.0.from_target).deafen();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_nothing_is_lost() {
        let (inner, mut outer) = pipe();
        let sent: Vec<u8> = (0..LANE_MAX * 3).map(|n| n as u8).collect();
        let writing = async {
            outer.write_all(&sent).await.unwrap();
            outer.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = BytesMut::new();
            loop {
                inner.readable().await.unwrap();
                if inner.try_read_buf(&mut got).unwrap() == 0 {
                    return got;
                }
            }
        };
        let ((), got) = tokio::join!(writing, reading);
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn an_end_is_an_end_and_a_reset_a_reset() {
        let (inner, mut outer) = pipe();
        inner.try_write_vectored(&[IoSlice::new(b"whole"), IoSlice::new(b" text")]).unwrap();
        inner.shutdown_write().unwrap();
        let mut text = String::new();
        outer.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "whole text");

        let (inner, mut outer) = pipe();
        inner.try_write_vectored(&[IoSlice::new(b"half")]).unwrap();
        drop(inner);
        assert_eq!(outer.read_to_string(&mut text).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (inner, outer) = pipe();
        drop(outer);
        inner.readable().await.unwrap();
        let read = inner.try_read_buf(&mut BytesMut::new());
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        inner.writable().await.unwrap();
        assert!(inner.try_write_vectored(&[IoSlice::new(b"x")]).is_err());
    }
}
