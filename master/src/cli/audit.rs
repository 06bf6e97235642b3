//! `landline audit …`: read the trail, follow it, verify its chain, take it elsewhere.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::{
    Context, FAILED, UsageError,
    client::CallError,
    is_passing,
    output::{self, Format, or_dash},
    stop::StopSignal,
};
use crate::api::dto::{
    Page, Time,
    audit::{AuditExportQuery, AuditFormat, AuditQuery, AuditRow, AuditVerdict},
};

/// Between two looks of `--follow`.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows of one call.
const PAGE: u32 = 500;

#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who did what, the newest last
    #[command(after_help = "\
Examples:
  landline audit ls --agent home-1 --since 2h
  landline audit ls --actor panel --action tunnel
  landline audit ls --failed --follow")]
    Ls(Ls),
    /// Recompute the chain; exit code 1 if a row was changed, removed or put in
    #[command(after_help = "Example:\n  landline audit verify || echo tampered with")]
    Verify,
    /// Write every row out, oldest first, for keeping or checking elsewhere
    #[command(after_help = "\
Examples:
  landline audit export --to audit.jsonl
  landline audit export --format csv --since 30d > audit.csv")]
    Export(Export),
}

#[derive(Debug, Args)]
struct Which {
    /// About this agent
    #[arg(long)]
    agent: Option<String>,
    /// By a name, a kind (token, operator, agent), `local`, `master`, or in full as in `token:5d0e…`
    #[arg(long)]
    actor: Option<String>,
    /// An action, or the first word of several: tunnel.open, tunnel
    #[arg(long)]
    action: Option<String>,
    /// ok, or the word of a code
    #[arg(long, conflicts_with = "failed")]
    result: Option<String>,
    /// Only what did not succeed
    #[arg(long)]
    failed: bool,
    /// A time (2026-11-25T08:00:00Z, 2026-11-25) or how long ago (90s, 2h, 7d)
    #[arg(long, value_parser = parse_time)]
    since: Option<Time>,
    /// The same; before it
    #[arg(long, value_parser = parse_time)]
    until: Option<Time>,
}

#[derive(Debug, Args)]
struct Ls {
    #[command(flatten)]
    which: Which,
    /// The newest so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    which: Which,
    #[arg(long, value_enum, default_value_t = As::Jsonl)]
    format: As,
    /// A new file, 0600; standard output without it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    /// What it takes to verify the chain elsewhere
    Jsonl,
    /// For spreadsheets
    Csv,
}

impl Audit {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Ls(ls) => ls.run(&context).await,
            Command::Verify => verify(&context).await,
            Command::Export(export) => export.run(&context).await,
        }
    }
}

impl Which {
    fn result(&self) -> Option<String> {
        if self.failed { Some("!ok".to_owned()) } else { self.result.clone() }
    }

    fn list(self) -> AuditQuery {
        let result = self.result();
        let Self { agent, actor, action, since, until, .. } = self;
        let (since, until) = (since.map(|time| time.0), until.map(|time| time.0));
        AuditQuery { agent, actor, action, result, since, until, ..AuditQuery::default() }
    }
}

impl Ls {
    async fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        let query = self.which.list();
        let rows = newest(context, query.clone(), self.limit).await?;
        if !self.follow {
            output::print(context.format, &rows, |rows| table(rows))?;
            return Ok(ExitCode::SUCCESS);
        }
        rows.iter().try_for_each(|row| show(context.format, row))?;
        let after = match rows.last() {
            Some(row) => row.seq,
            // Nothing matches so far: begin behind what there is.
            None => newest(context, AuditQuery::default(), 1).await?.last().map_or(0, |row| row.seq),
        };
        tokio::select! {
            biased;
            () = stop.wait() => Ok(ExitCode::SUCCESS),
            ended = follow(context, query, after) => ended.map(|()| ExitCode::SUCCESS),
        }
    }
}

/// The newest rows, oldest of them first.
async fn newest(context: &Context, mut query: AuditQuery, limit: u32) -> Result<Vec<AuditRow>, CallError> {
    let mut rows: Vec<AuditRow> = Vec::new();
    loop {
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(limit));
        query.limit = Some(left.min(PAGE));
        let page: Page<AuditRow> = context.client.get("/audit", &query).await?;
        rows.extend(page.items);
        query.cursor = page.next_cursor.filter(|_| rows.len() < limit as usize);
        if query.cursor.is_none() {
            rows.reverse();
            return Ok(rows);
        }
    }
}

