//! One file from an agent, piece by piece. The last piece is held back until the agent says that the file did not change
//! meanwhile, so that a mixture never looks like the whole.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    code::Code,
    limits::FRAME_MAX,
    net::{bulk::BulkReader, credit::LineCredit, frame::FrameReader, stream::read_error_code},
    transfer::{ReadBegin, ReadEnd},
};

use super::{OPENED_WITHIN, Record, TransferError};
use crate::fleet::{Line, StreamGuard, WorkStream};

/// Largest piece handed on, bytes.
const PIECE: usize = 128 * 1024;

/// A file as its caller reads it. Dropping it before its end resets the stream; the agent stops reading.
pub struct Download {
    pub begin: ReadBegin,
    parts: Parts,
    left: u64,
    /// BLAKE3 of all bytes handed on, once they were.
    blake3: Option<[u8; 32]>,
    record: Record,
}

pub(super) struct Parts {
    begin: ReadBegin,
    reader: BulkReader,
    line: Arc<Line>,
    _guard: StreamGuard,
}

impl Download {
    pub(super) async fn begin(line: Arc<Line>, work: WorkStream) -> Result<Parts, TransferError> {
        let (mut send, recv, _guard) = work.into_halves();
        send.finish();
        let mut reader = BulkReader::new(recv);
        let begin = FrameReader::new(&mut reader, FRAME_MAX).next_within(OPENED_WITHIN).await;
        let begin = begin.map_err(|error| failed(error.code()))?;
        Ok(Parts { begin, reader, line, _guard })
    }

    pub(super) fn new(parts: Parts, record: Record) -> Self {
        let begin = parts.begin.clone();
        Self { left: begin.length, begin, parts, blake3: None, record }
    }

    /// Credit of the line the bytes come over, for callers that do not take them.
    pub fn credit(&self) -> Arc<LineCredit> {
        self.parts.line.credit().clone()
    }

    /// The next piece; `None` after the last. After an error there is nothing more, and what came before must not be
    /// taken for the file.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        let next = self.read().await;
        match &next {
            Ok(Some(piece)) => self.record.carried(piece.len()),
            Ok(None) => self.record.result = Code::DONE,
            Err(error) => self.record.result = error.code(),
        }
        next
    }

    /// BLAKE3 of what was handed on; known when the last piece is.
    pub fn blake3(&self) -> Option<[u8; 32]> {
        self.blake3
    }

    async fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.left == 0 {
            if self.blake3.is_none() {
                self.end().await?;
            }
            return Ok(None);
        }
        let most = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let piece = self.parts.reader.piece(most).await.map_err(|error| failed(read_error_code(&error)))?;
        let piece = piece.ok_or(TransferError::Lost(Code::MALFORMED))?;
        self.left -= piece.len() as u64;
        if self.left == 0 {
            self.end().await?;
        }
        Ok(Some(piece))
    }

    async fn end(&mut self) -> Result<(), TransferError> {
        let mut frames = FrameReader::new(&mut self.parts.reader, FRAME_MAX);
        let end: ReadEnd =
            frames.next_within(OPENED_WITHIN).await.map_err(|error| TransferError::Lost(error.code()))?;
        if end.changed {
            return Err(failed(Code::SOURCE_CHANGED));
        }
        self.blake3 = Some(end.blake3);
        Ok(())
    }
}

/// What the agent reset the stream with, or how the line ended.
fn failed(code: Code) -> TransferError {
    match code {
        Code::SOURCE_CHANGED | Code::IO_FAILED | Code::NO_ACCESS => {
            let message = code.meaning().unwrap_or_default().to_owned();
            TransferError::Failed { code, message, offset: None }
        }
        code => TransferError::Lost(code),
    }
}
