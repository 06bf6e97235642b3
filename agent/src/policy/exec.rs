//! What a policy says about running command lines: patterns of argv, shell lines, names of variables.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use proto::exec::{ExecSpec, Program};

use super::glob;

/// Where a bare program name is looked for; also the PATH of what is run.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `[exec]` section, checked.
#[derive(Debug, Clone, Default)]
pub(super) struct ExecRules {
    pub(super) allow: Vec<ArgvPattern>,
    pub(super) deny: Vec<ArgvPattern>,
    pub(super) shell: bool,
    pub(super) env: Vec<String>,
    pub(super) run_as: Option<String>,
    pub(super) cwd: Option<PathBuf>,
}

/// `systemctl status *`: one glob per argument; a last word `*` alone stands for any arguments or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArgvPattern {
    program: String,
    arguments: Vec<String>,
    open_ended: bool,
}

impl ArgvPattern {
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let open_ended = words.last().is_some_and(|word| word == "*");
        if open_ended && words.len() > 1 {
            words.pop();
        }
        let program = (!words.is_empty()).then(|| words.remove(0))?;
        Some(Self { program, arguments: words, open_ended })
    }

    pub(super) fn text(&self) -> String {
        let mut words = vec![self.program.as_str()];
        words.extend(self.arguments.iter().map(String::as_str));
        if self.open_ended && self.program != "*" {
            words.push("*");
        }
        words.join(" ")
    }

    fn covers(&self, programs: &[String], arguments: &[String]) -> bool {
        let counts = if self.open_ended {
            arguments.len() >= self.arguments.len()
        } else {
            arguments.len() == self.arguments.len()
        };
        counts
            && programs.iter().any(|program| glob::matches(&self.program, program))
            && self.arguments.iter().zip(arguments).all(|(pattern, argument)| glob::matches(pattern, argument))
    }
}

impl ExecRules {
    /// `Err` says why not.
    pub(super) fn judge(&self, spec: &ExecSpec) -> Result<String, String> {
        if let Some((name, _)) = spec.env.iter().find(|(name, _)| !self.permits_variable(name)) {
            return Err(format!("the variable {name:?} is not in exec.env"));
        }
        match &spec.program {
            Program::Shell(line) => self.judge_shell(line),
            Program::Argv(argv) => self.judge_argv(argv),
        }
    }

    fn permits_variable(&self, name: &str) -> bool {
        self.env.iter().any(|pattern| glob::matches(pattern, name))
    }

    fn judge_shell(&self, line: &str) -> Result<String, String> {
        if !self.shell {
            return Err("shell lines are not allowed (exec.shell = false)".into());
        }
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let denied = |pattern: &&ArgvPattern| {
            glob::matches(&pattern.text(), line)
                || words.split_first().is_some_and(|(program, rest)| pattern.covers(&spellings(program), rest))
        };
        match self.deny.iter().find(denied) {
            Some(pattern) => Err(format!("exec.deny has {:?}", pattern.text())),
            None => Ok("exec.shell = true".into()),
        }
    }

    fn judge_argv(&self, argv: &[String]) -> Result<String, String> {
        let Some((program, arguments)) = argv.split_first() else { return Err("argv is empty".into()) };
        if let Some(pattern) = self.deny.iter().find(|pattern| pattern.covers(&spellings(program), arguments)) {
            return Err(format!("exec.deny has {:?}", pattern.text()));
        }
        match self.allow.iter().find(|pattern| pattern.covers(&identities(program), arguments)) {
            Some(pattern) => Ok(format!("exec.allow has {:?}", pattern.text())),
            None => Err("no pattern of exec.allow covers it".into()),
        }
    }
}

/// What an allow pattern may call the program: as it was asked for, and the file that a bare name means.
fn identities(program: &str) -> Vec<String> {
    let mut names = vec![program.to_owned()];
    if !program.contains('/') {
        names.extend(find_program(program).map(|path| path.to_string_lossy().into_owned()));
    }
    names
}

/// What a deny pattern may call it: also its last part, and the file behind its links.
fn spellings(program: &str) -> Vec<String> {
    let mut names = identities(program);
    let found = if program.contains('/') { Some(PathBuf::from(program)) } else { find_program(program) };
    let real = found.as_deref().and_then(|path| path.canonicalize().ok());
    for path in found.iter().chain(real.iter()) {
        names.push(path.to_string_lossy().into_owned());
        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    names
}

/// The executable a bare name means.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    SEARCH_PATH.split(':').map(|folder| Path::new(folder).join(OsStr::from_bytes(name.as_bytes()))).find(executable)
}
