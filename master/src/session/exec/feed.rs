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
    /// The agent said that it has everything before this byte.
    confirmed: u64,
    /// Bytes of the caller's that the agent has already.
    skip: u64,
}

/// How the agent ended the stream.
enum Last {
    /// Having read all of it.
    AllRead,
    /// With the run, whatever was still on its way.
    RunOver,
}

impl Feeder {
    pub(super) fn new(work: WorkStream, attached: &Attached, offset: u64) -> Result<Self, FeedError> {
        if !attached.stdin_open {
            return Err(FeedError::Closed);
        }
        let skip = attached.stdin.checked_sub(offset).ok_or(FeedError::Offset(attached.stdin))?;
        let (at, taken) = (attached.stdin, attached.stdin_taken);
        Ok(Self { work, at, taken, confirmed: at, skip })
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
                    Ok(FromExec::StdinTaken { offset }) => self.is_taken(offset),
                    Ok(FromExec::Ended(_)) => return Err(FeedError::Closed),
                    Ok(_) => {}
                    Err(_) => return Err(OpenError::Lost.into()),
                }
                continue;
            }
            if self.work.stream.send.write_frame(&ToExec::Stdin(piece.to_vec())).await.is_err() {
                return Err(match self.last().await? {
                    Last::RunOver => FeedError::Closed,
                    Last::AllRead => OpenError::Lost.into(),
                });
            }
            self.at += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Waits until the agent has all of it, and says where input goes on. With `end` nothing may follow.
    pub async fn finish(mut self, end: bool) -> Result<u64, FeedError> {
        let send = &mut self.work.stream.send;
        // Where it cannot be written the agent says why.
        if !end || send.write_frame(&ToExec::StdinEnd).await.is_ok() {
            send.finish();
        }
        match self.last().await? {
            Last::RunOver if self.confirmed < self.at => Err(FeedError::Closed),
            Last::RunOver | Last::AllRead => Ok(self.at),
        }
    }

    async fn last(&mut self) -> Result<Last, OpenError> {
        loop {
            match self.work.stream.recv.next_within::<FromExec>(CONFIRM_WITHIN).await {
                Ok(FromExec::StdinTaken { offset }) => self.is_taken(offset),
                Ok(FromExec::Ended(_)) => return Ok(Last::RunOver),
                Ok(_) => {}
                Err(FrameError::Ended) => return Ok(Last::AllRead),
                Err(FrameError::TooSlow(within)) => return Err(OpenError::TooSlow(within)),
                Err(_) => return Err(OpenError::Lost),
            }
        }
    }

    fn is_taken(&mut self, offset: u64) {
        self.taken = offset;
        self.confirmed = self.confirmed.max(offset);
    }
}
