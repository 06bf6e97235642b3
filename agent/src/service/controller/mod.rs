//! Who answers which command: the built-in services first, then the owner's executables. Adding a service means a file
//! here and a line in `route`.

mod actions;
mod network;
mod process;
mod run;
mod service;
mod system;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use proto::{code::Code, command::Command, id::RequestId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::stats::Sampler;
use crate::policy::Policy;

/// Why a command gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::ACTION_FAILED, message)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID, message)
    }
}

/// What one run of a command may use.
#[derive(Debug)]
struct Request<'a> {
    id: RequestId,
    payload: &'a str,
}

impl Request<'_> {
    /// The payload as the action's own type; no payload is an empty object.
    fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let text = if self.payload.trim().is_empty() { "{}" } else { self.payload };
        serde_json::from_str(text).map_err(|error| Failure::invalid(format!("payload: {error}")))
    }
}

#[derive(Debug)]
pub(super) struct Controllers {
    policy: Arc<Policy>,
    sampler: Sampler,
    actions_dir: PathBuf,
}

impl Controllers {
    pub(super) fn new(policy: Arc<Policy>, sampler: Sampler, actions_dir: PathBuf) -> Self {
        Self { policy, sampler, actions_dir }
    }

    /// Runs a command. Dropping the future kills what it started.
    pub(super) async fn run(&self, id: RequestId, command: &Command) -> Result<Value, Failure> {
        let request = Request { id, payload: &command.payload };
        match (command.service.as_str(), command.action.as_str()) {
            ("system", "getUsage") => Ok(system::usage(&self.sampler.sample().await)),
            ("system", "getInfo") => blocking(system::info).await,
            ("service", verb) if service::knows(verb) => service::run(verb, &request).await,
            ("process", "list") => {
                let wanted = request.payload()?;
                blocking(move || process::list(&wanted)).await
            }
            ("process", "info") => {
                let wanted = request.payload()?;
                blocking(move || process::info(&wanted)).await
            }
            ("process", "kill") => process::kill(&request.payload()?),
            ("network", "interfaces") => blocking(network::interfaces).await,
            ("network", "connections") => {
                let wanted = request.payload()?;
                blocking(move || network::connections(&wanted)).await
            }
            ("network", "routes") => blocking(network::routes).await,
            ("network", "dns") => network::dns(),
            (service, action) => self.owners_action(service, action, &request).await,
        }
    }

    async fn owners_action(&self, service: &str, action: &str, request: &Request<'_>) -> Result<Value, Failure> {
        match actions::find(&self.actions_dir, service, action)? {
            Some(program) => actions::run(&program, self.policy.run_as(), request).await,
            None => Err(Failure::new(
                Code::UNKNOWN_ACTION,
                format!("{service}.{action} is not known here; see `landline-agent policy show` and actions.d"),
            )),
        }
    }
}

/// Whether a command changes nothing, so that running it twice would do no harm.
pub(super) fn only_looks(service: &str, action: &str) -> bool {
    matches!(
        (service, action),
        ("system", "getUsage" | "getInfo")
            | ("service", "list" | "status")
            | ("process", "list" | "info")
            | ("network", "interfaces" | "connections" | "routes" | "dns")
    )
}

/// Runs what reads files off the runtime.
async fn blocking(work: impl FnOnce() -> Result<Value, Failure> + Send + 'static) -> Result<Value, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            // Counted where all panics of handlers are.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Failure::new(Code::SHUTDOWN, "the agent is shutting down")),
        },
    }
}
