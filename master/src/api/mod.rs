//! The HTTP API of the internal socket: extract → domain → map. Owns routes, shapes and errors; decides nothing about
//! agents or tunnels itself.

pub mod dto;
pub mod extract;
pub mod guard;
pub mod problem;
pub mod server;
