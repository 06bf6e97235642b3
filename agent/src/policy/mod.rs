//! What the owner lets the master do. A local file that no message can change; read once at start. No file means forward
//! to localhost and `system.*` only; a file with a mistake means nothing at all.
//!
//! Checked at every stream open, and for forwards again for every address that would be dialled.

mod address;
mod exec;
mod file;
mod glob;
mod hours;
mod target;

#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Zoned;
use proto::{
    command::Command,
    exec::ExecSpec,
    open::{Operation, Target},
    shell::ShellSpec,
};

pub use self::{
    address::{BadHost, Host},
    exec::{SEARCH_PATH, find_program},
};
use self::{exec::ExecRules, hours::Hours, target::TargetPattern};
use crate::config::PolicyFile;

/// Longest text the master is shown, bytes: a bound of the control message.
const TEXT_MAX: usize = 15 * 1024;

/// The policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    origin: String,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Rules(Box<Rules>),
    /// The file could not be used.
    DenyAll {
        mistakes: Vec<String>,
    },
}

#[derive(Debug, Clone)]
struct Rules {
    operations: Vec<&'static str>,
    hours: Vec<Hours>,
    targets: Vec<TargetPattern>,
    exec: ExecRules,
    commands: Vec<String>,
    shell: ShellRules,
    files: FileRules,
}

/// The `[shell]` section, checked.
#[derive(Debug, Clone, Default)]
struct ShellRules {
    env: Vec<String>,
    run_as: Option<String>,
}

/// The `[files]` section, checked: absolute folders.
#[derive(Debug, Clone, Default)]
pub struct FileRules {
    /// May be read and written.
    pub roots: Vec<PathBuf>,
    /// May be read.
    pub read_only: Vec<PathBuf>,
}

/// The owner says no, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the owner's policy forbids it: {0}")]
pub struct Denied(pub String);

/// The owner says yes, and by which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because(pub String);

