//! `landline enrol …`: keys that make agents, the lines to paste, and machines that wait for approval.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{
    Context,
    agents::parse_label,
    client::segment,
    output::{self, plain},
};
use crate::api::dto::{
    Labels, Page,
    enrol::{CreatedKey, EnrolmentKey, Grant, NewKey, WaitingAgent},
    event::PageQuery,
};

#[derive(Debug, Args)]
pub(super) struct Enrol {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Allow {
    Shell,
    Exec,
    Files,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and print the line to paste into each new machine
    #[command(
        after_help = "Example:\n  landline enrol create --uses 20 --label site=berlin --allow shell,files --expires 7d"
    )]
    Create {
        /// For people: whose machines these are
        #[arg(long)]
        name: Option<String>,
        /// How many machines may enrol with it, 1 to 10000
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// A day when absent, 90 days at most
        #[arg(long, value_parser = output::parse_seconds)]
        expires: Option<u32>,
        /// Given to each agent it makes
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// Each machine waits until you approve it
        #[arg(long)]
        approval: bool,
        /// What the line asks the machine's owner to allow beyond forwards and system.*
        #[arg(long, value_delimiter = ',', value_enum)]
        allow: Vec<Allow>,
        /// The line installs the agent as root, to administer the whole machine
        #[arg(long)]
        as_root: bool,
    },
    /// List keys
    #[command(after_help = "Example:\n  landline enrol ls")]
    Ls,
    /// Revoke a key; agents it made stay
    #[command(after_help = "Example:\n  landline enrol revoke 5d0e…")]
    Revoke { id: String },
    /// List machines that wait for approval
    #[command(after_help = "Example:\n  landline enrol pending")]
    Pending,
    /// Let a waiting machine in
    #[command(after_help = "Example:\n  landline enrol approve 5d0e…")]
    Approve { id: String },
    /// Turn a waiting machine away
    #[command(after_help = "Example:\n  landline enrol reject 5d0e…")]
    Reject { id: String },
}

impl Enrol {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Create { name, uses, expires, labels, approval, allow, as_root } => {
                let labels: Labels = labels.into_iter().collect();
                let body = NewKey {
                    name,
                    uses: Some(uses),
                    ttl_s: expires,
                    labels: (!labels.is_empty()).then_some(labels),
                    approval,
                    allow: allow.into_iter().map(grant).collect(),
                    as_root,
                };
                let created: CreatedKey = context.client.post_once("/enrolment-keys", &body).await?;
                output::print(context.format, &created, explain)?;
            }
            Command::Ls => {
                output::print(context.format, &all::<EnrolmentKey>(&context, "/enrolment-keys").await?, |rows| {
                    keys(rows)
                })?;
            }
            Command::Revoke { id } => context.client.delete(&format!("/enrolment-keys/{}", segment(&id))).await?,
            Command::Pending => {
                output::print(context.format, &all::<WaitingAgent>(&context, "/enrolments").await?, |rows| {
                    waiting(rows)
                })?;
            }
            Command::Approve { id } => decide(&context, &id, "approve").await?,
            Command::Reject { id } => decide(&context, &id, "reject").await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn grant(allow: Allow) -> Grant {
    match allow {
        Allow::Shell => Grant::Shell,
        Allow::Exec => Grant::Exec,
        Allow::Files => Grant::Files,
    }
}

async fn decide(context: &Context, id: &str, verb: &str) -> anyhow::Result<()> {
    let path = format!("/enrolments/{}/{verb}", segment(id));
    let row: WaitingAgent = context.client.post_once(&path, &json!({})).await?;
    let done = if verb == "approve" { "approved; it is online within seconds" } else { "rejected" };
    output::print(context.format, &row, |row| format!("{} {done}", row.agent_id))?;
    Ok(())
}

async fn all<T: serde::de::DeserializeOwned>(context: &Context, path: &str) -> anyhow::Result<Vec<T>> {
    let (mut rows, mut query) = (Vec::new(), PageQuery { limit: Some(500), cursor: None });
    loop {
        let page: Page<T> = context.client.get(path, &query).await?;
        rows.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn explain(created: &CreatedKey) -> String {
    let name = |platform: &&crate::api::dto::enrol::Platform| format!("{}-{}", platform.os, platform.arch);
    let has: Vec<_> = created.platforms.iter().filter(|platform| platform.available).map(|p| name(&p)).collect();
    let lacks = created.platforms.iter().filter_map(|platform| Some((name(&platform), platform.how.as_ref()?)));
    let lacks: String = lacks.map(|(name, how)| format!("\n  {name}: {how}")).collect();
    format!(
        "Paste this into a shell of each new machine, as root or with sudo. The key in it is shown once, is good for {} \
         machine(s) and until {}.\n\nWith curl:\n\n  {}\n\nWith wget or fetch alone:\n\n  {}\n\n\
         Binaries here: {}. Absent, and how to add them:{lacks}",
        created.info.uses,
        created.info.expires_at.0,
        created.commands.curl,
        created.commands.plain,
        if has.is_empty() { "none".to_owned() } else { has.join(", ") },
    )
}

fn keys(rows: &[EnrolmentKey]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            plain(&row.name),
            format!("{} of {}", row.uses_left, row.uses),
            if row.approval { "yes".to_owned() } else { "no".to_owned() },
            super::agents::labels(&row.labels),
            output::relative(Some(&row.expires_at), now),
            output::relative(row.revoked_at.as_ref(), now),
        ]
    });
    output::table(&["KEY", "NAME", "LEFT", "APPROVAL", "LABELS", "EXPIRES", "REVOKED"], rows)
}

fn waiting(rows: &[WaitingAgent]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        let asked = output::relative(Some(&row.created_at), now);
        vec![row.id.clone(), row.agent_id.clone(), row.address.clone(), super::agents::labels(&row.labels), asked]
    });
    output::table(&["WAITING", "NAME", "FROM", "LABELS", "ASKED"], rows)
}
