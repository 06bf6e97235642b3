//! One operation from its start to its end, as the log has it. Whatever becomes of the operation, an end is written.

use std::fmt::Display;

use proto::{code::Code, open::Open};

use super::{Entry, Kind, LogError, Logbook};

/// An operation that was let in. Dropping it writes that it was abandoned, unless its end was told.
#[derive(Debug)]
pub struct Running {
    logbook: Logbook,
    kind: Kind,
    entry: Entry,
    begun: std::time::Instant,
    over: bool,
}

impl Running {
    /// What has effects is written down before it starts, and must not start after an error. What has none gets one line,
    /// at its end.
    pub async fn begin(
        logbook: &Logbook,
        kind: Kind,
        open: &Open,
        master_ms: i64,
        verdict: &str,
    ) -> Result<Self, LogError> {
        let mut entry = Entry::of(open, master_ms).verdict(verdict);
        let begun = std::time::Instant::now();
        if kind == Kind::Acts {
            logbook.write(kind, entry.moment("start")).await?;
            // The end need not say it all again.
            entry = Entry { target: String::new(), verdict: String::new(), detail: String::new(), ..entry };
        }
        Ok(Self { logbook: logbook.clone(), kind, entry, begun, over: false })
    }

    /// It ended: with a code's word, or as a program ends. `detail` is in addition to what is known of it.
    pub fn ended(mut self, result: impl Display, detail: &str) {
        self.end(result, detail);
    }

    fn end(&mut self, result: impl Display, detail: &str) {
        self.over = true;
        let seconds = self.begun.elapsed().as_secs_f64();
        let parts = [self.entry.detail.as_str(), detail, &format!("{seconds:.1} s")];
        let detail = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let entry = match self.kind {
            Kind::Acts => self.entry.moment("end"),
            Kind::Traffic => Entry { at: jiff::Timestamp::now(), ..self.entry.clone() },
        };
        self.logbook.note(self.kind, entry.result(result).detail(detail));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            let code = if std::thread::panicking() { Code::INTERNAL } else { Code::ABANDONED };
            self.end(code, "");
        }
    }
}