impl Policy {
    /// Never fails: what cannot be used denies everything, and [`mistakes`](Self::mistakes) says why.
    pub fn load(file: &PolicyFile) -> Self {
        let path = file.path();
        let origin = path.display().to_string();
        match (std::fs::read_to_string(path), file) {
            (Ok(text), _) => Self::read(&text, origin),
            (Err(error), PolicyFile::Default(_)) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::without_file(path)
            }
            (Err(error), _) => Self::deny_all(origin, vec![error.to_string()]),
        }
    }

    fn read(text: &str, origin: String) -> Self {
        match file::read(text) {
            Ok(rules) => Self { origin, state: State::Rules(Box::new(rules)) },
            Err(mistakes) => Self::deny_all(origin, mistakes),
        }
    }

    fn deny_all(origin: String, mistakes: Vec<String>) -> Self {
        Self { origin, state: State::DenyAll { mistakes } }
    }

    fn without_file(path: &Path) -> Self {
        let text = "[forward]\ntargets = [\"localhost:*\"]\n[commands]\nallow = [\"system.*\"]\n";
        Self::read(text, format!("built in, as there is no {}", path.display()))
    }

    fn rules(&self) -> Option<&Rules> {
        match &self.state {
            State::Rules(rules) => Some(rules),
            State::DenyAll { .. } => None,
        }
    }

    /// Why everything is denied; empty if the policy could be used.
    pub fn mistakes(&self) -> &[String] {
        match &self.state {
            State::DenyAll { mistakes } => mistakes,
            State::Rules(_) => &[],
        }
    }

    /// Where it came from, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The effective policy as TOML, for people.
    pub fn text(&self) -> String {
        let mut text = format!("# {}\n{}", self.origin, file::show(self));
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text
    }

    /// The operations it allows at all.
    pub fn operations(&self) -> Vec<&'static str> {
        self.rules().map(|rules| rules.operations.clone()).unwrap_or_default()
    }

    /// Judges a stream's header. For a forward this is only the first half: each address must pass
    /// [`permits`](Self::permits) as well.
    pub fn judge(&self, operation: &Operation, now: &Zoned) -> Result<Because, Denied> {
        // A program on a terminal is an exec; only a login shell is a shell.
        let word = match operation {
            Operation::Shell(ShellSpec { program: Some(_), .. }) => "exec",
            other => other.word(),
        };
        let rules = match operation {
            // Whether it was a shell or an exec on a terminal is the session's matter.
            Operation::ShellAttach(_) => self.open_for("shell", now).or_else(|_| self.open_for("exec", now))?,
            _ => self.open_for(word, now)?,
        };
        match operation {
            Operation::Forward(target) => rules.judge_port(target),
            Operation::Exec(spec) => rules.judge_exec(spec),
            Operation::Command(command) => rules.judge_command(command),
            Operation::Shell(spec) => rules.judge_shell(spec),
            Operation::ExecAttach(_) | Operation::ShellAttach(_) => Ok(Because("it was allowed when it began".into())),
            Operation::File(_) | Operation::FileRead(_) | Operation::FileWrite(_) => {
                Ok(Because("files are among its operations; each path is judged where it leads".into()))
            }
        }
    }

    /// Whether `address`, to which `host` resolved, may be dialled.
    pub fn permits(&self, host: &Host, address: IpAddr, port: u16) -> Result<Because, Denied> {
        let rules = self.rules().ok_or_else(|| self.unusable())?;
        match target::judge(&rules.targets, host, address, port) {
            Ok(pattern) => Ok(Because(format!("forward.targets has {:?}", pattern.text()))),
            Err(why) => Err(Denied(why)),
        }
    }

    /// As whom commands run; `None` is the agent's own user.
    pub fn run_as(&self) -> Option<&str> {
        self.rules()?.exec.run_as.as_deref()
    }

    /// As whom shells run; `None` is the agent's own user.
    pub fn shell_as(&self) -> Option<&str> {
        self.rules()?.shell.run_as.as_deref().or_else(|| self.run_as())
    }

    /// The folders it opens; `None` when it allows no files.
    pub fn files(&self) -> Option<&FileRules> {
        self.rules().map(|rules| &rules.files)
    }

    /// Where commands start unless the request says otherwise.
    pub fn exec_dir(&self) -> Option<&Path> {
        self.rules()?.exec.cwd.as_deref()
    }

    fn open_for(&self, operation: &str, now: &Zoned) -> Result<&Rules, Denied> {
        let rules = self.rules().ok_or_else(|| self.unusable())?;
        if !rules.operations.contains(&operation) {
            return Err(Denied(format!("{operation} is not among its operations")));
        }
        if !rules.hours.is_empty() && !rules.hours.iter().any(|hours| hours.open_at(now)) {
            return Err(Denied("it is outside the owner's hours".into()));
        }
        Ok(rules)
    }

    fn unusable(&self) -> Denied {
        Denied("its policy file has mistakes, so everything is denied; `landline-agent policy show` lists them".into())
    }
}

impl Rules {
    fn judge_port(&self, target: &Target) -> Result<Because, Denied> {
        if self.targets.iter().any(|pattern| pattern.has_port(target.port)) {
            return Ok(Because("the port is in forward.targets".into()));
        }
        Err(Denied(format!("no pattern of forward.targets covers port {}", target.port)))
    }

    fn judge_exec(&self, spec: &ExecSpec) -> Result<Because, Denied> {
        self.exec.judge(spec).map(Because).map_err(Denied)
    }

    fn judge_shell(&self, spec: &ShellSpec) -> Result<Because, Denied> {
        if let Some(program) = &spec.program {
            let (env, cwd) = (spec.env.clone(), spec.cwd.clone());
            let program = program.clone();
            return self.judge_exec(&ExecSpec { program, cwd, env, timeout_ms: 0, stdin: true, output_max: 0 });
        }
        match spec.env.iter().find(|(name, _)| !self.shell.env.iter().any(|pattern| glob::matches(pattern, name))) {
            Some((name, _)) => Err(Denied(format!("the variable {name:?} is not in shell.env"))),
            None => Ok(Because("shell is among its operations".into())),
        }
    }

    fn judge_command(&self, command: &Command) -> Result<Because, Denied> {
        let (service, action) = (&command.service, &command.action);
        match file::command_allowed(&self.commands, service, action) {
            Some(pattern) => Ok(Because(format!("commands.allow has {pattern:?}"))),
            None => Err(Denied(format!("{service}.{action} is not in commands.allow"))),
        }
    }
}
