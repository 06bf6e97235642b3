//! `landline command`: one typed command, its reply as JSON.

use std::process::ExitCode;

use clap::Args;

use super::{Context, FAILED, UsageError, client::segment, output, output::Format};
use crate::api::dto::command::{CommandCall, CommandReply, CommandStatus};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline command home-1 system.getUsage
  landline command home-1 service.status '{\"name\":\"nginx\"}'

Prints the reply's data; exit code 1 if the action failed.")]
pub(super) struct Call {
    agent: String,
    /// What to do, e.g. system.getUsage
    #[arg(value_name = "SERVICE.ACTION")]
    action: String,
    /// JSON handed to the action
    payload: Option<String>,
}

impl Call {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let Some((service, action)) = self.action.split_once('.') else {
            return Err(UsageError(format!("{:?} is no command; write SERVICE.ACTION", self.action)).into());
        };
        let payload = self.payload.as_deref().map(serde_json::from_str).transpose();
        let payload = payload.map_err(|error| UsageError(format!("the payload is no JSON: {error}")))?;
        let call = CommandCall {
            id: uuid::Uuid::new_v4().to_string(),
            kind: "COMMAND".to_owned(),
            service: Some(service.to_owned()),
            action: Some(action.to_owned()),
            timestamp: output::now_ms(),
            payload,
            timeout_s: None,
        };
        let path = format!("/agents/{}/commands", segment(&self.agent));
        let reply: CommandReply = context.client.post(&path, &call).await?;
        if context.format == Format::Json {
            output::line(&serde_json::to_string_pretty(&reply)?)?;
        } else if reply.status == CommandStatus::Success {
            output::line(&serde_json::to_string_pretty(&reply.data)?)?;
        } else {
            let (error, code) = (reply.error.as_deref().unwrap_or("-"), reply.code.as_deref().unwrap_or("-"));
            eprintln!("landline: {} ({})", output::plain(error), output::plain(code));
        }
        Ok(if reply.status == CommandStatus::Success { ExitCode::SUCCESS } else { FAILED.into() })
    }
}
