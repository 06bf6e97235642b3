//! `landline stdio`: standard input and output as one connection to a target behind an agent, for `ProxyCommand`.

use std::process::ExitCode;

use clap::Args;

use super::{Context, connect::carry, forward::parse_target};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssh -o ProxyCommand='landline stdio home-1 localhost:%p' root@home-1
  landline stdio home-1 localhost:25 < mail.txt

`landline ssh-config` prints a block for ~/.ssh/config, so that ssh, scp, sftp, rsync and git find agents by name.")]
pub(super) struct Stdio {
    agent: String,
    /// Host and port as the agent sees them
    #[arg(value_name = "HOST:PORT", value_parser = parse_target)]
    target: String,
}

impl Stdio {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let websocket = context.client.connect(&self.agent, &self.target).await?;
        carry(websocket, tokio::io::stdin(), tokio::io::stdout()).await?;
        Ok(ExitCode::SUCCESS)
    }
}
