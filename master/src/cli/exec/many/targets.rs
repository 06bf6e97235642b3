//! Which agents: by name, by label, or all of them.

use std::collections::BTreeSet;

use anyhow::ensure;
use clap::Args;

use super::fail_at::FailAt;
use crate::{
    api::dto::agent::{Agent, AgentFilter},
    cli::{
        agents,
        client::{Client, segment},
    },
};

/// Most at once: the master takes 1,024 connections in all.
const CONCURRENCY_MAX: i64 = 256;

/// A run on many.
#[derive(Debug, Args)]
pub(in crate::cli::exec) struct Many {
    /// Run it on every agent whose labels match
    #[arg(long, value_name = "KEY=VALUE,…")]
    selector: Option<String>,
    /// Run it on these
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    agents: Vec<String>,
    /// Run it on all agents that the token covers
    #[arg(long)]
    all: bool,
    /// Of many, so many at once
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "agent",
        value_parser = clap::value_parser!(u16).range(1..=CONCURRENCY_MAX))]
    pub(super) concurrency: u16,
    /// Start nothing more when so many failed: 20%, or a count
    #[arg(long, value_name = "SHARE", conflicts_with = "agent")]
    pub(super) fail_at: Option<FailAt>,
    /// Print each different output once, at the end, instead of as it comes
    #[arg(long, conflicts_with = "agent")]
    pub(super) grouped: bool,
}

impl Many {
    /// The agents in the order of their names. A name that is not there is an error, before anything is started.
    pub(super) async fn targets(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for name in self.agents.iter().filter(|name| !name.is_empty()) {
            let agent: Agent = client
                .get(&format!("/agents/{}", segment(name)), &())
                .await
                .map_err(|error| anyhow::anyhow!("{name}: {error}; nothing was started"))?;
            names.insert(agent.id);
        }
        if self.all || self.selector.is_some() {
            let filter = AgentFilter { selector: self.selector.clone(), ..AgentFilter::default() };
            names.extend(agents::all(client, filter).await?.into_iter().map(|agent| agent.id));
        }
        ensure!(!names.is_empty(), "no agent matches; nothing was started");
        Ok(names.into_iter().collect())
    }
}
