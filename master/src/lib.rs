//! The Landline master as a library: service, API and the operator's command line. Two masters can run in one process.

pub mod access;
pub mod api;
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod events;
pub mod fleet;
pub mod foreign;
pub mod gateway;
pub mod http;
pub mod metrics;
pub mod public;
pub mod session;
pub mod store;
pub mod transfer;
pub mod tunnel;
