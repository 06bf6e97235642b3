//! What both ends of a Landline must agree on: ids, limits, numbered codes, messages and the freshness rule.
//!
//! Without the `net` feature this crate is pure: no clock, no sockets, no runtime. docs/PROTOCOL.md is the normative
//! text; `tests/protocol_text.rs` ties the two together by hash.

pub mod check;
pub mod code;
pub mod command;
pub mod control;
pub mod enrol;
pub mod exec;
pub mod failpoint;
pub mod file;
pub mod freshness;
pub mod id;
pub mod limits;
pub mod open;
pub mod ring;
pub mod shell;
pub mod stats;
pub mod transfer;
pub mod wire;

#[cfg(feature = "net")]
pub mod net;

/// ALPN of an agent's line.
pub const ALPN_LINE: &[u8] = b"landline/1";
/// ALPN of enrolment and renewal, on the same endpoint.
pub const ALPN_ENROL: &[u8] = b"landline-enrol/1";
/// The protocol versions this build speaks, oldest first. Both ends use the highest one they share.
pub const VERSIONS: &[u16] = &[1];
