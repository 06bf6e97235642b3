//! The operator's own terminal: raw while a session has it, and as it was on every way out.

use std::io::{self, IsTerminal, Write};

use proto::shell::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What programs on the other side may have switched on and never off again: alternate screen, mouse, bracketed paste,
/// application keys, hidden cursor, colours.
const RESET: &[u8] = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[?25h\x1b[0m";

/// Raw mode. Dropping it, also while a panic unwinds, restores the terminal.
#[derive(Debug)]
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` where standard input is no terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let mut out = io::stdout();
        if out.is_terminal() {
            let _ = out.write_all(RESET).and_then(|()| out.flush());
        }
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Of the terminal on standard output, or the classic one where there is none.
pub(super) fn size() -> Size {
    let classic = Size { cols: 80, rows: 24 };
    match tcgetwinsize(io::stdout()) {
        Ok(size) => {
            let size = Size { cols: size.ws_col, rows: size.ws_row };
            if size.check().is_ok() { size } else { classic }
        }
        Err(_) => classic,
    }
}

/// `TERM`, if it is one.
pub(super) fn term() -> Option<String> {
    std::env::var("TERM").ok().filter(|term| !term.is_empty() && term.len() <= 64)
}
