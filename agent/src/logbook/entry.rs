//! What stands in a line: when, what, by which request, at what, and how it went. Texts of the master are cut to a length,
//! never left out, and hold no secret that the request did not hold.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::{
    command::Command,
    exec::{End, ExecSpec, Outcome, Program},
    file::{FilePath, FileRequest},
    open::{Open, Operation},
    shell::ShellSpec,
};
use serde::{Deserialize, Serialize};

/// Longest text of one field, bytes.
const TEXT_MAX: usize = 1000;

/// The body of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// This machine's clock.
    pub at: Timestamp,
    /// The master's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_time: Option<Timestamp>,
    /// A dotted word: `exec.start`, `exec.end`, `forward`, `agent.start`, …
    pub what: String,
    /// The request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it was done to: a target, a command line, a path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Why the owner's policy allowed or denied it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// How it went: the word of a code, or how a program ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Entry {
    pub fn new(what: impl Into<String>) -> Self {
        Self { at: Timestamp::now(), what: what.into(), ..Self::default() }
    }

    /// What the master asked for.
    pub fn of(open: &Open, master_ms: i64) -> Self {
        let asked = Asked::of(&open.operation);
        Self {
            id: open.request_id.to_string(),
            master_time: Timestamp::from_millisecond(master_ms).ok(),
            target: cut(&asked.target),
            detail: cut(&asked.detail),
            ..Self::new(asked.what)
        }
    }

    pub fn id(self, id: impl ToString) -> Self {
        Self { id: id.to_string(), ..self }
    }

    pub fn target(self, target: impl AsRef<str>) -> Self {
        Self { target: cut(target.as_ref()), ..self }
    }

    pub fn verdict(self, verdict: impl AsRef<str>) -> Self {
        Self { verdict: cut(verdict.as_ref()), ..self }
    }

    pub fn result(self, result: impl ToString) -> Self {
        Self { result: cut(&result.to_string()), ..self }
    }

    pub fn detail(self, detail: impl AsRef<str>) -> Self {
        Self { detail: cut(detail.as_ref()), ..self }
    }

    /// The same under the word for one of its moments.
    #[must_use]
    pub fn moment(&self, moment: &str) -> Self {
        Self { what: format!("{}.{moment}", self.what), at: Timestamp::now(), ..self.clone() }
    }

    pub(super) fn body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How a program ended.
pub fn outcome(outcome: &Outcome) -> (String, &'static str) {
    (end(&outcome.end), if outcome.truncated { "its output was cut" } else { "" })
}

pub fn end(end: &End) -> String {
    match end {
        End::Exited(code) => format!("exit {code}"),
        End::Signalled(signal) => format!("signal {signal}"),
        End::Killed(code) => code.to_string(),
    }
}

struct Asked {
    what: &'static str,
    target: String,
    detail: String,
}

impl Asked {
    fn of(operation: &Operation) -> Self {
        let plain = |what, target| Self { what, target, detail: String::new() };
        match operation {
            Operation::Forward(target) => plain("forward", target.to_string()),
            Operation::Exec(ExecSpec { program, cwd, env, .. }) => {
                Self { what: "exec", target: command_line(program), detail: surroundings(cwd.as_deref(), env) }
            }
            Operation::Shell(ShellSpec { program, cwd, env, .. }) => Self {
                what: "shell",
                target: program.as_ref().map_or_else(|| "login shell".to_owned(), command_line),
                detail: surroundings(cwd.as_deref(), env),
            },
            Operation::ExecAttach(attach) => plain("exec.attach", attach.exec.to_string()),
            Operation::ShellAttach(attach) => plain("shell.attach", attach.session.to_string()),
            Operation::Command(Command { service, action, payload, .. }) => {
                // What is in it may be a secret of the action's.
                let detail = if payload.is_empty() { String::new() } else { format!("{} bytes", payload.len()) };
                Self { what: "command", target: format!("{service}.{action}"), detail }
            }
            Operation::FileRead(spec) => plain("file.read", path(&spec.path)),
            Operation::FileWrite(spec) => {
                Self { detail: format!("{} bytes", spec.size), ..plain("file.write", path(&spec.path)) }
            }
            Operation::File(request) => Self::of_files(request),
        }
    }

