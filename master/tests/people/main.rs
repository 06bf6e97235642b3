//! People at the API of one master in this process: doors, cookies, roles, and what ends when.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod doors;
mod master;
mod matrix;
mod sessions;
