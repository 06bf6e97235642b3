//! `landline-agent doctor`: looks at everything that a line needs, and names the fix of what is wrong. Changes nothing, needs
//! no running agent, and disturbs none. One file per group of checks; the probes are functions of their own, for whoever
//! wants to look at a network without an agent.

mod clock;
mod identity;
mod local;
pub mod probe;
mod reach;

use std::time::Duration;

use proto::check::Check;

use crate::{config::Config, lockdown};

/// For all of it. Every probe has a deadline of its own below this.
const WITHIN: Duration = Duration::from_secs(18);

/// Looks at an agent's surroundings.
pub async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = local::examine(config);
    checks.extend(identity::examine(config));
    if let Some(imposed) = lockdown::read(&config.state_dir) {
        let seen = format!("the owner locked this machine down at {}", imposed.since);
        checks.push(Check::warn(
            "lockdown",
            seen,
            "landline-agent lockdown --off; the network is not looked at until then",
        ));
        return checks;
    }
    match tokio::time::timeout(WITHIN, reach::examine(config)).await {
        Ok(found) => checks.extend(found),
        Err(_) => checks.push(Check::fail(
            "network",
            format!("not done within {WITHIN:?}"),
            "try again; if it stays so, look at the resolver and the firewall of this machine",
        )),
    }
    checks
}
