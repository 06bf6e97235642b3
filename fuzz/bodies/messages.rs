//! Messages, frames and ids: what is accepted can be said again and means the same.

use std::{
    fmt::Debug,
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use proto::{
    exec::ToExec,
    id::AgentId,
    limits::FRAME_MAX_UNAUTHENTICATED,
    net::{
        carrier::frames::{MESSAGE_MAX, PACKET_MAX, PACKETS_MAX, decode},
        frame::{FrameError, FrameReader, encode_frame},
    },
    open::{OPERATIONS, Open, OpenHead},
    wire::{self, Message},
};

pub(super) fn message<M: Message + PartialEq + Debug>(input: &[u8]) {
    let Ok(message) = wire::decode::<M>(input) else { return };
    let again = wire::encode(&message);
    assert_eq!(wire::decode::<M>(&again).as_ref(), Ok(&message), "said again it means something else");
    assert!(again.len() <= input.len(), "the shortest encoding is longer than the input");
}

/// A header that is understood has a head that is understood, and it names an operation of ours.
pub(super) fn open(input: &[u8]) {
    message::<Open>(input);
    if let Ok(open) = wire::decode::<Open>(input) {
        let head = wire::decode::<OpenHead>(input).expect("a header without a head");
        assert_eq!((head.request_id, head.issued_at_ms), (open.request_id, open.issued_at_ms));
        assert!(head.operation < OPERATIONS);
        // Printed in logs and audit rows.
        let _ = format!("{open:?}");
    }
}

/// A stream of frames, read to its end.
pub(super) fn frames(input: &[u8]) {
    let mut reader = FrameReader::new(input, FRAME_MAX_UNAUTHENTICATED);
    let mut left = input;
    loop {
        match at_once(reader.next::<ToExec>()) {
            Ok(message) => {
                let length = u32::from_be_bytes(left[..4].try_into().expect("a frame has a length")) as usize;
                assert!(encode_frame(&message).len() <= 4 + length);
                left = &left[4 + length..];
            }
            Err(FrameError::Ended) => return assert!(left.is_empty(), "an end in the middle"),
            Err(error) => {
                let _ = (error.code(), error.to_string());
                return;
            }
        }
    }
}

/// One message of the WebSocket carrier: within its bounds, and no byte more or less comes out than went in.
pub(super) fn packets(input: &[u8]) {
    let mut batch = match decode(input.to_vec().into()) {
        Ok(batch) => batch,
        Err(error) => return drop(error.to_string()),
    };
    assert!(input.len() <= MESSAGE_MAX && batch.ecn < 4 && batch.bytes() == input.len() - 3);
    let mut packets = Vec::new();
    while let Some(packet) = batch.next_packet() {
        assert!((1..=usize::from(PACKET_MAX)).contains(&packet.len()));
        packets.push(packet);
    }
    assert!((1..=PACKETS_MAX).contains(&packets.len()));
    assert_eq!(packets.concat(), &input[3..]);
}

/// An id is its own text, fits a DNS label and needs no escaping anywhere.
pub(super) fn agent_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(id) = text.parse::<AgentId>() else { return };
    assert_eq!(id.as_str(), text);
    assert!((1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
    assert!(!text.starts_with('.') && !text.contains('\\'));
}

/// Reading from memory never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory made a reader wait"),
    }
}
