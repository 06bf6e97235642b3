//! The frame reader against streams that arrive in any pieces, end anywhere and are given up in the middle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*};
use proto::{
    exec::ToExec,
    net::frame::{FrameError, FrameReader, encode_frame},
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Gives a stream in pieces of the given sizes, waiting once before each.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    pieces: Vec<usize>,
    next: usize,
    waited: bool,
}

impl AsyncRead for Dribble {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.waited = !self.waited;
        if self.waited {
            return Poll::Pending;
        }
        let piece = self.pieces[self.next % self.pieces.len()].max(1);
        self.next += 1;
        let end = self.bytes.len().min(self.at + piece.min(buf.remaining()));
        buf.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// Polls once; `None` if it has to wait, and then the future is dropped.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Asks again and again, each time giving the pending read up: what had arrived must not be lost.
fn next(reader: &mut FrameReader<Dribble>) -> Result<ToExec, FrameError> {
    loop {
        if let Some(result) = poll_once(reader.next()) {
            return result;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_arrive_whole_however_they_are_cut_and_given_up(
        bodies in vec(vec(any::<u8>(), 0..6000), 1..5), pieces in vec(0usize..2000, 1..20), raw in vec(any::<u8>(), 0..50),
    ) {
        let messages: Vec<_> = bodies.into_iter().map(ToExec::Stdin).collect();
        let mut bytes: Vec<u8> = messages.iter().flat_map(encode_frame).collect();
        bytes.extend_from_slice(&raw);
        let mut reader = FrameReader::new(Dribble { bytes, at: 0, pieces, next: 0, waited: false }, 64 * 1024);
        for message in &messages {
            prop_assert_eq!(&next(&mut reader).unwrap(), message);
        }
        // Never a byte beyond the frame: raw bytes may follow.
        let source = reader.into_source();
        prop_assert_eq!(&source.bytes[source.at..], raw.as_slice());
    }

    #[test]
    fn a_stream_that_ends_says_where(cut in 0usize..=40, pieces in vec(0usize..30, 1..5)) {
        let whole = encode_frame(&ToExec::Stdin(vec![7; 34]));
        prop_assert_eq!(whole.len(), 40);
        let bytes = whole[..cut].to_vec();
        let mut reader = FrameReader::new(Dribble { bytes, at: 0, pieces, next: 0, waited: false }, 64);
        let result = next(&mut reader);
        match cut {
            0 => prop_assert!(matches!(result, Err(FrameError::Ended))),
            40 => prop_assert!(matches!(result, Ok(ToExec::Stdin(_)))),
            _ => prop_assert!(matches!(result, Err(FrameError::Cut))),
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
        let mut reader = FrameReader::new(bytes.as_slice(), 256);
        while let Some(Ok(_)) = poll_once(reader.next::<ToExec>()) {}
        prop_assert!(poll_once(reader.source_mut().read_u8()).is_some());
    }
}

#[test]
fn one_byte_too_many_is_refused_before_it_is_read() {
    let frame = encode_frame(&ToExec::Stdin(vec![0; 100]));
    let length = frame.len() - 4;
    let read = |max| poll_once(FrameReader::new(frame.as_slice(), max).next::<ToExec>()).unwrap();
    assert!(read(length).is_ok());
    assert!(matches!(read(length - 1), Err(FrameError::TooLarge { .. })));
}
