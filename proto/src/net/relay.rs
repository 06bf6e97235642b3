//! The path of a byte: a local socket on one side, a stream on the other. An end of file becomes a finish, a reset a
//! reset, each way on its own; nothing is turned into a clean end that was not one.

use std::{
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{
    credit::{LineCredit, STALLED_AFTER, Stalled},
    socket::Socket,
    stream::{RecvHalf, SendHalf, read_error_code, write_error_code},
};
use crate::code::Code;

/// Size of the read buffer, bytes: pieces of 16 to 64 KiB suit quinn's send buffer, which scans linearly over them.
const READ_BUFFER: usize = 64 * 1024;
/// Below this free space a fresh buffer is taken, bytes.
const READ_BUFFER_MIN: usize = 16 * 1024;
/// Most pieces taken from the stream at once.
const PIECES: usize = 32;

/// Bytes carried, counted while they flow.
#[derive(Debug, Default)]
pub struct Meter {
    to_socket: AtomicU64,
    to_stream: AtomicU64,
}

impl Meter {
    pub fn to_socket(&self) -> u64 {
        self.to_socket.load(Ordering::Relaxed)
    }

    pub fn to_stream(&self) -> u64 {
        self.to_stream.load(Ordering::Relaxed)
    }
}

/// Resets the socket on drop unless the relay ended cleanly.
struct Guarded<S: Socket> {
    socket: S,
    clean: bool,
}

impl<S: Socket> Drop for Guarded<S> {
    fn drop(&mut self) {
        if !self.clean {
            self.socket.reset_on_close();
        }
    }
}

/// Carries bytes both ways until both directions ended cleanly (`Ok`) or one failed (`Err` with the code, and then both
/// sides are reset with it). Dropping the future resets both sides.
pub async fn relay<S: Socket>(
    socket: S,
    send: SendHalf,
    recv: RecvHalf,
    credit: &Arc<LineCredit>,
    meter: &Meter,
) -> Result<(), Code> {
    relay_opening(socket, send, recv, credit, meter, async |_| Ok(()), std::future::pending()).await
}

/// Like [`relay`], for the end that opened the stream: bytes of the socket go out at once, while `opening` reads what the
/// peer answers before its own bytes. An error of `opening` ends the relay with its code; a peer that stops reading
/// before it answered is judged by its answer. `stop` ends the relay with the code it gives.
pub async fn relay_opening<S: Socket>(
    socket: S,
    mut send: SendHalf,
    mut recv: RecvHalf,
    credit: &Arc<LineCredit>,
    meter: &Meter,
    opening: impl AsyncFnOnce(&mut RecvHalf) -> Result<(), Code>,
    stop: impl Future<Output = Code>,
) -> Result<(), Code> {
    let mut guarded = Guarded { socket, clean: false };
    let socket = &guarded.socket;
    let (answer, answered) = oneshot::channel();
    let up = async {
        let result = upstream(socket, &mut send, meter).await;
        if result.is_err_and(|code| code != Code::TCP_RESET) {
            // At once when it answered already; `opening` keeps the deadline.
            let _ = answered.await;
        }
        result
    };
    let down = async {
        opening(&mut recv).await?;
        let _ = answer.send(());
        downstream(socket, &mut recv, credit, meter).await
    };
    let result = tokio::select! {
        biased;
        code = stop => Err(code),
        result = async { tokio::try_join!(up, down) } => result,
    };
    match result {
        Ok(_) => {
            guarded.clean = true;
            Ok(())
        }
        Err(code) => {
            send.reset(code);
            recv.stop(code);
            Err(code)
        }
    }
}

/// Socket → stream.
async fn upstream(socket: &impl Socket, send: &mut SendHalf, meter: &Meter) -> Result<(), Code> {
    let mut buffer = BytesMut::new();
    loop {
        tokio::select! {
            biased;
            ready = socket.readable() => ready.map_err(|_| Code::TCP_RESET)?,
            // While nothing is there to send, a peer that reads no further must still be noticed.
            code = send.stopped() => return Err(code.unwrap_or(Code::ABANDONED)),
        }
        if buffer.capacity() - buffer.len() < READ_BUFFER_MIN {
            buffer.reserve(READ_BUFFER);
        }
        match socket.try_read_buf(&mut buffer) {
            Ok(0) => {
                send.finish();
                return Ok(());
            }
            Ok(read) => {
                send.write_chunk(buffer.split().freeze()).await.map_err(|error| write_error_code(&error))?;
                meter.to_stream.fetch_add(read as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An idle connection keeps no buffer.
                if buffer.is_empty() {
                    buffer = BytesMut::new();
                }
            }
            Err(_) => return Err(Code::TCP_RESET),
        }
    }
}

/// Stream → socket.
async fn downstream(
    socket: &impl Socket,
    recv: &mut RecvHalf,
    credit: &Arc<LineCredit>,
    meter: &Meter,
) -> Result<(), Code> {
    let mut pieces: [Bytes; PIECES] = std::array::from_fn(|_| Bytes::new());
    loop {
        let Some(count) = recv.read_chunks(&mut pieces).await.map_err(|error| read_error_code(&error))? else {
            // The socket may be gone already; then there is nobody left to tell.
            let _ = socket.shutdown_write();
            return Ok(());
        };
        let total: usize = pieces[..count].iter().map(Bytes::len).sum();
        write_pieces(socket, &mut pieces[..count], credit).await?;
        meter.to_socket.fetch_add(total as u64, Ordering::Relaxed);
    }
}

/// Writes all pieces, announcing a stall to the line's credit while the socket takes nothing.
async fn write_pieces(socket: &impl Socket, pieces: &mut [Bytes], credit: &Arc<LineCredit>) -> Result<(), Code> {
    let mut first = 0;
    while first < pieces.len() {
        let mut slices = [IoSlice::new(&[]); PIECES];
        for (slice, piece) in slices.iter_mut().zip(&pieces[first..]) {
            *slice = IoSlice::new(piece);
        }
        match socket.try_write_vectored(&slices[..pieces.len() - first]) {
            Ok(written) => first += consume(&mut pieces[first..], written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(socket, credit).await?,
            Err(_) => return Err(Code::TCP_RESET),
        }
    }
    Ok(())
}

/// Drops `written` bytes from the front and says how many pieces are used up.
fn consume(pieces: &mut [Bytes], mut written: usize) -> usize {
    for (index, piece) in pieces.iter_mut().enumerate() {
        if written < piece.len() {
            piece.advance(written);
            return index;
        }
        written -= piece.len();
        *piece = Bytes::new();
    }
    pieces.len()
}

/// Waits until the socket takes bytes again: for ever, unless the line needs this stream's window back.
async fn writable(socket: &impl Socket, credit: &Arc<LineCredit>) -> Result<(), Code> {
    let mut stalled: Option<Stalled> = None;
    loop {
        tokio::select! {
            biased;
            ready = socket.writable() => return ready.map_err(|_| Code::TCP_RESET),
            () = tokio::time::sleep(STALLED_AFTER), if stalled.is_none() => stalled = Some(credit.stalled()),
            () = async { match &stalled { Some(stalled) => stalled.evicted().await, None => std::future::pending().await } } => {
                return Err(Code::WINDOW_EXHAUSTED);
            }
        }
    }
}
