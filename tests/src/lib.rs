//! The end-to-end harness: real binaries in folders of their own, real peers, and waits with deadlines. Tests use it;
//! it decides nothing about what is right.

pub mod agent;
pub mod api;
pub mod browser;
pub mod chaos;
pub mod cli;
pub mod confined;
pub mod container;
pub mod copying;
pub mod firewall_site;
pub mod gateway;
pub mod lab;
pub mod liar;
pub mod link;
pub mod master;
pub mod middle;
pub mod ndjson;
pub mod openssh;
pub mod outside;
pub mod peers;
pub mod postgres;
pub mod process;
pub mod puppet;
pub mod soak;
pub mod sockets;
pub mod terminal;
pub mod tools;
pub mod wait;

use std::path::PathBuf;

/// Where `make soak` says that the binaries are which users get.
pub const BINARIES: &str = "LANDLINE_BINARIES";

/// A binary of this workspace: of [`BINARIES`], else the one built beside the test. `make test` builds them first.
pub fn binary(name: &str) -> PathBuf {
    let folders = std::env::var_os(BINARIES).map(PathBuf::from).into_iter().chain([beside()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace"))
}

fn beside() -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test knows its own path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// The middle one of what was measured, so that one round that the machine disturbed says nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
