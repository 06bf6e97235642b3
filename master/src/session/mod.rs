//! What runs on an agent under a caller's eyes: execs and shells. Reaches agents through `fleet` only.

use proto::{
    id::RequestId,
    limits::FRAME_MAX,
    net::frame::encode_frame,
    open::{Open, Operation},
};

mod again;
pub mod cast;
mod ended;
pub mod exec;
pub mod shell;

pub use self::ended::Ended;

/// Whether the header of a stream for it is one frame.
fn fits(operation: &Operation) -> bool {
    let operation = operation.clone();
    let open = Open { request_id: RequestId::random(), issued_at_ms: 0, trace_id: [0; 16], operation };
    encode_frame(&open).len() + 16 <= FRAME_MAX
}
