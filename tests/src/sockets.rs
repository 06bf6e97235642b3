//! What listens, as the kernel sees it.

use std::collections::BTreeSet;

/// Ports of `range` on which some socket listens on loopback, from /proc/net/tcp and tcp6.
pub fn listening(range: std::ops::RangeInclusive<u16>) -> BTreeSet<u16> {
    rows().filter(|row| row.state == "0A" && range.contains(&row.local)).map(|row| row.local).collect()
}

/// Whether the socket at `local` that talks to `remote` is open both ways.
pub fn established(local: u16, remote: u16) -> bool {
    rows().any(|row| row.state == "01" && (row.local, row.remote) == (local, remote))
}

struct Row {
    local: u16,
    remote: u16,
    state: String,
}

fn rows() -> impl Iterator<Item = Row> {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let text = ["/proc/net/tcp", "/proc/net/tcp6"].map(read).concat();
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    rows.into_iter()
}

/// `None` for a heading.
fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok();
    let (local, remote) = (port()?, port()?);
    Some(Row { local, remote, state: fields.next()?.to_owned() })
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}
