//! How the master's log lines look: one record per line on standard error, whatever agents, users and files called
//! themselves (SECURITY R58). Must not decide what is logged.

use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, MakeWriter, format},
};

use crate::{
    config::{Log, LogFormat},
    foreign,
};

/// Starts logging for this process, once.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).with_context(|| format!("log.filter {:?}", log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let started = match log.format {
        LogFormat::Text => {
            let builder = builder.fmt_fields(fields()).with_ansi(io::stderr().is_terminal());
            builder.with_writer(io::stderr).try_init()
        }
        LogFormat::Json => builder.json().with_writer(Json(io::stderr)).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}

/// The message, then `name=value`; what is foreign in either is written out rather than obeyed.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let one = |writer: &mut format::Writer<'_>, field: &Field, value: &dyn std::fmt::Debug| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", foreign::plain(&value)),
            name => write!(writer, "{name}={}", foreign::plain(&value)),
        }
    };
    format::debug_fn(one).delimited(" ")
}

/// A writer of JSON lines. JSON escapes what would end a line; this escapes the rest that a terminal would obey.
#[derive(Clone)]
struct Json<M>(M);

struct JsonLine<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Json<M> {
    type Writer = JsonLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonLine(self.0.make_writer())
    }
}

impl<W: Write> Write for JsonLine<W> {
    /// Takes everything at once: a record comes in one piece.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(foreign::plain_json(line).as_bytes())?;
        self.0.write_all(b"\n")?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::foreign::CORPUS;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Foreign text in every place of a record: message, displayed, debugged, as an error, in a span.
    fn say(text: &str) {
        let error = io::Error::other(text.to_owned());
        let span = tracing::info_span!("line", agent = %text);
        let _in = span.enter();
        tracing::info!(name = %text, shown = text, debugged = ?text, error = &error as &dyn std::error::Error, "{text}");
    }

    fn logged(subscriber: impl tracing::Subscriber + Send + Sync, kept: &Kept) -> String {
        tracing::subscriber::with_default(subscriber, || CORPUS.iter().for_each(|text| say(text)));
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn foreign_text_stays_in_its_line_of_text() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().fmt_fields(fields()).with_ansi(false);
        let text = logged(subscriber.with_writer(move || writer.clone()).finish(), &kept);
        assert_eq!(text.lines().count(), CORPUS.len(), "{text}");
        for line in text.lines() {
            assert_eq!(foreign::plain(line), line);
            assert!(line.contains("INFO") && line.contains("name="), "{line}");
        }
    }

    #[test]
    fn foreign_text_stays_in_its_line_of_json() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().json();
        let text = logged(subscriber.with_writer(Json(move || writer.clone())).finish(), &kept);
        assert_eq!(text.lines().count(), CORPUS.len());
        for (line, said) in text.lines().zip(CORPUS) {
            assert_eq!(foreign::plain(line), line);
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["fields"]["name"], said);
        }
    }
}
