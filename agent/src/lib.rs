//! The Landline agent as a library, so that several agents can run in one process.

pub mod app;
pub mod config;
pub mod dispatch;
pub mod doctor;
pub mod freshness;
pub mod install;
pub mod journal;
pub mod link;
pub mod lockdown;
pub mod logbook;
pub mod platform;
pub mod policy;
pub mod service;
pub mod state;

#[cfg(test)]
mod dispatch_tests;
#[cfg(test)]
mod testing;