    fn of_files(request: &FileRequest) -> Self {
        let plain = |what, at: &FilePath| Self { what, target: path(at), detail: String::new() };
        let with = |what, at: &FilePath, detail: String| Self { detail, ..plain(what, at) };
        let two = |what, from: &FilePath, to: &FilePath| with(what, from, format!("to {}", path(to)));
        match request {
            FileRequest::Stat { path, .. } => plain("file.stat", path),
            FileRequest::List { path, .. } => plain("file.list", path),
            FileRequest::Walk { path } => plain("file.walk", path),
            FileRequest::Type { path } => plain("file.type", path),
            FileRequest::ReadLink { path } => plain("file.readlink", path),
            FileRequest::Checksum { path, .. } => plain("file.checksum", path),
            FileRequest::DiskUse { path } => plain("file.du", path),
            FileRequest::Search { path, pattern, .. } => with("file.search", path, pattern.clone()),
            FileRequest::Grep { path, pattern, .. } => with("file.grep", path, pattern.clone()),
            FileRequest::Mkdir { path, .. } => plain("file.mkdir", path),
            FileRequest::Remove { path, recursive } => {
                with("file.remove", path, if *recursive { "with all in it".to_owned() } else { String::new() })
            }
            FileRequest::Rename { from, to, .. } => two("file.rename", from, to),
            FileRequest::Copy { from, to, .. } => two("file.copy", from, to),
            FileRequest::Chmod { path, mode } => with("file.chmod", path, format!("{mode:04o}")),
            FileRequest::Chown { path, user, group, .. } => {
                let name = |name: &Option<String>| name.clone().unwrap_or_default();
                with("file.chown", path, format!("{}:{}", name(user), name(group)))
            }
            FileRequest::Symlink { path, target } => {
                with("file.symlink", path, format!("to {}", String::from_utf8_lossy(&target.0)))
            }
            FileRequest::Touch { path, .. } => plain("file.touch", path),
            FileRequest::Pack { from, to, .. } => {
                let from: Vec<_> = from.iter().map(path).collect();
                Self { what: "file.pack", target: from.join(" "), detail: format!("to {}", path(to)) }
            }
            FileRequest::Unpack { from, to, .. } => two("file.unpack", from, to),
        }
    }
}

fn path(path: &FilePath) -> String {
    String::from_utf8_lossy(&path.0).into_owned()
}

/// As one would type it.
fn command_line(program: &Program) -> String {
    match program {
        Program::Shell(line) => format!("/bin/sh -c {}", quoted(line)),
        Program::Argv(argv) => argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Values of variables may be secrets: their names are enough.
fn surroundings(cwd: Option<&str>, env: &[(String, String)]) -> String {
    let mut text = cwd.map(|cwd| format!("in {cwd}")).unwrap_or_default();
    if !env.is_empty() {
        let names: Vec<_> = env.iter().map(|(name, _)| name.as_str()).collect();
        let _ = write!(text, "{}with {}", if text.is_empty() { "" } else { ", " }, names.join(", "));
    }
    text
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    format!("{}… ({} bytes)", &text[..text.floor_char_boundary(TEXT_MAX)], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_stands_as_it_would_be_typed_and_values_of_variables_do_not() {
        let program = Program::Argv(vec!["rm".into(), "-rf".into(), "it's here".into(), String::new()]);
        let env = vec![("TOKEN".to_owned(), "canary".to_owned())];
        let spec = ExecSpec { program, cwd: Some("/srv".into()), env, timeout_ms: 0, stdin: false, output_max: 0 };
        let asked = Asked::of(&Operation::Exec(spec));
        assert_eq!((asked.what, asked.target.as_str()), ("exec", r"rm -rf 'it'\''s here' ''"));
        assert_eq!(asked.detail, "in /srv, with TOKEN");
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let long = "é".repeat(TEXT_MAX);
        let entry = Entry::new("x").target(&long);
        assert!(entry.target.len() < TEXT_MAX + 30 && entry.target.ends_with("… (2000 bytes)"), "{}", entry.target);
        let body = entry.moment("start").body();
        assert!(body.contains(r#""what":"x.start""#) && !body.contains("verdict"), "{body}");
    }
}
