//! `landline agents …`: add, list and manage agents.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Context, UsageError,
    client::{CallError, Client, segment},
    output::{self, or_dash, plain},
};
use crate::api::dto::{
    Labels,
    agent::{Agent, AgentChange, AgentFilter, AgentStatus, Credentials, NewAgent, Presence, WantedStatus},
};

const PAGE: u32 = 500;

#[derive(Debug, Args)]
pub(super) struct Agents {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register an agent and print what it needs to enrol
    #[command(after_help = "Example:\n  landline agents add home-1 --label site=berlin --external-id 17")]
    Add {
        /// The agent's name: a-z 0-9 . _ -
        id: String,
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
        labels: Vec<(String, String)>,
        /// The id the hosting panel knows it by
        #[arg(long)]
        external_id: Option<i64>,
    },
    /// List agents
    #[command(after_help = "Example:\n  landline agents ls --selector site=berlin --presence online")]
    Ls {
        /// Labels that must match: site=berlin,role=fw
        #[arg(long)]
        selector: Option<String>,
        #[arg(long, value_parser = parse_word::<Presence>, value_name = "online|offline")]
        presence: Option<Presence>,
        #[arg(long, value_parser = parse_word::<AgentStatus>, value_name = "unknown|active|suspended")]
        status: Option<AgentStatus>,
        /// Part of the id
        #[arg(short)]
        q: Option<String>,
    },
    /// Show one agent
    #[command(after_help = "Example:\n  landline agents info home-1 -o json")]
    Info { id: String },
    /// Cut an agent off and let it not come back until resumed
    #[command(after_help = "Example:\n  landline agents suspend home-1")]
    Suspend { id: String },
    /// Let a suspended agent in again
    #[command(after_help = "Example:\n  landline agents resume home-1")]
    Resume { id: String },
    /// Issue a new secret for an agent that must enrol again
    #[command(after_help = "Example:\n  landline agents resecret home-1")]
    Resecret { id: String },
    /// Give a connected agent a new key; the old one is refused from then on, and the line stays up
    #[command(after_help = "Example:\n  landline agents rotate home-1")]
    Rotate { id: String },
    /// Remove an agent, its tunnels and its certificate
    #[command(after_help = "Example:\n  landline agents rm home-1")]
    Rm { id: String },
}

