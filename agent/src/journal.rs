//! What was taken and what runs, on disk: a request is written down before it starts, so that it never starts twice, and
//! so that the next start of a killed agent finds what the last one left behind. Append-only lines, rewritten when they
//! grow. Blocks on the disk: callers on the runtime go through `spawn_blocking`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::{failpoint, id::RequestId};

use crate::platform::ProcessMark;

/// Taken ids are kept this long, milliseconds of the master's time: many times what a replay could use.
const KEEP_MS: i64 = 10 * 60 * 1000;
/// The file is rewritten when it grew by this much, bytes.
const REWRITE_AFTER: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal folder cannot be used")]
    State(#[from] certs::state::StateError),
    #[error("the journal {path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("the journal cannot be written")]
    Write(#[from] io::Error),
}

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    grown: u64,
    /// The last line may be half written; the next one starts afresh behind it.
    torn: bool,
    entries: BTreeMap<RequestId, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    at_ms: i64,
    process: Option<ProcessMark>,
    ended: bool,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Ids that must not run again, with the master's time when they were taken.
    pub taken: crate::freshness::Taken,
    /// Requests that began and are not known to have ended.
    pub leftovers: Vec<Leftover>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub id: RequestId,
    /// `None`: it is not known whether it was started.
    pub process: Option<ProcessMark>,
}

impl Journal {
    /// Reads what is there. Leftovers stay in the journal until [`ended`](Self::ended) says that they are gone.
    pub fn open(dir: &Path) -> Result<(Self, Recovered), JournalError> {
        certs::state::open_dir(dir)?;
        let path = dir.join("requests");
        let mut entries = match certs::state::read_secret(&path)? {
            Some(bytes) => replay(&String::from_utf8_lossy(&bytes)),
            None => BTreeMap::new(),
        };
        forget_old(&mut entries);
        let recovered = Recovered {
            taken: entries.iter().map(|(id, entry)| (*id, entry.at_ms)).collect(),
            leftovers: entries
                .iter()
                .filter(|(_, entry)| !entry.ended)
                .map(|(id, entry)| Leftover { id: *id, process: entry.process.clone() })
                .collect(),
        };
        let (file, torn) = match rewrite(&path, &entries) {
            Ok(file) => (file, false),
            Err(error) => {
                // A full disk must not keep the agent away: forwards need no journal, and what does is refused singly.
                tracing::error!(error = &error as &dyn std::error::Error, "the journal was not rewritten; disk full?");
                (append_to(&path)?, true)
            }
        };
        Ok((Self { path, inner: Mutex::new(Inner { file, grown: 0, torn, entries }) }, recovered))
    }

    /// Writes down that a request was taken at the master's time `at_ms`. On disk when this returns.
    pub fn begin(&self, id: RequestId, at_ms: i64) -> Result<(), JournalError> {
        self.append(id, Entry { at_ms, process: None, ended: false })
    }

    /// Writes down which process group serves it. On disk when this returns.
    pub fn started(&self, id: RequestId, process: ProcessMark) -> Result<(), JournalError> {
        let Some(entry) = self.lock().entries.get(&id).cloned() else { return Ok(()) };
        self.append(id, Entry { process: Some(process), ..entry })
    }

    /// It is over. A line lost to a crash costs one needless search at the next start.
    pub fn ended(&self, id: RequestId) -> Result<(), JournalError> {
        let Some(entry) = self.lock().entries.get(&id).cloned() else { return Ok(()) };
        self.append(id, Entry { ended: true, ..entry })
    }

