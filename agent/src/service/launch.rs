//! Starts processes: in a group of their own, with an environment that holds nothing of ours, as the user the policy
//! names. Does not watch them.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use proto::{id::RequestId, shell::Size};
use pty_process::Pty;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::{
    platform::{self, users, users::User},
    policy::SEARCH_PATH,
};

/// Names the request in the environment of everything it starts: it outlives the agent, and so finds leftovers.
pub(crate) const REQUEST_VARIABLE: &str = "LANDLINE_REQUEST_ID";
/// What of the agent's own environment is passed on.
const PASSED_ON: [&str; 2] = ["LANG", "TZ"];

/// What to start.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) id: RequestId,
    pub(super) argv: &'a [String],
    pub(super) cwd: Option<&'a Path>,
    pub(super) env: &'a [(String, String)],
    pub(super) run_as: Option<&'a str>,
    pub(super) stdin: bool,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("nothing to run")]
    Empty,
    #[error("the policy's user {0:?} does not exist on this machine")]
    NoUser(String),
    #[error("the policy wants it to run as {wanted}, which only root can do; this agent is {own}")]
    NotRoot { wanted: String, own: String },
    #[error("the working directory {} does not exist", .0.display())]
    NoFolder(PathBuf),
    #[error("cannot start {program:?}: {source}")]
    Spawn { program: String, source: io::Error },
}

/// A process group. Dropping it kills every member, unless it was [`released`](Self::release).
#[derive(Debug)]
pub(super) struct Group {
    number: i32,
    released: bool,
}

impl Group {
    pub(super) fn signal(&self, signal: Signal) {
        platform::signal_group(self.number, signal);
    }

    /// What still runs in it may live on: it let go of its output by itself.
    pub(super) fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.released {
            self.signal(Signal::KILL);
        }
    }
}

pub(super) fn launch(launch: &Launch<'_>) -> Result<(Child, Group), LaunchError> {
    let program = launch.argv.first().ok_or(LaunchError::Empty)?;
    let user = user(launch.run_as)?;
    let mut command = prepare(launch, program, user.as_ref())?;
    command.process_group(0);
    command.stdin(if launch.stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| LaunchError::Spawn { program: program.clone(), source })?;
    let number = number_of(&child);
    Ok((child, Group { number, released: false }))
}

/// What to start on a terminal besides: no `argv` is the user's login shell.
#[derive(Debug)]
pub(super) struct OnTerminal<'a> {
    pub(super) term: &'a str,
    pub(super) size: Size,
}

/// Starts a program as the leader of a session of its own, on a new terminal that is its user's. Nothing kills it when
/// the handles are dropped but the hang-up of the terminal.
pub(super) fn launch_on_terminal(launch: &Launch<'_>, on: &OnTerminal<'_>) -> Result<(Child, Pty), LaunchError> {
    let user = user(launch.run_as)?;
    let shell = user.as_ref().map_or(users::PLAIN_SHELL, User::login_shell).to_owned();
    let program = launch.argv.first().unwrap_or(&shell);
    let failed = |source: io::Error| LaunchError::Spawn { program: program.clone(), source };
    let (pty, pts) = pty_process::open().map_err(|error| failed(plain(error)))?;
    pty.resize(pty_process::Size::new(on.size.rows, on.size.cols)).map_err(|error| failed(plain(error)))?;
    let mut command = prepare(launch, program, user.as_ref())?;
    if launch.argv.is_empty() {
        // The dash tells a shell that it is a login shell.
        let name = Path::new(&shell).file_name().unwrap_or_default().to_string_lossy();
        command.arg0(format!("-{name}"));
    }
    if !on.term.is_empty() {
        command.env("TERM", on.term);
    }
    if let Some(user) = user.as_ref().filter(|user| user.uid != rustix::process::geteuid().as_raw()) {
        let owner = rustix::fs::Uid::from_raw(user.uid);
        rustix::fs::fchown(&pts, Some(owner), None).map_err(|error| failed(error.into()))?;
    }
    let child = pty_process::Command::from(command).spawn(pts).map_err(|error| failed(plain(error)))?;
    Ok((child, pty))
}

fn plain(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
        other => io::Error::other(other.to_string()),
    }
}

fn user(run_as: Option<&str>) -> Result<Option<User>, LaunchError> {
    match run_as {
        Some(name) => users::find(name).map(Some).ok_or_else(|| LaunchError::NoUser(name.to_owned())),
        None => Ok(users::current()),
    }
}

fn prepare(launch: &Launch<'_>, program: &str, user: Option<&User>) -> Result<Command, LaunchError> {
    let mut command = Command::new(program);
    command.args(launch.argv.get(1..).unwrap_or_default()).kill_on_drop(true);
    become_user(&mut command, user, users::current().as_ref())?;
    set_environment(&mut command, user, launch);
    command.current_dir(folder(launch.cwd, user)?);
    Ok(command)
}

fn number_of(child: &Child) -> i32 {
    child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
}

fn become_user(command: &mut Command, user: Option<&User>, own: Option<&User>) -> Result<(), LaunchError> {
    let Some(user) = user else { return Ok(()) };
    if own.is_some_and(|own| own.uid == user.uid) {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        let own = own.map_or_else(|| "nobody it knows".into(), |own| own.name.clone());
        return Err(LaunchError::NotRoot { wanted: user.name.clone(), own });
    }
    // With another user id the standard library drops root's supplementary groups as well.
    command.uid(user.uid).gid(user.gid);
    Ok(())
}

fn set_environment(command: &mut Command, user: Option<&User>, launch: &Launch<'_>) {
    command.env_clear().env("PATH", SEARCH_PATH).env(REQUEST_VARIABLE, launch.id.to_string());
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(user) = user {
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
        command.env("SHELL", user.login_shell());
    }
    // The request id is ours: a caller's variable of that name would hide leftovers.
    command.envs(launch.env.iter().filter(|(name, _)| name != REQUEST_VARIABLE).map(|(name, value)| (name, value)));
}

/// The folder asked for, else the user's home, else the root. Only one that was asked for must exist.
fn folder(wanted: Option<&Path>, user: Option<&User>) -> Result<PathBuf, LaunchError> {
    if let Some(wanted) = wanted {
        return if wanted.is_dir() { Ok(wanted.to_owned()) } else { Err(LaunchError::NoFolder(wanted.to_owned())) };
    }
    let home = user.map(|user| user.home.clone()).filter(|home| home.is_dir());
    Ok(home.unwrap_or_else(|| "/".into()))
}
