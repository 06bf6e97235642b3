//! Properties of every message: what is encoded is decoded, with any tail; what is cut is refused; what is damaged or
//! random is answered, never with a panic; what breaks a bound is refused with its name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod strategies;

use std::fmt::Debug;

use proptest::{collection::vec, prelude::*};
use proto::wire::{self, Message};

/// A message survives the trip, also to a build that knows less of it; a part of it is refused.
fn travels<M: Message + PartialEq + Debug>(message: &M, tail: &[u8], cut: usize) -> Result<(), TestCaseError> {
    let bytes = wire::encode(message);
    prop_assert_eq!(&wire::decode::<M>(&bytes).unwrap(), message);
    prop_assert_eq!(&wire::decode::<M>(&[bytes.as_slice(), tail].concat()).unwrap(), message);
    prop_assert!(wire::decode::<M>(&bytes[..cut % bytes.len()]).is_err());
    Ok(())
}

/// Whatever a decoder accepts it must be able to say again.
fn answers<M: Message + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = wire::decode::<M>(bytes) {
        prop_assert_eq!(wire::decode::<M>(&wire::encode(&message)).unwrap(), message);
    }
    Ok(())
}

/// A valid encoding with some bytes changed: gets further into a decoder than noise does.
fn damaged<M: Message + Debug>(message: impl Strategy<Value = M>) -> impl Strategy<Value = Vec<u8>> {
    (message, vec((any::<usize>(), any::<u8>()), 1..4)).prop_map(|(message, changes)| {
        let mut bytes = wire::encode(&message);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes
    })
}

macro_rules! messages {
    ($($name:ident: $message:ty;)*) => {
        $(mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn travels(message in strategies::$name(), tail in vec(any::<u8>(), 0..20), cut: usize) {
                    super::travels::<$message>(&message, &tail, cut)?;
                }

                #[test]
                fn random_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
                    answers::<$message>(&bytes)?;
                }

                #[test]
                fn damaged_bytes_are_answered(bytes in damaged(strategies::$name())) {
                    answers::<$message>(&bytes)?;
                }
            }
        })*
    };
}

messages! {
    hello: proto::control::Hello;
    hello_reply: proto::control::HelloReply;
    from_agent: proto::control::FromAgent;
    from_master: proto::control::FromMaster;
    enrol_request: proto::enrol::EnrolRequest;
    enrol_reply: proto::enrol::EnrolReply;
    open: proto::open::Open;
    open_head: proto::open::OpenHead;
    open_reply: proto::open::OpenReply;
    to_exec: proto::exec::ToExec;
    from_exec: proto::exec::FromExec;
    command_reply: proto::command::Reply;
}