impl Agents {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let client = &context.client;
        let format = context.format;
        match self.command {
            Command::Add { id, labels, external_id } => {
                let labels: Labels = labels.into_iter().collect();
                let body = NewAgent { id, labels: (!labels.is_empty()).then_some(labels), external_id };
                let credentials: Credentials = client.post_once("/agents", &body).await?;
                output::print(format, &credentials, enrolment)?;
            }
            Command::Ls { selector, presence, status, q } => {
                let filter = AgentFilter { limit: None, cursor: None, selector, status, presence, q };
                output::print(format, &all(client, filter).await?, |agents| list(agents))?;
            }
            Command::Info { id } => {
                let agent: Agent = client.get(&path(&id), &()).await?;
                output::print(format, &agent, info)?;
            }
            Command::Suspend { id } => change(&context, &id, WantedStatus::Suspended).await?,
            Command::Resume { id } => change(&context, &id, WantedStatus::Active).await?,
            Command::Resecret { id } => {
                let credentials: Credentials = client.post_once(&format!("{}/secret", path(&id)), &json!({})).await?;
                output::print(format, &credentials, enrolment)?;
            }
            Command::Rotate { id } => {
                client.act(&format!("{}/rotate", path(&id))).await?;
                output::print(format, &json!({ "id": id }), |_| format!("{id} has a new key; its old one is refused"))?;
            }
            Command::Rm { id } => client.delete(&path(&id)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn path(id: &str) -> String {
    format!("/agents/{}", segment(id))
}

async fn change(context: &Context, id: &str, status: WantedStatus) -> anyhow::Result<()> {
    let body = AgentChange { status: Some(status), ..AgentChange::default() };
    let agent: Agent = context.client.patch(&path(id), &body).await?;
    output::print(context.format, &agent, |agent| format!("{} {}", agent.id, word(&agent.status)))?;
    Ok(())
}

/// The agents that the filter names.
pub(super) async fn all(client: &Client, filter: AgentFilter) -> Result<Vec<Agent>, CallError> {
    let filter = AgentFilter { limit: Some(PAGE), ..filter };
    client.all("/agents", filter, |filter, cursor| filter.cursor = Some(cursor)).await
}

fn enrolment(credentials: &Credentials) -> String {
    format!(
        "Agent {} is registered. On its machine put these lines into the agent's environment or .env:\n\n{}\n\n\
         or run `landline-agent enrol -` there and paste the join token, then Ctrl-D:\n\n  {}\n\n\
         The secret is shown once and can be used until {}.",
        credentials.agent.id,
        credentials.env.trim_end(),
        credentials.join_token,
        credentials.secret_expires_at.0,
    )
}

fn list(agents: &[Agent]) -> String {
    let now = output::now_ms();
    let rows = agents.iter().map(|agent| {
        vec![
            agent.id.clone(),
            word(&agent.status),
            presence(agent),
            or_dash(agent.carrier.as_ref()),
            agent.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            output::relative(agent.last_seen.as_ref(), now),
            or_dash(agent.disconnect_reason.as_ref()),
            labels(&agent.labels),
        ]
    });
    output::table(&["AGENT", "STATUS", "PRESENCE", "CARRIER", "RTT", "LAST SEEN", "LEFT BECAUSE", "LABELS"], rows)
}

/// An on-demand agent is there when it is needed, a little later.
fn presence(agent: &Agent) -> String {
    match (agent.presence, agent.visits_every_s) {
        (Presence::Reachable, Some(every_s)) => format!("on-demand, within {every_s:.0} s"),
        (presence, Some(_)) => format!("{} (on-demand)", word(&presence)),
        (presence, None) => word(&presence),
    }
}

fn info(agent: &Agent) -> String {
    let now = output::now_ms();
    let mut rows = vec![
        ("id", agent.id.clone()),
        ("status", word(&agent.status)),
        ("presence", presence(agent)),
        ("carrier", or_dash(agent.carrier.as_ref())),
        ("carrier since", output::relative(agent.carrier_since.as_ref(), now)),
        ("rtt", agent.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"))),
        ("last seen", output::relative(agent.last_seen.as_ref(), now)),
        ("left because", or_dash(agent.disconnect_reason.as_ref())),
        ("external id", or_dash(agent.external_id)),
        ("labels", labels(&agent.labels)),
        ("hostname", plain(&or_dash(agent.hostname.as_ref()))),
        ("system", plain(&format!("{} {}", or_dash(agent.os.as_ref()), or_dash(agent.arch.as_ref())))),
        ("version", plain(&or_dash(agent.agent_version.as_ref()))),
    ];
    if let Some(reason) = &agent.carrier_reason {
        rows.insert(5, ("carrier why", plain(&format!("{} ({})", reason.message, reason.code))));
    }
    if let Some(stats) = &agent.stats {
        let (used, total) = (stats.memory_used_bytes, stats.memory_total_bytes);
        rows.push(("cpu", format!("{:.0} %", stats.cpu_percent)));
        rows.push(("memory", format!("{} of {}", output::bytes(used), output::bytes(total))));
        rows.push(("load", stats.load.iter().map(|load| format!("{load:.2}")).collect::<Vec<_>>().join(" ")));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<14}{value}")).collect::<Vec<_>>().join("\n")
}

pub(super) fn labels(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// The word that stands for an enum value in JSON.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "-".to_owned(),
    }
}

fn parse_word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), UsageError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(UsageError(format!("{text:?} is no label; write KEY=VALUE"))),
    }
}
