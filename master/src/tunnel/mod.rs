//! Tunnels: a listener on the master mapped to a target behind an agent. This room owns the listeners and the state
//! of every tunnel; it reaches agents through `fleet` alone and knows nothing of HTTP.

mod actor;
mod clock;
pub mod direct;
mod error;
pub mod lifecycle;
mod listener;
pub mod origin;
mod path;
pub mod pins;
mod pipe;
pub mod ports;
pub mod presence;
mod probe;
mod reason;
mod row;
mod service;
#[cfg(test)]
mod tests;
mod tls_probe;
pub mod visits;

pub use error::{ActError, CreateError, ExtendError, StartError};
pub use listener::Dialled;
pub use pipe::Outer;
pub use reason::CloseReason;
pub use service::{By, Created, NewTunnel, Parts, Tunnels, View};
