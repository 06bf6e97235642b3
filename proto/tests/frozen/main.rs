//! The bytes of every message, frozen and annotated. A change here is a change of the protocol: released bytes are never
//! edited, new ones are appended. Each case is also a seed of its decoder's fuzz target; write missing ones with
//! `UPDATE_SEEDS=1 cargo test -p landline-proto --test frozen`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod enrol;
mod work;

use std::{fmt::Debug, fs, path::Path};

use proto::wire::{self, Message};

/// Checks both directions, and that a newer peer's longer message is still understood.
#[track_caller]
fn frozen<M: Message + PartialEq + Debug>(target: &str, case: &str, message: M, annotated: &str) {
    let bytes = parse(annotated);
    let told = format!("{target}/{case}");
    assert_eq!(hex::encode(wire::encode(&message)), hex::encode(&bytes), "encoding of {told}");
    assert_eq!(wire::decode::<M>(&bytes).as_ref(), Ok(&message), "decoding of {told}");
    let longer = [bytes.as_slice(), b"\x01what a later version appends"].concat();
    assert_eq!(wire::decode::<M>(&longer).as_ref(), Ok(&message), "{told} with a tail");
    for length in 0..bytes.len() {
        assert!(wire::decode::<M>(&bytes[..length]).is_err(), "{told} cut at {length}");
    }
    seed(target, case, &bytes);
}

/// Hexadecimal bytes and quoted text, separated by blanks; `#` starts a comment.
fn parse(annotated: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in annotated.lines() {
        let mut rest = line.split('#').next().unwrap_or_default().trim();
        while !rest.is_empty() {
            let (token, tail) = match rest.strip_prefix('"') {
                Some(text) => {
                    let (text, tail) = text.split_once('"').unwrap();
                    bytes.extend_from_slice(text.as_bytes());
                    ("", tail)
                }
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            bytes.extend(hex::decode(token).unwrap());
            rest = tail.trim_start();
        }
    }
    bytes
}

/// The committed seed of this case holds these bytes.
fn seed(target: &str, case: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let path = dir.join(case);
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        fs::create_dir_all(&dir).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    assert!(fs::read(&path).is_ok_and(|seed| seed == bytes), "fuzz/corpus/{target}/{case} is not this message");
}

#[test]
fn the_annotation_is_read() {
    assert_eq!(parse("00 ff \"a b\" 0a0b # 01\n\n  02 \"x\""), b"\x00\xffa b\x0a\x0b\x02x");
}
