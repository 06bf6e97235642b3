//! What is printed while something runs: a thread of its own writes, so that a terminal or a pipe that takes nothing holds
//! the program back but never Ctrl-C.

use std::{
    io::{self, Write},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::following::Pipe;

/// Pieces that wait to be written; further ones wait with whoever brings them.
const PIECES: usize = 16;
/// How long the last pieces may take once nobody waits for them.
const LAST_WITHIN: Duration = Duration::from_millis(500);

/// Clones print to the same.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    pieces: mpsc::Sender<(Pipe, Vec<u8>)>,
    /// Nothing can be written any more.
    pub(super) gone: CancellationToken,
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Writer(JoinHandle<io::Result<()>>);

impl Screen {
    pub(super) fn open() -> (Self, Writer) {
        let (pieces, waiting) = mpsc::channel(PIECES);
        let gone = CancellationToken::new();
        let failed = gone.clone();
        let writer = tokio::task::spawn_blocking(move || write(waiting).inspect_err(|_| failed.cancel()));
        (Self { pieces, gone }, Writer(writer))
    }

    /// Waits for room. What comes after the end is dropped. Cancel-safe: dropped before its end, nothing was written.
    pub(super) async fn write(&self, pipe: Pipe, bytes: Vec<u8>) {
        let _ = self.pieces.send((pipe, bytes)).await;
    }

    /// A line of our own, on standard error.
    pub(super) async fn say(&self, text: &str) {
        self.write(Pipe::Stderr, format!("landline: {text}\n").into_bytes()).await;
    }
}

impl Writer {
    /// Waits until everything is written, all screens being dropped. `hurry`: but not for long.
    pub(super) async fn finish(mut self, hurry: bool) -> io::Result<()> {
        if hurry {
            return match tokio::time::timeout(LAST_WITHIN, &mut self.0).await {
                Ok(written) => written.map_err(io::Error::other)?,
                Err(_) => Ok(()),
            };
        }
        self.0.await.map_err(io::Error::other)?
    }
}

fn write(mut waiting: mpsc::Receiver<(Pipe, Vec<u8>)>) -> io::Result<()> {
    while let Some((pipe, bytes)) = waiting.blocking_recv() {
        match pipe {
            Pipe::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes).and_then(|()| out.flush())?;
            }
            Pipe::Stderr => io::stderr().lock().write_all(&bytes)?,
        }
    }
    Ok(())
}
