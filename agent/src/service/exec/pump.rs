//! The output of an exec: two pipes, read no faster than somebody takes it, so that nothing is ever dropped but what is
//! beyond the caller's own bound.

use std::time::Duration;

use proto::{code::Code, limits::EXEC_PIECE_MAX};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
};
use tokio_util::sync::CancellationToken;

use super::{output::Kind, session::Session};

/// Carries output into the session until both pipes end, or `enough` is cancelled: a grandchild that fled its group may
/// hold them open. Pipes that were left unread for longer than `unread` kill the run. True if output is missing.
/// `reclaim` is called where other execs may give something up.
pub(super) async fn pump(
    session: &Session,
    (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
    output_max: u64,
    unread: Duration,
    enough: &CancellationToken,
    reclaim: impl Fn(),
) -> bool {
    let (mut out, mut err) = (Pipe::new(stdout), Pipe::new(stderr));
    let mut left = if output_max == 0 { u64::MAX } else { output_max };
    let mut truncated = false;
    while out.source.is_some() || err.source.is_some() {
        if !session.has_room() {
            let room = async {
                if tokio::time::timeout(unread, session.room(&reclaim)).await.is_err() {
                    session.kill(Code::UNREAD);
                    session.room(&reclaim).await;
                }
            };
            if enough.run_until_cancelled(room).await.is_none() {
                return true;
            }
        }
        let (kind, piece) = tokio::select! {
            () = enough.cancelled() => return truncated,
            piece = out.read(), if out.source.is_some() => (Kind::Stdout, piece),
            piece = err.read(), if err.source.is_some() => (Kind::Stderr, piece),
        };
        if let Some(piece) = bounded(piece, &mut left, &mut truncated) {
            session.update(|state| state.output.push(kind, &piece));
        }
    }
    truncated
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
