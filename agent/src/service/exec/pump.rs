//! The output of an exec: two pipes, read no faster than the master takes it, so that nothing is ever dropped but what is
//! beyond the caller's own bound.

use std::time::Duration;

use proto::{code::Code, exec::FromExec, limits::EXEC_PIECE_MAX, net::stream::SendHalf};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
};
use tokio_util::sync::CancellationToken;

/// How the output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Both pipes are at their end, or reading was called off.
    All { truncated: bool },
    /// Nobody took it for too long.
    Unread,
    /// The stream is gone.
    Lost,
}

/// Carries output until both pipes end, or `enough` is cancelled: a grandchild that fled its group may hold them open.
pub(super) async fn pump(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    send: &mut SendHalf,
    output_max: u64,
    unread: Duration,
    enough: &CancellationToken,
) -> Pumped {
    let (mut out, mut err) = (Pipe::new(stdout), Pipe::new(stderr));
    let mut left = if output_max == 0 { u64::MAX } else { output_max };
    let mut truncated = false;
    while out.source.is_some() || err.source.is_some() {
        let frame = tokio::select! {
            () = enough.cancelled() => break,
            piece = out.read(), if out.source.is_some() => bounded(piece, &mut left, &mut truncated).map(FromExec::Stdout),
            piece = err.read(), if err.source.is_some() => bounded(piece, &mut left, &mut truncated).map(FromExec::Stderr),
        };
        let Some(frame) = frame else { continue };
        match tokio::time::timeout(unread, send.write_frame(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Pumped::Lost,
            Err(_) => return Pumped::Unread,
        }
    }
    Pumped::All { truncated }
}

/// Cuts a piece to what is left of the bound. What is beyond is read and dropped, so that the program is not held up.
fn bounded(mut piece: Vec<u8>, left: &mut u64, truncated: &mut bool) -> Option<Vec<u8>> {
    let fits = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
    *truncated |= fits < piece.len();
    *left -= fits as u64;
    piece.truncate(fits);
    (!piece.is_empty()).then_some(piece)
}

struct Pipe<R> {
    source: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(source: Option<R>) -> Self {
        Self { source, buffer: Vec::new() }
    }

    /// The next piece; empty at the end. Cancel-safe.
    async fn read(&mut self) -> Vec<u8> {
        let Some(source) = &mut self.source else { return Vec::new() };
        self.buffer.reserve(EXEC_PIECE_MAX);
        let mut limited = source.take(EXEC_PIECE_MAX as u64);
        match limited.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => {
                self.source = None;
                Vec::new()
            }
            Ok(_) => std::mem::take(&mut self.buffer),
        }
    }
}

/// Why a pump's end is a reason to kill what still runs.
pub(super) fn reason_to_kill(pumped: Pumped) -> Option<Code> {
    match pumped {
        Pumped::All { .. } => None,
        Pumped::Unread => Some(Code::UNREAD),
        Pumped::Lost => Some(Code::LINE_LOST),
    }
}
