//! `landline ssh-config`: a block for ~/.ssh/config, so that ssh and all that stands on it find agents by name.

use std::process::ExitCode;

use clap::Args;

use super::{
    Context, agents,
    client::{DEFAULT_URL, segment},
    output,
};
use crate::api::dto::agent::{Agent, AgentFilter};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline ssh-config home-1 --user root >> ~/.ssh/config
  landline ssh-config --selector site=berlin
  ssh home-1.landline; scp file home-1.landline:; rsync -a dir home-1.landline:; git clone home-1.landline:repo.git")]
pub(super) struct SshConfig {
    /// Agents to write a block for; all if none is named
    agents: Vec<String>,
    /// Only those whose labels match
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with = "agents")]
    selector: Option<String>,
    /// The user to log in as
    #[arg(long)]
    user: Option<String>,
    /// Where the SSH server is, as the agent sees it
    #[arg(long, default_value = "localhost:22", value_name = "HOST:PORT", value_parser = super::forward::parse_target)]
    target: String,
    /// Appended to the agent's name
    #[arg(long, default_value = ".landline")]
    suffix: String,
}

impl SshConfig {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let program = std::env::current_exe()?.display().to_string();
        for agent in self.names(&context).await? {
            output::line(&self.block(&agent, &program, &context.client.url))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn names(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for name in &self.agents {
            let agent: Agent = context.client.get(&format!("/agents/{}", segment(name)), &()).await?;
            names.push(agent.id);
        }
        if !self.agents.is_empty() {
            return Ok(names);
        }
        let filter = AgentFilter { selector: self.selector.clone(), ..AgentFilter::default() };
        Ok(agents::all(&context.client, filter).await?.into_iter().map(|agent| agent.id).collect())
    }

    fn block(&self, agent: &str, program: &str, url: &str) -> String {
        let name = format!("{agent}{}", self.suffix);
        let master = if url == DEFAULT_URL { String::new() } else { format!(" --url {url}") };
        let user = self.user.as_ref().map(|user| format!("\n    User {user}")).unwrap_or_default();
        // Quoted for the shell that ssh hands it to; % would be ssh's own.
        let program = program.replace('%', "%%").replace('\'', "'\\''");
        format!(
            "Host {name}\n    HostName {agent}\n    HostKeyAlias {name}\n    \
             ProxyCommand '{program}'{master} stdio {agent} {}{user}\n",
            self.target
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_the_program_the_master_and_the_target() {
        let config = SshConfig {
            agents: Vec::new(),
            selector: None,
            user: Some("root".into()),
            target: "localhost:22".into(),
            suffix: ".landline".into(),
        };
        let block = config.block("home-1", "/opt/a b/landline", "http://127.0.0.1:9");
        assert_eq!(
            block,
            "Host home-1.landline\n    HostName home-1\n    HostKeyAlias home-1.landline\n    ProxyCommand \
             '/opt/a b/landline' --url http://127.0.0.1:9 stdio home-1 localhost:22\n    User root\n"
        );
    }
}
