//! The line itself: frames, QUIC endpoints, the TCP↔stream relay and the credit that stalled readers get.
//! quinn's types stay behind this door as far as they can, so that a swap stays possible.

pub mod bulk;
pub mod carrier;
pub mod cid;
pub mod credit;
pub mod frame;
pub mod heard;
pub mod preference;
pub mod quic;
pub mod relay;
pub mod socket;
pub mod stream;
