//! Tunnels: a listener on the master mapped to a target behind an agent. This room owns the listeners and the state
//! of every tunnel; it reaches agents through `fleet` alone.

pub mod lifecycle;
pub mod ports;
pub mod reason;
