//! What an agent can do, one file per thing. Each takes a stream whose header was read, found fresh and allowed, and
//! answers it. Nothing here accepts streams or decides what is allowed.

pub mod answer;
pub mod command;
mod controller;
pub mod exec;
pub mod files;
pub mod forward;
mod launch;
pub mod leftovers;
pub mod once;
pub mod shell;
mod starting;
pub mod stats;
pub mod transfer;
