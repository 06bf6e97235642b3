//! `landline token …`: create, list and revoke API tokens.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    Context,
    client::segment,
    output::{self, or_dash},
};
use crate::api::dto::{
    Page,
    event::PageQuery,
    token::{CreatedToken, NewToken, Token as Row},
};

#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a token; its secret is shown once
    #[command(
        after_help = "Example:\n  landline token create panel --permission tunnels:write,agents:read --expires 30d"
    )]
    Create {
        /// Whose token it is, and what for
        name: String,
        /// What it may do; never more than your own token
        #[arg(long = "permission", value_delimiter = ',', required = true)]
        permissions: Vec<String>,
        /// Only agents with these labels: site=berlin,role=fw
        #[arg(long)]
        selector: Option<String>,
        /// 90 days when absent, which is also the most
        #[arg(long, value_parser = output::parse_seconds)]
        expires: Option<u32>,
    },
    /// List tokens
    #[command(after_help = "Example:\n  landline token ls")]
    Ls,
    /// Revoke a token; what runs on it ends within seconds
    #[command(after_help = "Example:\n  landline token revoke 5d0e…")]
    Revoke { id: String },
}

impl Token {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Create { name, permissions, selector, expires } => {
                let body = NewToken { name, permissions, selector, expires_in_s: expires };
                let created: CreatedToken = context.client.post_once("/tokens", &body).await?;
                output::print(context.format, &created, |created| created.secret.clone())?;
            }
            Command::Ls => output::print(context.format, &all(&context).await?, |rows| show(rows))?,
            Command::Revoke { id } => context.client.delete(&format!("/tokens/{}", segment(&id))).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn all(context: &Context) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut query = PageQuery { limit: Some(500), cursor: None };
    loop {
        let page: Page<Row> = context.client.get("/tokens", &query).await?;
        rows.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn show(rows: &[Row]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            output::plain(&row.name),
            row.permissions.join(","),
            or_dash(row.selector.as_ref()),
            output::relative(row.expires_at.as_ref(), now),
            output::relative(row.revoked_at.as_ref(), now),
        ]
    });
    output::table(&["TOKEN", "NAME", "PERMISSIONS", "SELECTOR", "EXPIRES", "REVOKED"], rows)
}
