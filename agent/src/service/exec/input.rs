//! What the master sends to a running exec: input, its end, and the wish to cancel.

use proto::{
    code::Code,
    exec::ToExec,
    net::{
        frame::{FrameError, FrameReader},
        stream::RecvHalf,
    },
};
use tokio::{io::AsyncWriteExt, process::ChildStdin, sync::mpsc};

/// Pieces taken ahead of a program that does not read, so that a cancel behind them is still seen: 1 MiB. Beyond it the
/// stream is left unread, and only its reset cancels.
const PIECES_AHEAD: usize = 32;

/// Feeds the program until there is a reason to kill it, and returns that reason. A clean end of the stream is the end of
/// the input and no reason.
pub(super) async fn feed(frames: &mut FrameReader<RecvHalf>, stdin: Option<ChildStdin>) -> Code {
    let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
    let write = async {
        write(stdin, queue).await;
        // The program has all it will get; the stream still may bring a cancel.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        code = read(frames, pieces) => code,
        () = write => Code::DONE,
    }
}

async fn read(frames: &mut FrameReader<RecvHalf>, pieces: mpsc::Sender<Vec<u8>>) -> Code {
    let mut pieces = Some(pieces);
    loop {
        match frames.next::<ToExec>().await {
            Ok(ToExec::Stdin(piece)) => {
                if let Some(queue) = &pieces {
                    // The writer takes pieces even after the program closed its input.
                    let _ = queue.send(piece).await;
                }
            }
            Ok(ToExec::Ack { .. }) => {}
            Ok(ToExec::StdinEnd) => pieces = None,
            Ok(ToExec::Cancel) => return Code::CANCELLED,
            Err(FrameError::Ended) => {
                drop(pieces.take());
                return std::future::pending().await;
            }
            Err(error) => return error.code(),
        }
    }
}

/// A program that closed its input gets nothing more, and whoever sends is not held up.
async fn write(stdin: Option<ChildStdin>, mut queue: mpsc::Receiver<Vec<u8>>) {
    let mut stdin = stdin;
    while let Some(piece) = queue.recv().await {
        if let Some(open) = &mut stdin
            && open.write_all(&piece).await.is_err()
        {
            stdin = None;
        }
    }
}
