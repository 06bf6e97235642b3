//! One stream at an exec from the master's side: frames come by `recv`; input, acknowledgements and their order are the
//! writer's.

use bytes::Bytes;
use proto::{
    exec::{Attached, ToExec},
    limits::{EXEC_PIECE_MAX, EXEC_STDIN_WINDOW},
    net::{
        frame::FrameReader,
        stream::{RecvHalf, SendHalf},
    },
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Stdin;
use crate::fleet::{StreamGuard, WorkStream};

/// What the writer goes by.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// Output up to here is with the caller.
    acked: u64,
    /// Input up to here is with the program.
    taken: u64,
}

/// Dropping it resets the stream; the exec goes on.
pub(super) struct Stream {
    pub(super) recv: FrameReader<RecvHalf>,
    known: watch::Sender<Known>,
    _writer: AbortOnDropHandle<()>,
    _guard: StreamGuard,
}

impl Stream {
    /// Feeds what `stdin` has from where `attached` stands; without it from the beginning.
    pub(super) fn new(work: WorkStream, stdin: &Stdin, attached: Option<&Attached>) -> Self {
        let (frames, guard) = work.into_frames();
        let (at, taken) = attached.map_or((0, 0), |attached| (attached.stdin, attached.stdin_taken));
        let (known, learns) = watch::channel(Known { acked: 0, taken });
        let feed = if attached.is_none_or(|attached| attached.stdin_open) { stdin.clone() } else { Stdin::default() };
        let writer = AbortOnDropHandle::new(tokio::spawn(write(frames.send, feed, at, learns)));
        Self { recv: frames.recv, known, _writer: writer, _guard: guard }
    }

    pub(super) fn ack(&self, offset: u64) {
        self.known.send_modify(|known| known.acked = known.acked.max(offset));
    }

    pub(super) fn taken(&self, offset: u64) {
        self.known.send_modify(|known| known.taken = known.taken.max(offset));
    }
}

/// Ends with the stream.
async fn write(mut send: SendHalf, stdin: Stdin, mut at: u64, mut learns: watch::Receiver<Known>) {
    let (mut acked, mut ended) = (0, stdin.bytes.is_empty() || !stdin.ends);
    loop {
        let known = *learns.borrow_and_update();
        let rest = rest(&stdin.bytes, at);
        let room = usize::try_from((known.taken + EXEC_STDIN_WINDOW).saturating_sub(at)).unwrap_or(usize::MAX);
        let message = if known.acked > acked {
            acked = known.acked;
            ToExec::Ack { offset: acked }
        } else if !rest.is_empty() && room > 0 {
            let piece = rest[..rest.len().min(room).min(EXEC_PIECE_MAX)].to_vec();
            at += piece.len() as u64;
            ToExec::Stdin(piece)
        } else if rest.is_empty() && !ended {
            ended = true;
            ToExec::StdinEnd
        } else if learns.changed().await.is_ok() {
            continue;
        } else {
            return;
        };
        if send.write_frame(&message).await.is_err() {
            return;
        }
    }
}

fn rest(bytes: &Bytes, at: u64) -> &[u8] {
    usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default()
}
