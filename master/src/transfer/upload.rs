//! One file for an agent. What the agent says while bytes still flow (no room, too many bytes) ends it at once.

use std::{error::Error, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use proto::{
    code::Code,
    net::{
        frame::{FrameError, FrameReader},
        stream::{RecvHalf, SendHalf},
    },
    transfer::FromWrite,
};

use super::{OPENED_WITHIN, Record, TransferError};
use crate::fleet::{StreamGuard, WorkStream};

/// A body that does not go on for this long is given up, and an agent that takes nothing for as long.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Time for the agent to hash what it held, to write what it was given and to have it on its disk.
const STORED_WITHIN: Duration = Duration::from_secs(600);

/// What became of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The file stands in its place.
    Done { created: bool, blake3: [u8; 32] },
    /// They were not all; this much is kept.
    Partial { offset: u64 },
}

/// A file as its caller delivers it. Dropping it resets the stream; the agent keeps what arrived.
pub struct Upload {
    parts: Parts,
    record: Record,
}

pub(super) struct Parts {
    offset: u64,
    send: SendHalf,
    recv: FrameReader<RecvHalf>,
    guard: StreamGuard,
}

impl Parts {
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Upload {
    pub(super) async fn begin(work: WorkStream) -> Result<Parts, TransferError> {
        let (mut stream, guard) = work.into_frames();
        match stream.read_within(OPENED_WITHIN).await.map_err(lost)? {
            FromWrite::Ready { offset } => Ok(Parts { offset, send: stream.send, recv: stream.recv, guard }),
            FromWrite::Failed { code, message, offset } => {
                Err(TransferError::Failed { code, message, offset: Some(offset) })
            }
            FromWrite::Done { .. } | FromWrite::Partial { .. } => Err(TransferError::Lost(Code::UNEXPECTED)),
        }
    }

    pub(super) fn new(parts: Parts, record: Record) -> Self {
        Self { parts, record }
    }

    /// Hands `body` to the agent and waits for what became of it.
    pub async fn carry<E: Into<Box<dyn Error + Send + Sync>>>(
        mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Stored, TransferError> {
        let result = self.carry_all(body).await;
        self.record.result = match &result {
            Ok(Stored::Done { .. }) => Code::DONE,
            Ok(Stored::Partial { .. }) => Code::ABANDONED,
            Err(error) => error.code(),
        };
        result
    }

    async fn carry_all<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Stored, TransferError> {
        let Parts { send, recv, guard: _guard, .. } = &mut self.parts;
        let mut answer = pin!(recv.next::<FromWrite>());
        let fed = tokio::select! {
            biased;
            early = &mut answer => return stored(early),
            fed = feed(send, &mut self.record, body) => fed,
        };
        match fed {
            Ok(()) => send.finish(),
            // The agent's word explains a stream that takes no more; without one the line is gone.
            Err(TransferError::Lost(code)) => {
                let last = tokio::time::timeout(OPENED_WITHIN, answer).await;
                return stored(last.map_err(|_| TransferError::Lost(code))?);
            }
            Err(error) => {
                send.reset(error.code());
                return Err(error);
            }
        }
        let last = tokio::time::timeout(STORED_WITHIN, answer).await;
        stored(last.map_err(|_| TransferError::Unknown(STORED_WITHIN))?)
    }
}

async fn feed<E: Into<Box<dyn Error + Send + Sync>>>(
    send: &mut SendHalf,
    record: &mut Record,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(), TransferError> {
    let mut body = pin!(body);
    loop {
        let next = tokio::time::timeout(STALLED_AFTER, body.next()).await;
        let piece = match next.map_err(|_| TransferError::Stalled(STALLED_AFTER))? {
            None => return Ok(()),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                tracing::debug!(error = %error.into(), "the body of an upload was cut off");
                return Err(TransferError::Cut);
            }
        };
        record.carried(piece.len());
        let written = tokio::time::timeout(STORED_WITHIN, send.write_chunk(piece)).await;
        match written.map_err(|_| TransferError::Stalled(STORED_WITHIN))? {
            Ok(()) => {}
            Err(error) => return Err(TransferError::Lost(proto::net::stream::write_error_code(&error))),
        }
    }
}

fn stored(last: Result<FromWrite, FrameError>) -> Result<Stored, TransferError> {
    match last.map_err(lost)? {
        FromWrite::Done { created, blake3 } => Ok(Stored::Done { created, blake3 }),
        FromWrite::Partial { offset } => Ok(Stored::Partial { offset }),
        FromWrite::Failed { code, message, offset } => {
            Err(TransferError::Failed { code, message, offset: Some(offset) })
        }
        FromWrite::Ready { .. } => Err(TransferError::Lost(Code::UNEXPECTED)),
    }
}

fn lost(error: FrameError) -> TransferError {
    TransferError::Lost(error.code())
}
