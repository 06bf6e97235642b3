//! How the command line prints: tables for people, JSON for programs. Must not call the API.

use std::{
    io::{self, Write},
    path::Path,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{api::dto::Time, foreign};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// Prints `value` as JSON, or what `table` makes of it.
pub(crate) fn print<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T) -> String) -> io::Result<()> {
    match format {
        Format::Json => line(&serde_json::to_string_pretty(value).map_err(io::Error::other)?),
        Format::Table => line(&table(value)),
    }
}

/// One line on stdout, written at once. A reader that went away is not an error of ours.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A plain table: no frames, so that `awk` finds its columns.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Text of agents is foreign: what could drive the terminal is shown, never sent to it.
pub(crate) fn plain(text: &str) -> String {
    foreign::plain(text).into_owned()
}

/// The same for a text that may have several lines, such as an error with what others said in it.
pub(crate) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// The same of a path.
pub(crate) fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

/// One line on standard error. That nobody reads it is no reason to fail differently.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A value, or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// How far a time lies from now: `12s ago`, `in 29m`.
pub(crate) fn relative(time: Option<&Time>, now_ms: i64) -> String {
    let Some(ms) = time.and_then(Time::ms) else { return "-".to_owned() };
    let seconds = now_ms.saturating_sub(ms) / 1000;
    if seconds >= 0 { format!("{} ago", span(seconds)) } else { format!("in {}", span(-seconds)) }
}

fn span(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// `30s`, `30m`, `2h`, `1d`, or plain seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3_600),
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let wrong = || format!("{text:?} is no duration; write for example 90s, 30m or 2h");
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_seconds("30m"), Ok(1800));
        assert_eq!(parse_seconds("90"), Ok(90));
        for bad in ["", "m", "0s", "-1s", "1w", "99999999d"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spans_and_bytes() {
        assert_eq!(relative(Some(&Time::from_ms(0)), 61_000), "1m ago");
        assert_eq!(relative(Some(&Time::from_ms(61_000)), 0), "in 1m");
        assert_eq!((bytes(1023), bytes(1536)), ("1023 B".into(), "1.5 KiB".into()));
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
