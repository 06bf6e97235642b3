//! What a peer announces is not what it gets: no length makes a decoder or a frame reader allocate beyond twice the bound
//! of a frame (SECURITY R30). One test in a process of its own, because it watches the whole allocator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use peak_alloc::PeakAlloc;
use proto::{
    control::{FromAgent, Hello, HelloReply},
    enrol::{EnrolReply, EnrolRequest},
    exec::{FromExec, ToExec},
    limits::{FRAME_MAX, FRAME_MAX_UNAUTHENTICATED},
    net::frame::{FrameError, FrameReader},
    open::{Open, OpenReply},
    wire::{self, Message},
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most bytes held at once during `work`, beyond what was held before.
fn peak(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

/// Reading from memory never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory made a reader wait"),
    }
}

fn announced(length: u32, max: usize, body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let wire = [&length.to_be_bytes(), body].concat();
    at_once(FrameReader::new(wire.as_slice(), max).next_bytes())
}

/// A variable-length integer as postcard writes it.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Every length up to 2^64 − 1, at every place of a frame filled with `filler`.
fn lying_lengths<M: Message>(max: usize, filler: u8) -> usize {
    let mut frame = vec![filler; max];
    let lengths = (0..64).map(|bits| 1 << bits).chain([u64::MAX, u64::from(u32::MAX), max as u64]);
    let lengths: Vec<_> = lengths.map(varint).collect();
    let mut most = 0;
    for at in 0..64 {
        for length in &lengths {
            frame.fill(filler);
            frame[at..at + length.len()].copy_from_slice(length);
            most = most.max(peak(|| drop(wire::decode::<M>(&frame))));
        }
    }
    most
}

#[test]
fn announced_lengths_allocate_nothing() {
    for max in [FRAME_MAX_UNAUTHENTICATED, FRAME_MAX] {
        let mut lengths: Vec<u32> = (0..32).map(|bits| 1 << bits).collect();
        lengths.extend([u32::MAX, max as u32 - 1, max as u32, max as u32 + 1]);
        for length in lengths {
            let mut result = Ok(Vec::new());
            let used = peak(|| result = announced(length, max, b"short"));
            assert!(used <= max + 64, "{length} announced, {used} bytes allocated");
            match result {
                Ok(bytes) => assert_eq!(bytes.len(), length as usize),
                Err(FrameError::TooLarge { .. }) => assert!(length as usize > max && used < 64, "{length}: {used}"),
                Err(FrameError::Cut) => assert!((6..=max).contains(&(length as usize)), "{length}"),
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }

    // Empty items and items of one byte, announced in any number.
    for filler in [0, 1] {
        let unauthenticated = FRAME_MAX_UNAUTHENTICATED;
        for most in
            [lying_lengths::<Hello>(unauthenticated, filler), lying_lengths::<EnrolRequest>(unauthenticated, filler)]
        {
            assert!(most <= unauthenticated, "{most} bytes behind a frame of {unauthenticated}");
        }
        for most in [
            lying_lengths::<HelloReply>(FRAME_MAX, filler),
            lying_lengths::<EnrolReply>(FRAME_MAX, filler),
            lying_lengths::<FromAgent>(FRAME_MAX, filler),
            lying_lengths::<Open>(FRAME_MAX, filler),
            lying_lengths::<OpenReply>(FRAME_MAX, filler),
            lying_lengths::<ToExec>(FRAME_MAX, filler),
            lying_lengths::<FromExec>(FRAME_MAX, filler),
        ] {
            assert!(most <= FRAME_MAX, "{most} bytes behind a frame of {FRAME_MAX}");
        }
    }
}
