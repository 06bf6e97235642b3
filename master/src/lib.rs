//! The Landline master: service, API and the operator's command line.

pub mod api;
pub mod cli;
pub mod tunnel;
