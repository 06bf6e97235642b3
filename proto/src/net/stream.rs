//! The two halves of a QUIC stream, with one difference from quinn's: a half dropped before its end resets the stream
//! with a code instead of pretending a clean end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use quinn::{ReadError, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frame::{FrameError, FrameReader, write_frame},
    preference::{Class, Preference},
};
use crate::{code::Code, wire::Message};

/// The sending half. Dropped before [`finish`](Self::finish) or [`reset`](Self::reset) it resets with
/// [`Code::ABANDONED`], or with [`Code::INTERNAL`] while a panic unwinds.
#[derive(Debug)]
pub struct SendHalf {
    stream: quinn::SendStream,
    ended: bool,
    /// Of streams that may use the reserve.
    preference: Option<Box<Preference>>,
}

/// The receiving half. Dropped before its end it asks the peer to stop with [`Code::ABANDONED`].
#[derive(Debug)]
pub struct RecvHalf {
    stream: quinn::RecvStream,
    ended: bool,
}

impl SendHalf {
    pub fn new(stream: quinn::SendStream) -> Self {
        Self { stream, ended: false, preference: None }
    }

    /// Says what the stream of `line` is for: its priority, and whether it may use the reserve of the send window.
    /// `window` is what bulk may have written and not yet delivered, as this end's endpoint was set up.
    pub fn prefer(&mut self, class: Class, line: &quinn::Connection, window: u64) {
        let _ = self.stream.set_priority(class.priority());
        self.preference = match class {
            Class::Control | Class::Interactive => Some(Box::new(Preference::new(class, line.clone(), window))),
            Class::Tunnel | Class::Files => None,
        };
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(preference) = &mut self.preference
            && let Some(priority) = preference.sent(bytes)
        {
            let _ = self.stream.set_priority(priority);
        }
    }

    /// Writes a piece without copying it; waits while the peer's window is full.
    pub async fn write_chunk(&mut self, piece: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(piece).await
    }

    /// Writes one frame. Not cancel-safe.
    pub async fn write_frame<M: Message>(&mut self, message: &M) -> io::Result<()> {
        write_frame(self, message).await
    }

    /// A clean end: everything written will be delivered.
    pub fn finish(&mut self) {
        self.ended = true;
        let _ = self.stream.finish();
    }

    /// An abrupt end: what was not delivered is lost, and the peer learns why.
    pub fn reset(&mut self, code: Code) {
        self.ended = true;
        let _ = self.stream.reset(varint(code));
    }

    /// Resolves when the peer stops reading (its code) or has everything after a finish (`None`), or the line is lost.
    /// Borrows nothing, so that it can be awaited beside a write.
    pub fn stopped(&self) -> impl Future<Output = Option<Code>> + Send + use<> {
        let stopped = self.stream.stopped();
        async move {
            match stopped.await {
                Ok(code) => code.map(|code| Code::from_u64(code.into_inner())),
                Err(_) => Some(Code::LINE_LOST),
            }
        }
    }
}

/// The code with which the peer reset the stream, where that is why a read failed.
pub fn reset_code(error: &std::io::Error) -> Option<Code> {
    match error.get_ref()?.downcast_ref::<quinn::ReadError>()? {
        quinn::ReadError::Reset(code) => Some(Code::from_u64(code.into_inner())),
        _ => None,
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.reset(varint(dropped()));
        }
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let stream = Pin::new(&mut this.stream);
        let polled = match &this.preference {
            Some(preference) => preference.with_reserve(|| AsyncWrite::poll_write(stream, cx, bytes)),
            None => AsyncWrite::poll_write(stream, cx, bytes),
        };
        if let Poll::Ready(Ok(written)) = &polled {
            this.sent(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl RecvHalf {
    pub fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, ended: false }
    }

    /// The next pieces in order, as many as are there and fit; `None` at the clean end.
    pub async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        let read = self.stream.read_chunks(pieces).await?;
        self.ended |= read.is_none();
        Ok(read)
    }

    /// Reads no further and tells the peer why.
    pub fn stop(&mut self, code: Code) {
        self.ended = true;
        let _ = self.stream.stop(varint(code));
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.stop(varint(dropped()));
        }
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            self.ended = true;
        }
        polled
    }
}

/// Both halves of a stream on which frames travel in both directions.
#[derive(Debug)]
pub struct FrameStream {
    pub send: SendHalf,
    pub recv: FrameReader<RecvHalf>,
}

impl FrameStream {
    /// Received frames longer than `max` bytes are refused.
    pub fn new(send: SendHalf, recv: RecvHalf, max: usize) -> Self {
        Self { send, recv: FrameReader::new(recv, max) }
    }

    pub async fn read_within<M: Message>(&mut self, within: Duration) -> Result<M, FrameError> {
        self.recv.next_within(within).await
    }

    /// Ends both directions with `code`.
    pub fn abort(&mut self, code: Code) {
        self.send.reset(code);
        self.recv.source_mut().stop(code);
    }

    pub fn into_halves(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv.into_source())
    }
}

/// The code a stream was reset with, if that is why reading failed; `LINE_LOST` if the connection went away.
pub fn read_error_code(error: &ReadError) -> Code {
    match error {
        ReadError::Reset(code) => Code::from_u64(code.into_inner()),
        ReadError::ConnectionLost(_) => Code::LINE_LOST,
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Code::INTERNAL,
    }
}

/// The code a stream was stopped with, if that is why writing failed; `LINE_LOST` if the connection went away.
pub fn write_error_code(error: &WriteError) -> Code {
    match error {
        WriteError::Stopped(code) => Code::from_u64(code.into_inner()),
        WriteError::ConnectionLost(_) => Code::LINE_LOST,
        WriteError::ClosedStream | WriteError::ZeroRttRejected => Code::INTERNAL,
    }
}

/// The code a connection was closed with by the peer, or what else ended it.
pub fn close_code(error: &quinn::ConnectionError) -> Code {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => Code::from_u64(close.error_code.into_inner()),
        quinn::ConnectionError::TimedOut => Code::SILENT,
        quinn::ConnectionError::LocallyClosed => Code::DONE,
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::CidsExhausted => Code::LINE_LOST,
    }
}

/// Closes a connection; the text travels with the code for whoever reads a packet capture.
pub fn close(connection: &quinn::Connection, code: Code) {
    connection.close(varint(code), code.word().unwrap_or_default().as_bytes());
}

/// Why a half was dropped: a handler that panicked says so, anything else gave the stream up.
fn dropped() -> Code {
    if std::thread::panicking() { Code::INTERNAL } else { Code::ABANDONED }
}

pub fn varint(code: Code) -> VarInt {
    VarInt::from_u32(code.0)
}
