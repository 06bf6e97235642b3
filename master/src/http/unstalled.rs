//! A stream whose peer must take what is written to it: a reader that stands still for too long is cut off, so that it
//! holds no place for ever (SECURITY R55). Quiet streams are left alone.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Fails with `TimedOut` once a write or flush made no progress for the given time.
#[derive(Debug)]
pub struct Unstalled<S> {
    inner: S,
    within: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Unstalled<S> {
    pub fn new(inner: S, within: Duration) -> Self {
        Self { inner, within, deadline: Box::pin(sleep(within)), waiting: false }
    }

    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// `result` of a write: progress ends the waiting, none begins or goes on with it.
    fn judge<T>(&mut self, result: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = false;
            return result;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.within);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.judge(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(result, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_cut_and_a_slow_one_is_not() {
        let (near, mut far) = duplex(16);
        let mut near = Unstalled::new(near, WITHIN);
        let slow = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(WITHIN / 2).await;
                far.read_exact(&mut [0; 16]).await.unwrap();
            }
            far
        });
        near.write_all(&[7; 64]).await.unwrap();
        let far = slow.await.unwrap();
        let error = near.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(far);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_lives_on() {
        let (near, mut far) = duplex(16);
        let mut near = Unstalled::new(near, WITHIN);
        tokio::time::sleep(WITHIN * 10).await;
        near.write_all(b"still here").await.unwrap();
        far.read_exact(&mut [0; 10]).await.unwrap();
    }
}
