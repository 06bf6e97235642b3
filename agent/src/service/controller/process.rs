//! `process.*`: what runs on the machine. The table is read when someone asks and dropped with the reply.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::Failure;
use crate::platform::{self, users};

/// Most processes told in one reply.
const LIST_MAX: usize = 200;
/// Longest command line told, characters.
const COMMAND_MAX: usize = 160;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
    sort: Order,
    /// Part of the name or command line.
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    #[default]
    Memory,
    Cpu,
    Pid,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    pid: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kill {
    pid: i32,
    #[serde(default)]
    signal: Option<String>,
}

fn table(which: ProcessesToUpdate<'_>) -> System {
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing()
        .with_memory()
        .with_cpu()
        .with_user(UpdateKind::Always)
        .with_cmd(UpdateKind::Always)
        .without_tasks();
    system.refresh_processes_specifics(which, true, what);
    system
}

pub(super) fn list(wanted: &Wanted) -> Result<Value, Failure> {
    let system = table(ProcessesToUpdate::All);
    let users = users::names();
    let matches = |process: &&Process| match &wanted.filter {
        Some(part) => {
            process.name().to_string_lossy().contains(part.as_str()) || command_line(process).contains(part.as_str())
        }
        None => true,
    };
    let mut processes: Vec<&Process> = system.processes().values().filter(matches).collect();
    processes.sort_by_key(|process| match wanted.sort {
        Order::Memory => (u64::MAX - process.memory(), process.pid()),
        Order::Cpu => (u64::MAX - process.accumulated_cpu_time(), process.pid()),
        Order::Pid => (0, process.pid()),
    });
    let limit = wanted.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
    let told: Vec<Value> = processes.iter().take(limit).map(|process| describe(process, &users)).collect();
    Ok(json!({ "total": processes.len(), "processes": told }))
}

pub(super) fn info(wanted: &One) -> Result<Value, Failure> {
    let pid = Pid::from_u32(wanted.pid);
    let system = table(ProcessesToUpdate::Some(&[pid]));
    match system.process(pid) {
        Some(process) => Ok(describe(process, &users::names())),
        None => Err(Failure::failed(format!("there is no process {}", wanted.pid))),
    }
}

pub(super) fn kill(wanted: &Kill) -> Result<Value, Failure> {
    let name = wanted.signal.as_deref().unwrap_or("TERM").to_ascii_uppercase();
    let signal = signal(name.trim_start_matches("SIG"))
        .ok_or_else(|| Failure::invalid("signal is one of TERM, KILL, INT, HUP, QUIT, USR1, USR2, STOP, CONT"))?;
    if wanted.pid <= 1 || u32::try_from(wanted.pid) == Ok(std::process::id()) {
        return Err(Failure::invalid("this process is not to be killed: it is init or the agent itself"));
    }
    match platform::signal_process(wanted.pid, signal) {
        Ok(()) => Ok(json!({ "done": true })),
        Err(error) => Err(Failure::failed(format!("process {}: {error}", wanted.pid))),
    }
}

fn signal(name: &str) -> Option<Signal> {
    Some(match name {
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        _ => return None,
    })
}

fn describe(process: &Process, users: &BTreeMap<u32, String>) -> Value {
    json!({
        "pid": process.pid().as_u32(),
        "ppid": process.parent().map(Pid::as_u32),
        "name": process.name().to_string_lossy(),
        "command": command_line(process).chars().take(COMMAND_MAX).collect::<String>(),
        "user": process.user_id().and_then(|id| users.get(id)),
        "state": process.status().to_string(),
        "memory": process.memory() >> 20,
        "cpuSeconds": process.accumulated_cpu_time() / 1000,
        "startTime": process.start_time(),
    })
}

fn command_line(process: &Process) -> String {
    process.cmd().iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