    fn append(&self, id: RequestId, entry: Entry) -> Result<(), JournalError> {
        let operation = match &entry {
            Entry { ended: true, .. } => "journal.ended",
            Entry { process: Some(_), .. } => "journal.started",
            Entry { process: None, .. } => "journal.begun",
        };
        let mut inner = self.lock();
        failpoint::at(operation, "before_write");
        let line = format!("{}{}", if inner.torn { "\n" } else { "" }, line(id, &entry));
        // A full disk takes half a line and then fails.
        inner.torn = true;
        inner.file.write_all(line.as_bytes())?;
        failpoint::at(operation, "before_sync");
        if !entry.ended {
            inner.file.sync_data()?;
        }
        failpoint::at(operation, "written");
        inner.torn = false;
        inner.grown += line.len() as u64;
        inner.entries.insert(id, entry);
        if inner.grown > REWRITE_AFTER {
            forget_old(&mut inner.entries);
            inner.file = rewrite(&self.path, &inner.entries)?;
            inner.grown = 0;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `id at_ms ended pgid start_time boot_id`, the last three `-` while unknown. The last line of an id counts.
fn line(id: RequestId, entry: &Entry) -> String {
    let process = match &entry.process {
        Some(mark) => format!("{} {} {}", mark.group, mark.start_time, mark.boot_id),
        None => "- - -".into(),
    };
    format!("{id} {} {} {process}\n", entry.at_ms, u8::from(entry.ended))
}

/// A torn last line was never acknowledged, so it is left out; anything else that does not parse is left out, too.
fn replay(text: &str) -> BTreeMap<RequestId, Entry> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(read_line).collect()
}

fn read_line(text: &str) -> Option<(RequestId, Entry)> {
    let mut words = text.split(' ');
    let mut word = || words.next();
    let (id, at_ms, ended) = (word()?.parse().ok()?, word()?.parse().ok()?, word()? == "1");
    let process = match (word()?, word()?, word()?) {
        ("-", "-", "-") => None,
        (group, start_time, boot_id) => Some(ProcessMark {
            group: group.parse().ok()?,
            start_time: start_time.parse().ok()?,
            boot_id: boot_id.to_owned(),
        }),
    };
    Some((id, Entry { at_ms, process, ended }))
}

/// Measured against the latest request, not against a clock: none can be trusted at start.
fn forget_old(entries: &mut BTreeMap<RequestId, Entry>) {
    let latest = entries.values().map(|entry| entry.at_ms).max().unwrap_or(0);
    entries.retain(|_, entry| !entry.ended || entry.at_ms >= latest.saturating_sub(KEEP_MS));
}

fn rewrite(path: &Path, entries: &BTreeMap<RequestId, Entry>) -> Result<File, JournalError> {
    let mut text = String::new();
    for (id, entry) in entries {
        let _ = text.write_str(&line(*id, entry));
    }
    certs::state::write_secret(path, text.as_bytes())?;
    append_to(path)
}

fn append_to(path: &Path) -> Result<File, JournalError> {
    let open = OpenOptions::new().append(true).open(path);
    open.map_err(|source| JournalError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(group: i32) -> ProcessMark {
        ProcessMark { group, start_time: 77, boot_id: "boot-1".into() }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        (folder, dir)
    }

    #[test]
    fn what_began_is_taken_and_what_did_not_end_is_left_over() {
        let (_folder, dir) = folder();
        let (begun, started, ended) = (RequestId::random(), RequestId::random(), RequestId::random());
        let (journal, recovered) = Journal::open(&dir).unwrap();
        assert!(recovered.taken.is_empty() && recovered.leftovers.is_empty());
        for id in [begun, started, ended] {
            journal.begin(id, 1_000).unwrap();
        }
        journal.started(started, mark(42)).unwrap();
        journal.started(ended, mark(43)).unwrap();
        journal.ended(ended).unwrap();
        drop(journal);
        for _ in 0..2 {
            let (_, recovered) = Journal::open(&dir).unwrap();
            assert_eq!(recovered.taken.len(), 3, "reading changes nothing");
            assert_eq!(recovered.leftovers.len(), 2);
            assert!(recovered.leftovers.contains(&Leftover { id: begun, process: None }));
            assert!(recovered.leftovers.contains(&Leftover { id: started, process: Some(mark(42)) }));
        }
    }

    #[test]
    fn a_crash_at_any_byte_loses_nothing_that_was_acknowledged() {
        let (_folder, dir) = folder();
        let (first, second) = (RequestId::random(), RequestId::random());
        let (journal, _) = Journal::open(&dir).unwrap();
        journal.begin(first, 1_000).unwrap();
        let acknowledged = std::fs::read(dir.join("requests")).unwrap().len();
        journal.begin(second, 2_000).unwrap();
        drop(journal);
        let whole = std::fs::read(dir.join("requests")).unwrap();
        for cut in acknowledged..=whole.len() {
            certs::state::write_secret(&dir.join("requests"), &whole[..cut]).unwrap();
            let (_, recovered) = Journal::open(&dir).unwrap();
            let taken: Vec<_> = recovered.taken.iter().map(|(id, _)| *id).collect();
            assert!(taken.contains(&first), "cut at {cut}");
            assert_eq!(taken.contains(&second), cut == whole.len(), "cut at {cut}");
        }
    }

    #[test]
    fn what_follows_a_half_written_line_is_read() {
        let (_folder, dir) = folder();
        let (torn, next) = (RequestId::random(), RequestId::random());
        let (journal, _) = Journal::open(&dir).unwrap();
        let half = line(torn, &Entry { at_ms: 1, process: None, ended: false });
        journal.lock().file.write_all(&half.as_bytes()[..half.len() - 3]).unwrap();
        journal.lock().torn = true;
        journal.begin(next, 2).unwrap();
        drop(journal);
        let (_, recovered) = Journal::open(&dir).unwrap();
        assert_eq!(recovered.taken, [(next, 2)]);
    }

    #[test]
    fn it_stays_small() {
        let (_folder, dir) = folder();
        let (journal, _) = Journal::open(&dir).unwrap();
        let running = RequestId::random();
        journal.begin(running, 0).unwrap();
        journal.lock().grown = REWRITE_AFTER;
        journal.ended(running).unwrap();
        for at_ms in 1..100 {
            let id = RequestId::random();
            journal.begin(id, at_ms * KEEP_MS).unwrap();
            journal.ended(id).unwrap();
        }
        drop(journal);
        let (journal, recovered) = Journal::open(&dir).unwrap();
        assert_eq!(recovered.taken.len(), 2, "only the last minutes are kept");
        assert_eq!(journal.lock().entries.len(), 2);
    }
}
