//! `landline operators …`: people, their roles and sessions.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;

use super::{
    Context,
    client::segment,
    output::{self, or_dash},
    password::new_password,
};
use crate::api::dto::{
    Page,
    event::PageQuery,
    operator::{NewOperator, Operator, OperatorChange, OperatorSession, Role},
};

#[derive(Debug, Args)]
pub(super) struct Operators {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List people
    #[command(after_help = "Example:\n  landline operators ls")]
    Ls,
    /// Make an account; asks for the password
    #[command(after_help = "Example:\n  landline operators add ada --role operator --selector site=berlin")]
    Add {
        name: String,
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// Only agents with these labels: site=berlin,role=fw
        #[arg(long)]
        selector: Option<String>,
    },
    /// Remove an account: its sessions and tokens end
    #[command(after_help = "Example:\n  landline operators rm ada")]
    Rm { name: String },
    /// Give another role, or other agents
    #[command(
        after_help = "Example:\n  landline operators role ada admin\n  landline operators role ada operator --selector site=berlin"
    )]
    Role {
        name: String,
        #[arg(value_enum)]
        role: Role,
        /// Only agents with these labels; '' for all. Stays as it is when absent
        #[arg(long)]
        selector: Option<String>,
    },
    /// List a person's sessions, or end some
    #[command(
        after_help = "Examples:\n  landline operators sessions ada\n  landline operators sessions ada --end 5d0e…\n  landline operators sessions ada --end all"
    )]
    Sessions {
        name: String,
        /// End this session, or `all`
        #[arg(long, value_name = "ID")]
        end: Option<String>,
    },
    /// Take TOTP off: the phone is lost
    #[command(after_help = "Example:\n  landline operators reset-totp ada")]
    ResetTotp { name: String },
    /// Give a new password; the person's sessions end
    #[command(after_help = "Example:\n  landline operators reset-password ada")]
    ResetPassword { name: String },
}

impl Operators {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Ls => output::print(context.format, &all(&context).await?, |rows| show(rows))?,
            Command::Add { name, role, selector } => return create(&context, name, role, selector).await,
            Command::Rm { name } => context.client.delete(&path(&context, &name).await?).await?,
            Command::Role { name, role, selector } => {
                let change = OperatorChange { role: Some(role), selector, ..OperatorChange::default() };
                return changed(&context, &name, &change).await;
            }
            Command::Sessions { name, end: None } => {
                let sessions = sessions(&context, &path(&context, &name).await?).await?;
                output::print(context.format, &sessions, |rows| show_sessions(rows))?;
            }
            Command::Sessions { name, end: Some(which) } => end(&context, &name, &which).await?,
            Command::ResetTotp { name } => {
                let change = OperatorChange { totp: Some(false), ..OperatorChange::default() };
                return changed(&context, &name, &change).await;
            }
            Command::ResetPassword { name } => {
                let path = path(&context, &name).await?;
                let change = OperatorChange { password: Some(new_password(&name)?), ..OperatorChange::default() };
                let row: Operator = context.client.patch(&path, &change).await?;
                output::print(context.format, &row, |row| show(std::slice::from_ref(row)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes an account under a password that is asked for.
pub(super) async fn create(
    context: &Context,
    name: String,
    role: Role,
    selector: Option<String>,
) -> anyhow::Result<ExitCode> {
    let password = new_password(&name)?;
    let body = NewOperator { name, role, password, selector };
    let row: Operator = context.client.post_once("/operators", &body).await?;
    output::print(context.format, &row, |row| show(std::slice::from_ref(row)))?;
    Ok(ExitCode::SUCCESS)
}

async fn changed(context: &Context, name: &str, change: &OperatorChange) -> anyhow::Result<ExitCode> {
    let row: Operator = context.client.patch(&path(context, name).await?, change).await?;
    output::print(context.format, &row, |row| show(std::slice::from_ref(row)))?;
    Ok(ExitCode::SUCCESS)
}

async fn end(context: &Context, name: &str, which: &str) -> anyhow::Result<()> {
    let path = path(context, name).await?;
    let ids = match which {
        "all" => sessions(context, &path).await?.into_iter().map(|session| session.id).collect(),
        id => vec![id.to_owned()],
    };
    for id in ids {
        context.client.delete(&format!("{path}/sessions/{}", segment(&id))).await?;
    }
    Ok(())
}

async fn sessions(context: &Context, path: &str) -> anyhow::Result<Vec<OperatorSession>> {
    let request = context.client.request(Method::GET, &format!("{path}/sessions"));
    let page: Page<OperatorSession> = context.client.send(request).await?.json().await?;
    Ok(page.items)
}

/// The path of the account that has this name, or this id.
async fn path(context: &Context, name: &str) -> anyhow::Result<String> {
    let wanted = name.to_ascii_lowercase();
    let found = all(context).await?.into_iter().find(|row| row.person.name == wanted || row.person.id == wanted);
    match found {
        Some(row) => Ok(format!("/operators/{}", segment(&row.person.id))),
        None => bail!("nobody is called {name}; see `landline operators ls`"),
    }
}

async fn all(context: &Context) -> anyhow::Result<Vec<Operator>> {
    let mut rows = Vec::new();
    let mut query = PageQuery { limit: Some(500), cursor: None };
    loop {
        let page: Page<Operator> = context.client.get("/operators", &query).await?;
        rows.extend(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn show(rows: &[Operator]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        vec![
            row.person.name.clone(),
            format!("{:?}", row.person.role).to_lowercase(),
            or_dash(row.person.selector.as_ref()),
            if row.person.totp { "on" } else { "off" }.to_owned(),
            output::relative(row.last_login_at.as_ref(), now),
            row.person.id.clone(),
        ]
    });
    output::table(&["NAME", "ROLE", "SELECTOR", "TOTP", "LAST LOGIN", "ID"], rows)
}

fn show_sessions(rows: &[OperatorSession]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            output::relative(Some(&row.created_at), now),
            output::relative(Some(&row.seen_at), now),
            output::relative(Some(&row.expires_at), now),
            or_dash(row.source.as_ref()),
            or_dash(row.user_agent.as_ref().map(|text| text.chars().take(60).collect::<String>())),
        ]
    });
    output::table(&["SESSION", "BEGAN", "SEEN", "ENDS", "FROM", "BROWSER"], rows)
}
