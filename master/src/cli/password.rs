//! Asking for a password: unseen on a terminal, or one line of standard input for scripts. Never from the command line,
//! where others read it.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::Context as _;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::UsageError;

/// Longest line read, bytes.
const LINE_MAX: u64 = 4096;

/// A terminal that does not show what is typed. Dropping it shows it again.
struct Unseen(Termios);

impl Unseen {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &unseen)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        eprintln!();
    }
}

/// A new password: asked for twice where somebody types it.
pub(super) fn new_password(name: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let first = ask(&format!("New password for {name} (at least 10 characters): "))?;
    if ask("The same again: ")? != first {
        return Err(UsageError("the two differ; nothing was done".to_owned()).into());
    }
    Ok(first)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    let _unseen = Unseen::enter().context("cannot use this terminal")?;
    let mut out = io::stderr();
    out.write_all(prompt.as_bytes()).and_then(|()| out.flush())?;
    line()
}

fn line() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(LINE_MAX).read_line(&mut text).context("no password on standard input")?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(UsageError("no password was given; type it, or send it on standard input".to_owned()).into());
    }
    Ok(password.to_owned())
}
