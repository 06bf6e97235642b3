//! What the relay needs of a local stream socket, so that TCP and unix sockets go the same way.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::Shutdown,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// A connected stream socket, driven by readiness so that both directions can share it.
pub trait Socket: Send + Sync {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize>;
    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// No more bytes will be written; the peer reads an end of file.
    fn shutdown_write(&self) -> io::Result<()>;
    /// Makes the coming close a reset where the protocol has one.
    fn reset_on_close(&self);
}

/// Reads once. Fewer bytes than there was room for were all there is, so the readiness that `watched` looked at before the
/// read is taken back at once, and the next wait costs no call to be told that nothing is there: one in four of the agent's
/// system calls when pages are fetched through it. What arrived since has made a readiness of its own.
fn read_to_the_end(
    buffer: &mut BytesMut,
    watched: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    read: impl Fn(&mut BytesMut) -> io::Result<usize>,
) -> io::Result<usize> {
    let room = buffer.capacity() - buffer.len();
    let mut result = Err(io::ErrorKind::WouldBlock.into());
    // Its own answer is only for the readiness.
    let _ = watched(&mut || {
        result = read(buffer);
        match result {
            Ok(count) if 0 < count && count < room => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    result
}

impl Socket for TcpStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.readable()
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.writable()
    }

    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        read_to_the_end(buffer, |io| self.try_io(Interest::READABLE, io), |buffer| self.try_read_buf(buffer))
    }

    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    fn reset_on_close(&self) {
        // A failure leaves an ordinary close, which is all that can be done then.
        let _ = SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Socket for UnixStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.readable()
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.writable()
    }

    fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        read_to_the_end(buffer, |io| self.try_io(Interest::READABLE, io), |buffer| self.try_read_buf(buffer))
    }

    fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    fn reset_on_close(&self) {}
}
