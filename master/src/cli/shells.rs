//! `landline shells …`: the sessions there are, their ends and their recordings.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{
    Context,
    client::segment,
    output::{self, or_dash},
};
use crate::api::dto::shell::{SessionsQuery, Shell as Row};

const PAGE: u32 = 500;

#[derive(Debug, Args)]
pub(super) struct Shells {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions
    #[command(after_help = "Examples:\n  landline shells ls\n  landline shells ls --agent home-1 --all")]
    Ls {
        #[arg(long)]
        agent: Option<String>,
        /// Ended ones too
        #[arg(long)]
        all: bool,
    },
    /// Show one session
    #[command(after_help = "Example:\n  landline shells info 0b8e6f3a-…")]
    Info { id: String },
    /// End a session and everything in it
    #[command(after_help = "Example:\n  landline shells close 0b8e6f3a-…")]
    Close { id: String },
    /// Download a recording, in the format of asciinema
    #[command(
        after_help = "Examples:\n  landline shells recording 0b8e6f3a-… -f session.cast\n  landline replay 0b8e6f3a-…"
    )]
    Recording {
        id: String,
        /// Write it to this file instead of standard output
        #[arg(short = 'f', long)]
        file: Option<PathBuf>,
    },
}

impl Shells {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Ls { agent, all } => {
                let rows = list(&context, agent, all).await?;
                output::print(context.format, &rows, |rows| show(rows))?;
            }
            Command::Info { id } => {
                let row: Row = context.client.get(&path(&id), &()).await?;
                output::print(context.format, &row, |row| show(std::slice::from_ref(row)))?;
            }
            Command::Close { id } => context.client.delete(&path(&id)).await?,
            Command::Recording { id, file } => {
                let text = download(&context, &id).await?;
                match file {
                    Some(file) => {
                        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?
                    }
                    None => output::line(text.trim_end())?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) async fn download(context: &Context, id: &str) -> anyhow::Result<String> {
    let response = context.client.stream(&format!("{}/recording", path(id)), &(), None).await?;
    response.text().await.map_err(|error| context.client.cut(&error).into())
}

fn path(id: &str) -> String {
    format!("/shells/{}", segment(id))
}

async fn list(context: &Context, agent: Option<String>, all: bool) -> anyhow::Result<Vec<Row>> {
    let path = agent.map_or_else(|| "/shells".to_owned(), |agent| format!("/agents/{}/shells", segment(&agent)));
    let filter = SessionsQuery { limit: Some(PAGE), running: (!all).then_some(true), ..SessionsQuery::default() };
    Ok(context.client.all(&path, filter, |filter, cursor| filter.cursor = Some(cursor)).await?)
}

fn show(rows: &[Row]) -> String {
    let now = output::now_ms();
    let cells = rows.iter().map(|row| {
        let end = match (row.exit_code, row.signal, &row.end_reason) {
            (Some(code), _, _) => format!("exit {code}"),
            (None, Some(signal), _) => format!("signal {signal}"),
            (None, None, reason) => or_dash(reason.as_deref()),
        };
        vec![
            row.id.clone(),
            row.agent_id.clone(),
            row.owner.clone(),
            output::relative(Some(&row.created_at), now),
            if row.ended_at.is_some() { end } else { "runs".to_owned() },
            row.viewers.to_string(),
        ]
    });
    output::table(&["ID", "AGENT", "OWNER", "OPENED", "STATE", "VIEWERS"], cells)
}
