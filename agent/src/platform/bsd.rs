//! FreeBSD and its kin: no /proc, so `ps`, `sysctl` and `netstat` are asked. Only at start, and when someone asks.

use std::process::Command;

use serde_json::{Value, json};

use super::ServiceManager;

/// Changes with every boot.
pub fn boot_id() -> String {
    output("sysctl", &["-n", "kern.boottime"]).unwrap_or_default().trim().replace(' ', "_")
}

/// When a living process started, seconds since the epoch by this machine's clock.
pub fn start_time(pid: i32) -> Option<u64> {
    let text = output("ps", &["-o", "state=,etimes=", "-p", &pid.to_string()])?;
    let mut fields = text.split_whitespace();
    let (state, elapsed) = (fields.next()?, fields.next()?.parse::<u64>().ok()?);
    let now = u64::try_from(jiff::Timestamp::now().as_second()).ok()?;
    // Rounded to two seconds: the elapsed time and the clock do not tick together.
    (!state.starts_with('Z')).then(|| (now - elapsed.min(now)) / 2)
}

/// Whether any living process belongs to the group.
pub fn group_exists(group: i32) -> bool {
    let text = output("ps", &["-axo", "pgid=,state="]).unwrap_or_default();
    text.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next().and_then(|pgid| pgid.parse().ok()) == Some(group)
            && fields.next().is_some_and(|state| !state.starts_with('Z'))
    })
}

/// Living processes whose environment holds `NAME=value`.
pub fn marked_processes(variable: &str) -> Vec<i32> {
    let text = output("ps", &["-axeww", "-o", "pid=,command="]).unwrap_or_default();
    let marked = |line: &&str| line.split_whitespace().any(|word| word == variable);
    text.lines().filter(marked).filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// Living processes of the session that this process leads, whatever group they are in.
pub fn session_members(leader: i32) -> Vec<i32> {
    let text = output("ps", &["-axo", "sid=,pid=,state="]).unwrap_or_default();
    let member = |line: &str| {
        let mut fields = line.split_whitespace();
        let (session, pid, state) = (fields.next()?.parse::<i32>().ok()?, fields.next()?, fields.next()?);
        (session == leader && !state.starts_with('Z')).then(|| pid.parse().ok())?
    };
    text.lines().filter_map(member).collect()
}

pub fn process_count() -> u32 {
    // Counting takes a subprocess here, which a sample must not cost; 0 reads as not told.
    0
}

pub fn service_manager() -> ServiceManager {
    ServiceManager::RcD
}

pub fn routes() -> Result<Value, String> {
    let text = output("netstat", &["-rn"]).ok_or("netstat -rn failed")?;
    Ok(json!({ "text": text }))
}

pub fn connections(limit: usize) -> Result<Value, String> {
    let text = output("sockstat", &["-46"]).ok_or("sockstat failed")?;
    let sockets: Vec<Value> = text.lines().skip(1).filter_map(socket).take(limit).collect();
    Ok(json!({ "total": text.lines().count().saturating_sub(1), "connections": sockets }))
}

fn socket(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(json!({ "protocol": fields.get(4)?, "local": fields.get(5)?, "remote": fields.get(6)? }))
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
