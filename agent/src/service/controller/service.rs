//! `service.*`: the machine's services, through systemd or rc.d. Names are checked before they become arguments.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, Request, run};
use crate::platform::{self, ServiceManager};

/// Most services told in one reply.
const LIST_MAX: usize = 400;
/// What `service.status` tells, by systemd's names.
const PROPERTIES: &str = "Id,Description,LoadState,ActiveState,SubState,UnitFileState,MainPID,ActiveEnterTimestamp,MemoryCurrent,NRestarts,Result";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) fn knows(verb: &str) -> bool {
    matches!(verb, "list" | "status" | "start" | "stop" | "restart" | "reload" | "enable" | "disable")
}

pub(super) async fn run(verb: &str, request: &Request<'_>) -> Result<Value, Failure> {
    match (platform::service_manager(), verb) {
        (ServiceManager::Systemd, "list") => systemd_list(request).await,
        (ServiceManager::Systemd, "status") => systemd_status(&name(request)?, request).await,
        (ServiceManager::Systemd, verb) => {
            act(&["systemctl", "--no-ask-password", verb, &unit(&name(request)?)], request).await
        }
        (ServiceManager::RcD, "list") => rc_list(request).await,
        (ServiceManager::RcD, verb) => rc(verb, &name(request)?, request).await,
    }
}

/// A name that cannot be taken for an option or a path.
fn name(request: &Request<'_>) -> Result<String, Failure> {
    let Named { name } = request.payload()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':' | '\\');
    if name.is_empty() || name.len() > 255 || name.starts_with('-') || !name.chars().all(plain) {
        return Err(Failure::invalid("name is not the name of a service"));
    }
    Ok(name)
}

/// systemd wants the suffix where a name without one is ambiguous.
fn unit(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

async fn output(argv: &[&str], request: &Request<'_>) -> Result<run::Output, Failure> {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    run::run(&argv, "", None, request).await
}

/// Runs a verb for its effect.
async fn act(argv: &[&str], request: &Request<'_>) -> Result<Value, Failure> {
    let output = output(argv, request).await?;
    if output.succeeded() { Ok(json!({ "done": true })) } else { Err(Failure::failed(output.complaint())) }
}

async fn systemd_list(request: &Request<'_>) -> Result<Value, Failure> {
    let argv = ["systemctl", "list-units", "--type=service", "--all", "--plain", "--no-legend", "--no-pager", "--full"];
    let output = output(&argv, request).await?;
    if !output.succeeded() {
        return Err(Failure::failed(output.complaint()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let services: Vec<Value> = text.lines().filter_map(listed).collect();
    Ok(json!({ "total": services.len(), "services": services.into_iter().take(LIST_MAX).collect::<Vec<_>>() }))
}

fn listed(line: &str) -> Option<Value> {
    let mut words = line.split_whitespace();
    let (unit, _load, active, sub) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(json!({ "name": unit.trim_end_matches(".service"), "active": active, "state": sub }))
}

async fn systemd_status(name: &str, request: &Request<'_>) -> Result<Value, Failure> {
    let unit = unit(name);
    let output =
        output(&["systemctl", "show", "--no-pager", &format!("--property={PROPERTIES}"), &unit], request).await?;
    if !output.succeeded() {
        return Err(Failure::failed(output.complaint()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let property = |wanted: &str| {
        text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('=')).filter(|value| !value.is_empty())
    };
    if property("LoadState") == Some("not-found") {
        return Err(Failure::failed(format!("there is no service {name}")));
    }
    let number = |wanted: &str| property(wanted).and_then(|value| value.parse::<u64>().ok());
    Ok(json!({
        "name": name,
        "description": property("Description"),
        "active": property("ActiveState"),
        "state": property("SubState"),
        "enabled": property("UnitFileState"),
        "pid": number("MainPID").filter(|pid| *pid != 0),
        "since": property("ActiveEnterTimestamp"),
        "memory": number("MemoryCurrent").filter(|bytes| *bytes != u64::MAX),
        "restarts": number("NRestarts"),
        "result": property("Result"),
    }))
}

async fn rc_list(request: &Request<'_>) -> Result<Value, Failure> {
    let output = output(&["service", "-e"], request).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let services: Vec<Value> = text
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .map(|name| json!({ "name": name, "active": Value::Null, "state": "enabled" }))
        .take(LIST_MAX)
        .collect();
    Ok(json!({ "total": services.len(), "services": services }))
}

/// rc.d: `status` exits with 1 when the service is not running, which is an answer and no failure.
async fn rc(verb: &str, name: &str, request: &Request<'_>) -> Result<Value, Failure> {
    if verb != "status" {
        return act(&["service", name, verb], request).await;
    }
    let output = output(&["service", name, "onestatus"], request).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status {
        Some(0) => Ok(json!({ "name": name, "active": "active", "state": text })),
        Some(1) if !text.is_empty() => Ok(json!({ "name": name, "active": "inactive", "state": text })),
        _ => Err(Failure::failed(output.complaint())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_systemctl_is_read() {
        let line = "ssh.service loaded active running OpenBSD Secure Shell server";
        assert_eq!(listed(line), Some(json!({ "name": "ssh", "active": "active", "state": "running" })));
        assert_eq!(listed("broken"), None);
        assert_eq!((unit("nginx"), unit("a.timer")), ("nginx.service".into(), "a.timer".into()));
    }
}
