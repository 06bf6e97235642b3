//! What listens, as the kernel sees it.

use std::collections::BTreeSet;

/// Ports of `range` on which some socket listens on loopback, from /proc/net/tcp and tcp6.
pub fn listening(range: std::ops::RangeInclusive<u16>) -> BTreeSet<u16> {
    rows().filter(|row| row.state == "0A" && range.contains(&row.local)).map(|row| row.local).collect()
}

/// Bytes that wait in the socket at `local` for `remote`; `None` where it is not open both ways.
pub fn unsent(local: u16, remote: u16) -> Option<u64> {
    rows().find(|row| row.state == "01" && (row.local, row.remote) == (local, remote)).map(|row| row.unsent)
}

struct Row {
    local: u16,
    remote: u16,
    state: String,
    unsent: u64,
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
    let (state, queues) = (fields.next()?.to_owned(), fields.next()?);
    let unsent = u64::from_str_radix(queues.split(':').next()?, 16).ok()?;
    Some(Row { local, remote, state, unsent })
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}
