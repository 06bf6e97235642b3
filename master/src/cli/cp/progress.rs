//! How far a copy is: one bar on the terminal of the operator, and the sums for the end.

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output;

const REDRAWN_EVERY: Duration = Duration::from_millis(100);

/// The whole copy. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on standard error, if that is a terminal and the operator wants it.
    pub(super) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::new(0);
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else if let Ok(style) = ProgressStyle::with_template(
            "{bytes:>10} of {total_bytes:10} {bar:24} {binary_bytes_per_sec:>12} {eta:>4} left  {wide_msg}",
        ) {
            bar.set_style(style.progress_chars("=> "));
            bar.enable_steady_tick(REDRAWN_EVERY);
        }
        Self { bar }
    }

    /// Bytes that are to move, beside those known before.
    pub(super) fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// A file turned out to be of another size.
    pub(super) fn expect_change(&self, known: u64, now: u64) {
        self.bar.inc_length(now);
        self.bar.dec_length(known);
    }

    /// A line above the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| output::say(&output::plain_lines(text)));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// One file of it.
    pub(super) fn file(&self, name: String) -> Meter {
        self.bar.set_message(output::plain(&name));
        Meter { bar: self.bar.clone(), at: Arc::default() }
    }
}

/// Where one file stands. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    bar: ProgressBar,
    at: Arc<AtomicU64>,
}

impl Meter {
    /// So many bytes of the file are there, by whichever attempt.
    pub(super) fn stands_at(&self, offset: u64) {
        let before = self.at.swap(offset, Ordering::Relaxed);
        if offset >= before { self.bar.inc(offset - before) } else { self.bar.dec(before - offset) }
    }

    pub(super) fn moved(&self, bytes: usize) {
        self.at.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bar.inc(bytes as u64);
    }

    pub(super) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_attempt_is_not_counted_twice() {
        let progress = Progress::new(true);
        progress.expect(10);
        let file = progress.file("f".into());
        file.moved(7);
        file.stands_at(4);
        file.moved(6);
        assert_eq!((progress.bar.position(), progress.bar.length(), file.at()), (10, Some(10), 10));
    }
}
