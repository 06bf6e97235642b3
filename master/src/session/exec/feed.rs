//! Input for an exec that runs, brought by a call of its own.

use std::time::Duration;

use proto::{
    exec::{Attached, FromExec, ToExec},
    limits::{EXEC_PIECE_MAX, EXEC_STDIN_WINDOW},
    net::frame::FrameError,
};

use crate::fleet::{OpenError, WorkStream};

/// Time for the agent to confirm the last of it.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

/// Why input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("input goes on at byte {0}")]
    Offset(u64),
    #[error("the program takes no more input: it ended, its input was ended, or it was started without")]
    Closed,
}

/// Carries input as fast as the program takes it. Dropping it leaves what arrived.
pub struct Feeder {
    work: WorkStream,
    /// The next byte that the agent lacks.
    at: u64,
    taken: u64,
    /// Bytes of the caller's that the agent has already.
    skip: u64,
}

impl Feeder {
    pub(super) fn new(work: WorkStream, attached: &Attached, offset: u64) -> Result<Self, FeedError> {
        if offset > attached.stdin {
            return Err(FeedError::Offset(attached.stdin));
        }
        if !attached.stdin_open {
            return Err(FeedError::Closed);
        }
        Ok(Self { work, at: attached.stdin, taken: attached.stdin_taken, skip: attached.stdin - offset })
    }

    /// Sends bytes on, waiting while the program takes nothing.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), FeedError> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= known as u64;
        bytes = &bytes[known..];
        while !bytes.is_empty() {
            let room = usize::try_from((self.taken + EXEC_STDIN_WINDOW).saturating_sub(self.at)).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(room.min(EXEC_PIECE_MAX).min(bytes.len()));
            if piece.is_empty() {
                match self.work.stream.recv.next::<FromExec>().await {
                    Ok(FromExec::StdinTaken { offset }) => self.taken = offset,
                    Ok(FromExec::Ended(_)) => return Err(FeedError::Closed),
                    Ok(_) => {}
                    Err(_) => return Err(OpenError::Lost.into()),
                }
                continue;
            }
            let sent = self.work.stream.send.write_frame(&ToExec::Stdin(piece.to_vec())).await;
            sent.map_err(|_| OpenError::Lost)?;
            self.at += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Waits until the agent has all of it, and says where input goes on. With `end` nothing may follow.
    pub async fn finish(mut self, end: bool) -> Result<u64, FeedError> {
        let frames = &mut self.work.stream;
        if end {
            frames.send.write_frame(&ToExec::StdinEnd).await.map_err(|_| OpenError::Lost)?;
        }
        frames.send.finish();
        loop {
            match frames.recv.next_within::<FromExec>(CONFIRM_WITHIN).await {
                Ok(FromExec::Ended(_)) | Err(FrameError::Ended) => return Ok(self.at),
                Ok(_) => {}
                Err(FrameError::TooSlow(within)) => return Err(OpenError::TooSlow(within).into()),
                Err(_) => return Err(OpenError::Lost.into()),
            }
        }
    }
}
