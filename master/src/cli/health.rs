//! `landline health`: whether the master can take work, for supervisors of containers. Needs no token.

use std::process::ExitCode;

use clap::Args;

use super::{
    FAILED,
    client::{Connection, probe},
};

/// Ask a master whether it can take work
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  landline health || echo not ready")]
pub(super) struct Health {}

impl Health {
    pub(super) async fn run(self, connection: Connection) -> anyhow::Result<ExitCode> {
        match probe(&connection.url).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                eprintln!("landline: {error}");
                Ok(FAILED.into())
            }
        }
    }
}
