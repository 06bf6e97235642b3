//! `landline admin create`: the first admin, or another one, made on the master's host with its admin token.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Context, operators::create};
use crate::api::dto::operator::Role;

#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an admin, who signs in at the dashboard; asks for the password
    #[command(
        after_help = "Examples:\n  sudo landline admin create ada\n  printf '%s\\n' \"$PASSWORD\" | landline admin create ada"
    )]
    Create { name: String },
}

impl Admin {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let Command::Create { name } = self.command;
        create(&context, name, Role::Admin, None).await
    }
}
