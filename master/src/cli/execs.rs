//! `landline execs …`: the execs there are, how each stands, its output again, and its end.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    Context,
    client::segment,
    exec::{Following, Role, follow},
    output::{self, or_dash, plain},
};
use crate::api::dto::{exec::Exec as Row, shell::SessionsQuery};

const PAGE: u32 = 500;
/// Most characters of a command line in a table.
const PROGRAM_MAX: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Execs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List execs
    #[command(after_help = "Examples:\n  landline execs ls\n  landline execs ls --agent home-1 --all")]
    Ls {
        #[arg(long)]
        agent: Option<String>,
        /// Ended ones too
        #[arg(long)]
        all: bool,
    },
    /// Show one exec, and what its agent says of it now
    #[command(after_help = "Example:\n  landline execs show 0b8e6f3a-…")]
    Show { id: String },
    /// Read its output, from the oldest byte that is kept, until it ends; its exit code is ours
    #[command(
        after_help = "Examples:\n  landline execs output 0b8e6f3a-…\n  landline execs output 0b8e6f3a-… --offset 4096

Only for the token that started it. Who read it before is sent away. Ctrl-C ends the reading, not the program."
    )]
    Output {
        id: String,
        /// Begin at this byte, standard output and error counted together
        #[arg(long, value_name = "BYTE")]
        offset: Option<u64>,
    },
    /// Kill everything that it started
    #[command(after_help = "Example:\n  landline execs cancel 0b8e6f3a-…")]
    Cancel { id: String },
}

impl Execs {
    /// Whether the exit code is a program's.
    pub(super) fn follows(&self) -> bool {
        matches!(self.command, Command::Output { .. })
    }

    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Ls { agent, all } => {
                let rows = list(&context, agent, all).await?;
                output::print(context.format, &rows, |rows| table(rows))?;
            }
            Command::Show { id } => {
                let row: Row = context.client.get(&path(&id), &()).await?;
                output::print(context.format, &row, show)?;
            }
            Command::Output { id, offset } => {
                return follow(&context, Following::attach(&context.client, &id, offset), Role::Reader).await;
            }
            Command::Cancel { id } => context.client.delete(&path(&id)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn path(id: &str) -> String {
    format!("/execs/{}", segment(id))
}

async fn list(context: &Context, agent: Option<String>, all: bool) -> anyhow::Result<Vec<Row>> {
    let path = agent.map_or_else(|| "/execs".to_owned(), |agent| format!("/agents/{}/execs", segment(&agent)));
    let filter = SessionsQuery { limit: Some(PAGE), running: (!all).then_some(true), ..SessionsQuery::default() };
    Ok(context.client.all(&path, filter, |filter, cursor| filter.cursor = Some(cursor)).await?)
}

fn table(rows: &[Row]) -> String {
    let now = output::now_ms();
    let cells = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            row.agent_id.clone(),
            row.owner.clone(),
            output::relative(Some(&row.created_at), now),
            state(row),
            shortened(&program(row)),
        ]
    });
    output::table(&["ID", "AGENT", "OWNER", "STARTED", "STATE", "PROGRAM"], cells)
}

fn show(row: &Row) -> String {
    let now = output::now_ms();
    let mut rows = vec![
        ("id", row.id.clone()),
        ("agent", row.agent_id.clone()),
        ("owner", row.owner.clone()),
        ("program", program(row)),
        ("started", output::relative(Some(&row.created_at), now)),
        ("ended", output::relative(row.ended_at.as_ref(), now)),
        ("state", state(row)),
    ];
    if let Some(now) = &row.now {
        rows.push(("pid", now.pid.to_string()));
        rows.push(("output", format!("{} bytes, kept from byte {}", now.output, now.kept_from)));
        let open = if now.stdin_open { "open" } else { "closed" };
        rows.push(("input", format!("{} bytes, {open}", now.stdin)));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<10}{}", plain(&value))).collect::<Vec<_>>().join("\n")
}

fn state(row: &Row) -> String {
    match (&row.ended_at, row.exit_code, row.signal, &row.end_reason) {
        (None, ..) => "runs".to_owned(),
        (Some(_), Some(code), _, _) => format!("exit {code}"),
        (Some(_), None, Some(signal), _) => format!("signal {signal}"),
        (Some(_), None, None, reason) => or_dash(reason.as_deref()),
    }
}

/// The command line as one would type it, near enough.
fn program(row: &Row) -> String {
    if let Some(line) = row.program["Shell"].as_str() {
        return line.to_owned();
    }
    let argv = row.program["Argv"].as_array().into_iter().flatten();
    argv.filter_map(|argument| argument.as_str()).collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(PROGRAM_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_reads_as_what_was_typed_and_how_it_ended() {
        let mut row: Row = serde_json::from_value(json!({
            "id": "1", "agent_id": "a", "owner": "token:1", "program": { "Argv": ["echo", "a b"] },
            "created_at": "2026-11-22T17:20:00.250Z", "ended_at": null, "end_reason": null, "exit_code": null, "signal": null,
        }))
        .unwrap();
        assert_eq!((program(&row), state(&row)), ("echo a b".into(), "runs".into()));
        row.ended_at = Some(row.created_at.clone());
        row.end_reason = Some("cancelled".into());
        assert_eq!(state(&row), "cancelled");
        row.exit_code = Some(3);
        assert_eq!(state(&row), "exit 3");
        assert_eq!(shortened(&"ü".repeat(100)).chars().count(), PROGRAM_MAX + 1);
    }
}
