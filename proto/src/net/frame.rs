//! Frames: a 32-bit big-endian length, then that many bytes of one postcard message. The length is checked before
//! anything is allocated for it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    code::Code,
    wire::{self, DecodeError, Message},
};

const LENGTH_BYTES: usize = 4;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the stream ended")]
    Ended,
    #[error("the stream ended inside a frame")]
    Cut,
    #[error("a frame of {length} bytes is longer than the {max} allowed")]
    TooLarge { length: usize, max: usize },
    #[error("no frame within {0:?}")]
    TooSlow(Duration),
    #[error("a frame could not be decoded")]
    Decode(#[from] DecodeError),
    #[error("the stream failed")]
    Io(#[from] std::io::Error),
}

impl FrameError {
    /// The code to close the stream with.
    pub fn code(&self) -> Code {
        match self {
            Self::Ended | Self::Cut | Self::Decode(_) => Code::MALFORMED,
            Self::TooLarge { .. } => Code::TOO_LARGE,
            Self::TooSlow(_) => Code::TOO_SLOW,
            Self::Io(_) => Code::LINE_LOST,
        }
    }
}

/// Reads frames and never a byte beyond the one asked for, so that raw bytes may follow. Holds what has arrived of a
/// frame: dropping a pending [`next`](Self::next) loses nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    max: usize,
    length: [u8; LENGTH_BYTES],
    have: usize,
    body: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames longer than `max` bytes are refused.
    pub fn new(source: R, max: usize) -> Self {
        Self { source, max, length: [0; LENGTH_BYTES], have: 0, body: Vec::new() }
    }

    /// The next message. Cancel-safe. After an error the stream is of no further use.
    pub async fn next<M: Message>(&mut self) -> Result<M, FrameError> {
        self.fill().await?;
        let message = wire::decode(&self.body);
        self.release();
        Ok(message?)
    }

    /// The next frame, not decoded. Cancel-safe.
    pub async fn next_bytes(&mut self) -> Result<Vec<u8>, FrameError> {
        self.fill().await?;
        Ok(std::mem::take(&mut self.body))
    }

    async fn fill(&mut self) -> Result<(), FrameError> {
        while self.have < LENGTH_BYTES {
            match self.source.read(&mut self.length[self.have..]).await? {
                0 if self.have == 0 => return Err(FrameError::Ended),
                0 => return Err(FrameError::Cut),
                read => self.have += read,
            }
        }
        let length = u32::from_be_bytes(self.length) as usize;
        if length > self.max {
            return Err(FrameError::TooLarge { length, max: self.max });
        }
        self.body.resize(length, 0);
        while self.have < LENGTH_BYTES + length {
            match self.source.read(&mut self.body[self.have - LENGTH_BYTES..]).await? {
                0 => return Err(FrameError::Cut),
                read => self.have += read,
            }
        }
        self.have = 0;
        Ok(())
    }

    /// Does not let one large frame pin its buffer for the life of an idle stream.
    fn release(&mut self) {
        if self.body.capacity() > 4096 {
            self.body = Vec::new();
        }
    }

    /// The next message, or [`FrameError::TooSlow`] after `within`.
    pub async fn next_within<M: Message>(&mut self, within: Duration) -> Result<M, FrameError> {
        tokio::time::timeout(within, self.next()).await.unwrap_or(Err(FrameError::TooSlow(within)))
    }

    /// Raises or lowers the bound for the frames to come.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The source, positioned behind the last frame.
    pub fn into_source(self) -> R {
        self.source
    }
}

/// One message as a frame.
pub fn encode_frame<M: Message>(message: &M) -> Vec<u8> {
    let body = wire::encode(message);
    let mut frame = Vec::with_capacity(LENGTH_BYTES + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// Writes one frame. Not cancel-safe: a dropped future may leave half a frame behind.
pub async fn write_frame<M: Message>(sink: &mut (impl AsyncWrite + Unpin), message: &M) -> std::io::Result<()> {
    sink.write_all(&encode_frame(message)).await
}
