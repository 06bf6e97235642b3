//! Output of one of many: whole lines, each under its agent's name, so that lines of two never mix.

use crate::cli::output::plain;

/// A line that is longer is broken, bytes: nobody's end of line is waited for.
const LINE_MAX: usize = 16 << 10;

/// One of the outputs of one agent.
#[derive(Debug)]
pub(super) struct Prefixed {
    prefix: String,
    rest: Vec<u8>,
    /// It goes to a terminal, which foreign bytes must not drive: one agent could write in another's name.
    plain: bool,
}

impl Prefixed {
    pub(super) fn new(prefix: &str, plain: bool) -> Self {
        Self { prefix: prefix.to_owned(), rest: Vec::new(), plain }
    }

    /// The lines that these bytes complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_MAX) {
                if self.rest.len() + part.len() > LINE_MAX {
                    shown.append(&mut self.end());
                }
                self.rest.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                shown.append(&mut self.end());
            }
        }
        shown
    }

    /// What is left, as a line.
    pub(super) fn end(&mut self) -> Vec<u8> {
        if self.rest.is_empty() {
            return Vec::new();
        }
        let line = std::mem::take(&mut self.rest);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let mut shown = self.prefix.clone().into_bytes();
        if self.plain {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
            shown.extend(text.split('\t').map(plain).collect::<Vec<_>>().join("\t").into_bytes());
        } else {
            shown.extend_from_slice(line);
        }
        shown.push(b'\n');
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_in_whatever_pieces_they_come() {
        let mut lines = Prefixed::new("a | ", false);
        let mut shown = lines.push(b"one\ntw");
        shown.extend(lines.push(b"o\n\n"));
        shown.extend(lines.push(b"three"));
        assert_eq!(shown, b"a | one\na | two\na | \n");
        assert_eq!(lines.end(), b"a | three\n");
        assert!(lines.end().is_empty());
    }

    #[test]
    fn an_endless_line_is_broken_and_complete() {
        let mut lines = Prefixed::new("", false);
        let long = vec![b'x'; 3 * LINE_MAX + 7];
        let mut shown = lines.push(&long);
        assert!(lines.rest.len() <= LINE_MAX);
        shown.extend(lines.end());
        assert_eq!(shown.iter().filter(|byte| **byte == b'x').count(), long.len());
    }

    #[test]
    fn on_a_terminal_no_agent_writes_in_anothers_name() {
        let mut lines = Prefixed::new("a | ", true);
        assert_eq!(lines.push(b"x\x1b[1A\rb |\ty\r\n"), b"a | x\\u{1b}[1A\\rb |\ty\n");
    }
}