/// Shows what comes, over restarts of the master.
async fn follow(context: &Context, mut query: AuditQuery, mut after: u64) -> anyhow::Result<()> {
    loop {
        query.after = Some(after);
        query.limit = Some(PAGE);
        match context.client.get::<Page<AuditRow>>("/audit", &query).await {
            Ok(page) => {
                for row in &page.items {
                    show(context.format, row)?;
                    after = row.seq;
                }
                if page.items.len() == PAGE as usize {
                    continue;
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(format: Format, row: &AuditRow) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => serde_json::to_string(row)?,
        Format::Table => {
            let [seq, at, actor, action, agent, object, result, source, detail] = cells(row);
            let line = format!(
                "{seq:>6}  {at}  {actor:<16}  {action:<16}  {agent:<12}  {result:<8}  {object} {source} {detail}"
            );
            output::plain(line.trim_end())
        }
    };
    Ok(output::line(&text)?)
}

fn cells(row: &AuditRow) -> [String; 9] {
    let detail = if row.detail.is_null() { String::new() } else { row.detail.to_string() };
    [
        row.seq.to_string(),
        row.at.0.clone(),
        row.actor_name.clone().unwrap_or_else(|| row.actor.clone()),
        row.action.clone(),
        or_dash(row.agent_id.as_ref()),
        or_dash(row.object.as_ref()),
        row.result.clone(),
        or_dash(row.source.as_ref()),
        detail,
    ]
}

fn table(rows: &[AuditRow]) -> String {
    let head = ["SEQ", "AT", "ACTOR", "ACTION", "AGENT", "OBJECT", "RESULT", "FROM", "DETAIL"];
    output::table(&head, rows.iter().map(|row| cells(row).to_vec()))
}

async fn verify(context: &Context) -> anyhow::Result<ExitCode> {
    let verdict: AuditVerdict = context.client.get("/audit/verify", &()).await?;
    output::print(context.format, &verdict, told)?;
    Ok(if verdict.whole { ExitCode::SUCCESS } else { FAILED.into() })
}

fn told(verdict: &AuditVerdict) -> String {
    if let Some(broken) = &verdict.broken {
        return format!(
            "BROKEN at row {}: {}. The rows before it hold. Compare with an export or a backup from before.",
            broken.seq,
            output::plain(&broken.why)
        );
    }
    let (first, last) = (verdict.first.unwrap_or_default(), verdict.last.unwrap_or_default());
    if last < first {
        return "whole: there are no rows".to_owned();
    }
    let hash = verdict.hash.as_deref().unwrap_or("-");
    format!("whole: rows {first} to {last}\nhash of row {last}: {}", output::plain(hash))
}

impl Export {
    async fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let format = Some(match self.format {
            As::Jsonl => AuditFormat::Jsonl,
            As::Csv => AuditFormat::Csv,
        });
        let AuditQuery { agent, actor, action, result, since, until, .. } = self.which.list();
        let query = AuditExportQuery { format, agent, actor, action, result, since, until };
        let mut response = context.client.stream("/audit/export", &query, None).await?;
        let mut out: Box<dyn Write> = match &self.to {
            None => Box::new(std::io::stdout().lock()),
            Some(path) => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                Box::new(file.with_context(|| format!("cannot make {}", path.display()))?)
            }
        };
        while let Some(piece) = response.chunk().await.map_err(|error| context.client.cut(&error))? {
            out.write_all(&piece).context("the export could not be written")?;
        }
        out.flush().context("the export could not be written")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A time, a day, or how long ago.
fn parse_time(text: &str) -> Result<Time, UsageError> {
    if let Some(ms) = Time(text.to_owned()).ms() {
        return Ok(Time::from_ms(ms));
    }
    if let Some(ms) = Time(format!("{text}T00:00:00Z")).ms() {
        return Ok(Time::from_ms(ms));
    }
    match output::parse_seconds(text) {
        Ok(seconds) => Ok(Time::from_ms(output::now_ms() - i64::from(seconds) * 1_000)),
        Err(_) => Err(UsageError(format!(
            "{text:?} is no time; write for example 2026-11-25T08:00:00Z, 2026-11-25, 90s, 2h or 7d"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_three_ways() {
        assert_eq!(parse_time("2026-11-25").unwrap().0, "2026-11-25T00:00:00.000Z");
        assert_eq!(parse_time("2026-11-25T08:00:00+01:00").unwrap().0, "2026-11-25T07:00:00.000Z");
        let ago = output::now_ms() - parse_time("2h").unwrap().ms().unwrap();
        assert!((7_200_000..7_210_000).contains(&ago), "{ago}");
        for bad in ["", "soon", "2026-13-01", "1w"] {
            assert!(parse_time(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn verdicts_say_what_to_do() {
        let verdict = |text| told(&serde_json::from_str(text).unwrap());
        let whole = verdict(r#"{"whole":true,"first":4,"last":9,"hash":"ab","broken":null}"#);
        assert_eq!(whole, "whole: rows 4 to 9\nhash of row 9: ab");
        let none = verdict(r#"{"whole":true,"first":1,"last":0,"hash":"00","broken":null}"#);
        assert_eq!(none, "whole: there are no rows");
        let broken = r#"{"whole":false,"first":null,"last":null,"hash":null,"broken":{"seq":7,"why":"x"}}"#;
        assert!(verdict(broken).starts_with("BROKEN at row 7: x."));
    }
}
