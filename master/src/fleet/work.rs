//! A work stream as features see it: header written, answer pending, then the operation's own bytes. Whoever holds it
//! also holds its permit and its place in the metrics; dropping it resets the stream.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    code::Code,
    id::RequestId,
    limits::FRAME_MAX,
    net::{
        frame::{FrameError, FrameReader},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
    open::{OpenReply, Opened, Refused},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::{GaugeGuard, Metrics};

/// Why an operation did not reach the agent, or was not taken there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the agent is not connected")]
    Offline,
    #[error("the agent holds no standing line and did not look in within {0:?}")]
    NoVisit(Duration),
    #[error("the line was lost")]
    Lost,
    #[error("the agent refused: {0}")]
    Refused(#[from] Refused),
    #[error("the agent did not answer within {0:?}")]
    TooSlow(Duration),
    #[error("the line carries as many streams as it may; try again")]
    Busy,
    #[error("the agent's answer could not be read")]
    Broken(#[source] FrameError),
}

impl OpenError {
    pub fn code(&self) -> Code {
        match self {
            Self::Offline | Self::NoVisit(_) | Self::Lost => Code::LINE_LOST,
            Self::Refused(refused) => refused.code,
            Self::TooSlow(_) => Code::TOO_SLOW,
            Self::Busy => Code::BUSY,
            Self::Broken(error) => error.code(),
        }
    }
}

/// The permit and the place in the metrics of one open stream; dropping it gives both back.
pub struct StreamGuard {
    _permit: OwnedSemaphorePermit,
    _gauge: GaugeGuard,
    metrics: Arc<Metrics>,
    class: &'static str,
    opened_at: Instant,
}

impl StreamGuard {
    pub(super) fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>, class: &'static str) -> Self {
        let gauge = metrics.stream_open(class);
        Self { _permit: permit, _gauge: gauge, metrics, class, opened_at: Instant::now() }
    }

    /// Reads the agent's answer to the header and counts it; `within` bounds the wait.
    pub async fn answer(&self, recv: &mut RecvHalf, within: Duration) -> Result<Opened, OpenError> {
        let answer = match FrameReader::new(recv, FRAME_MAX).next_within::<OpenReply>(within).await {
            Ok(OpenReply::Opened(opened)) => Ok(opened),
            Ok(OpenReply::Refused(refused)) => Err(OpenError::Refused(refused)),
            Err(FrameError::TooSlow(within)) => Err(OpenError::TooSlow(within)),
            Err(FrameError::Io(_) | FrameError::Ended | FrameError::Cut) => Err(OpenError::Lost),
            Err(error @ (FrameError::TooLarge { .. } | FrameError::Decode(_))) => Err(OpenError::Broken(error)),
        };
        let refused = answer.as_ref().err().map(OpenError::code);
        self.metrics.stream_answered(self.class, refused, self.opened_at.elapsed().as_secs_f64());
        answer
    }
}

/// One stream to an agent.
pub struct WorkStream {
    pub request_id: RequestId,
    pub stream: FrameStream,
    guard: StreamGuard,
}

impl WorkStream {
    pub(super) fn new(request_id: RequestId, stream: FrameStream, guard: StreamGuard) -> Self {
        Self { request_id, stream, guard }
    }

    /// The agent's answer to the header; `within` bounds the wait.
    pub async fn opened(&mut self, within: Duration) -> Result<Opened, OpenError> {
        self.guard.answer(self.stream.recv.source_mut(), within).await
    }

    /// The halves for raw bytes, and the guard that must live as long as they do.
    pub fn into_halves(self) -> (SendHalf, RecvHalf, StreamGuard) {
        let (send, recv) = self.stream.into_halves();
        (send, recv, self.guard)
    }

    /// The stream for frames, and the guard that must live as long as it does.
    pub fn into_frames(self) -> (FrameStream, StreamGuard) {
        (self.stream, self.guard)
    }
}
