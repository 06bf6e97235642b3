//! `policy.toml` as text: its shape, and the mistakes in it. One mistake anywhere denies everything: a policy that is
//! half understood is no policy.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    FileRules, Policy, Rules, ShellRules,
    exec::{ArgvPattern, ExecRules},
    glob,
};

const OPERATIONS: [&str; 5] = ["forward", "exec", "command", "shell", "files"];

/// The file, and the way the effective policy is shown.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PolicyText {
    /// Everything not named below is allowed, too. Special addresses still must be listed.
    pub(super) allow_all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operations: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hours: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forward: Option<ForwardText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exec: Option<ExecText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commands: Option<CommandsText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shell: Option<ShellText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<FilesText>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ForwardText {
    pub(super) targets: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ExecText {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) shell: bool,
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CommandsText {
    pub(super) allow: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ShellText {
    /// Names of variables that a caller may set.
    pub(super) env: Vec<String>,
    /// Whose login shell it is; without it that of `exec.run_as`, else the agent's own user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run_as: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FilesText {
    /// Folders that may be read and written.
    pub(super) roots: Vec<String>,
    /// Folders that may be read.
    pub(super) read_only: Vec<String>,
}

/// Reads the text; `Err` lists every mistake.
pub(super) fn read(text: &str) -> Result<Rules, Vec<String>> {
    let mut mistakes = Vec::new();
    let deserializer = toml::Deserializer::parse(text).map_err(|error| vec![error.to_string()])?;
    let parsed: Result<PolicyText, _> = serde_ignored::deserialize(deserializer, |path| {
        // An optional section shows up as a step of its own.
        mistakes.push(format!("unknown key {:?}", path.to_string().replace(".?", "")));
    });
    match parsed {
        Ok(parsed) => check(parsed, mistakes),
        Err(error) => {
            mistakes.push(error.to_string());
            Err(mistakes)
        }
    }
}

fn check(text: PolicyText, mut mistakes: Vec<String>) -> Result<Rules, Vec<String>> {
    let operations = operations(&text, &mut mistakes);
    let all = |own: &[String], everything: &str| {
        let mut list = own.to_vec();
        if text.allow_all {
            list.push(everything.to_owned());
        }
        list
    };
    let (forward, exec, commands, shell, files) = (
        text.forward.clone().unwrap_or_default(),
        text.exec.clone().unwrap_or_default(),
        text.commands.clone().unwrap_or_default(),
        text.shell.clone().unwrap_or_default(),
        text.files.clone().unwrap_or_default(),
    );
    let argv = |name: &str, list: &[String], mistakes: &mut Vec<String>| {
        each(name, list, mistakes, |item| ArgvPattern::read(item).ok_or("an empty pattern"))
    };
    let rules = Rules {
        operations,
        hours: each("hours", &text.hours, &mut mistakes, |item| item.parse()),
        targets: each("forward.targets", &all(&forward.targets, "*:*"), &mut mistakes, |item| item.parse()),
        exec: ExecRules {
            allow: argv("exec.allow", &all(&exec.allow, "*"), &mut mistakes),
            deny: argv("exec.deny", &exec.deny, &mut mistakes),
            shell: exec.shell || text.allow_all,
            env: all(&exec.env, "*"),
            run_as: exec.run_as,
            cwd: exec.cwd,
        },
        commands: each("commands.allow", &all(&commands.allow, "*.*"), &mut mistakes, command_pattern),
        shell: ShellRules { env: all(&shell.env, "*"), run_as: shell.run_as },
        files: FileRules {
            roots: each("files.roots", &all(&files.roots, "/"), &mut mistakes, root_path),
            read_only: each("files.read_only", &files.read_only, &mut mistakes, root_path),
        },
    };
    if mistakes.is_empty() { Ok(rules) } else { Err(mistakes) }
}

/// The operations: those listed, else those that have a section.
fn operations(text: &PolicyText, mistakes: &mut Vec<String>) -> Vec<&'static str> {
    let sections = [
        text.forward.is_some(),
        text.exec.is_some(),
        text.commands.is_some(),
        text.shell.is_some(),
        text.files.is_some(),
    ];
    let Some(listed) = &text.operations else {
        let allowed = OPERATIONS.into_iter().zip(sections);
        return allowed.filter(|(_, present)| *present || text.allow_all).map(|(word, _)| word).collect();
    };
    let known = |word: &String| match OPERATIONS.into_iter().find(|known| known == word) {
        Some(known) => Some(known),
        None => {
            mistakes.push(format!("operations: {word:?} is not one of {}", OPERATIONS.join(", ")));
            None
        }
    };
    listed.iter().filter_map(known).collect()
}

fn each<T, E: std::fmt::Display>(
    name: &str,
    list: &[String],
    mistakes: &mut Vec<String>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Vec<T> {
    let mut read_one = |item: &String| match read(item) {
        Ok(value) => Some(value),
        Err(error) => {
            mistakes.push(format!("{name}: {item:?}: {error}"));
            None
        }
    };
    list.iter().filter_map(&mut read_one).collect()
}

fn command_pattern(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
    match text.split_once('.') {
        Some((service, action)) if [service, action].iter().all(|part| !part.is_empty() && part.chars().all(plain)) => {
            Ok(text.to_owned())
        }
        _ => Err("write service.action, with * where anything goes"),
    }
}

fn root_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain { Ok(path.to_owned()) } else { Err("write an absolute path without . and ..") }
}

/// Whether `service.action` is in the list.
pub(super) fn command_allowed<'a>(list: &'a [String], service: &str, action: &str) -> Option<&'a str> {
    let covers = |pattern: &&String| {
        pattern.split_once('.').is_some_and(|(s, a)| glob::matches(s, service) && glob::matches(a, action))
    };
    list.iter().find(covers).map(String::as_str)
}

/// The effective policy, for people.
pub(super) fn show(policy: &Policy) -> String {
    let Some(rules) = policy.rules() else {
        return "# everything is denied\noperations = []\n".into();
    };
    let paths = |list: &[PathBuf]| list.iter().map(|path| path.display().to_string()).collect();
    let texts = |list: &[ArgvPattern]| list.iter().map(ArgvPattern::text).collect();
    let text = PolicyText {
        allow_all: false,
        operations: Some(rules.operations.iter().map(|word| (*word).to_owned()).collect()),
        hours: rules.hours.iter().map(|hours| hours.text().to_owned()).collect(),
        forward: Some(ForwardText { targets: rules.targets.iter().map(|target| target.text().to_owned()).collect() }),
        exec: Some(ExecText {
            allow: texts(&rules.exec.allow),
            deny: texts(&rules.exec.deny),
            shell: rules.exec.shell,
            env: rules.exec.env.clone(),
            run_as: rules.exec.run_as.clone(),
            cwd: rules.exec.cwd.clone(),
        }),
        commands: Some(CommandsText { allow: rules.commands.clone() }),
        shell: Some(ShellText { env: rules.shell.env.clone(), run_as: rules.shell.run_as.clone() }),
        files: Some(FilesText { roots: paths(&rules.files.roots), read_only: paths(&rules.files.read_only) }),
    };
    toml::to_string(&text).unwrap_or_default()
}
