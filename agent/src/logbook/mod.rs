//! The agent's own log (SECURITY R26): what the master had it do, in two hash-chained files beside the identity. The master
//! has no message that reads or writes it. Entries go through a bounded queue to one writer: who does something with effects
//! waits until its start is written down, who only looks or carries bytes never waits. Lines, chains and reading have files
//! of their own.

mod chain;
mod entry;
mod line;
mod read;
mod running;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use certs::state::StateError;
use tokio::sync::{mpsc, oneshot};

use self::chain::Chain;
pub use self::{
    entry::{Entry, end, outcome},
    line::{Head, Kind, Line},
    read::{Reader, Shown},
    running::Running,
    verify::{Broken, Noted, Verdict, verify},
};

/// Entries that may wait for the disk. Further ones of those who do not wait are counted and told of later.
const QUEUE: usize = 1024;
/// Written in one go.
const BATCH: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the folder of the agent's own log cannot be used")]
    State(#[from] StateError),
    #[error("the agent's own log cannot be opened")]
    Open(#[source] io::Error),
    #[error("the agent's own log cannot be written; is its disk full?")]
    Write(#[from] io::Error),
    #[error("the agent's own log is closed")]
    Closed,
}

/// Where the log of a state folder lies.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("log")
}

/// Takes entries. Clones share the queue; the writer ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Logbook {
    queue: mpsc::Sender<Item>,
    missed: Arc<Missed>,
}

#[derive(Debug)]
struct Item {
    kind: Kind,
    entry: Entry,
    written: Option<oneshot::Sender<io::Result<()>>>,
}

/// How many entries of each chain were not written since the last one that was.
#[derive(Debug, Default)]
struct Missed([AtomicU64; 2]);

impl Missed {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Acts => &self.0[0],
            Kind::Traffic => &self.0[1],
        }
    }
}

/// Writes what comes through the queue; to be [`run`](Self::run).
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Item>,
    book: Book,
}

impl Logbook {
    /// Opens both chains, each with half of `max` bytes.
    pub fn open(state_dir: &Path, max: u64) -> Result<(Self, Writer), LogError> {
        let dir = folder(state_dir);
        certs::state::open_dir(&dir)?;
        let (acts, torn) = Chain::open(&dir, Kind::Acts, max / 2).map_err(LogError::Open)?;
        let (traffic, torn_traffic) = Chain::open(&dir, Kind::Traffic, max / 2).map_err(LogError::Open)?;
        let missed = Arc::<Missed>::default();
        let (sender, queue) = mpsc::channel(QUEUE);
        let logbook = Self { queue: sender, missed: missed.clone() };
        for (kind, torn) in [(Kind::Acts, torn), (Kind::Traffic, torn_traffic)] {
            if torn > 0 {
                let detail = format!("{torn} bytes of a line that an earlier run did not finish were cut off");
                logbook.note(kind, Entry::new("log.cut").detail(detail));
            }
        }
        Ok((logbook, Writer { queue, book: Book { acts, traffic, missed } }))
    }

    /// Writes it down soon; never waits. One that finds no room is counted, and the next line says how many there were.
    pub fn note(&self, kind: Kind, entry: Entry) {
        if self.queue.try_send(Item { kind, entry, written: None }).is_err() {
            self.missed.of(kind).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes it down: the system has it when this returns, so that no kill takes it away, and the disk soon after.
    pub async fn write(&self, kind: Kind, entry: Entry) -> Result<(), LogError> {
        let (written, answer) = oneshot::channel();
        let item = Item { kind, entry, written: Some(written) };
        self.queue.send(item).await.map_err(|_| LogError::Closed)?;
        Ok(answer.await.map_err(|_| LogError::Closed)??)
    }
}

impl Writer {
    /// Until every [`Logbook`] is gone and all it took is on the disk.
    pub async fn run(self) {
        let Self { mut queue, mut book } = self;
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let items = std::mem::take(&mut batch);
            let writing = tokio::task::spawn_blocking(move || {
                book.write(items);
                book
            });
            match writing.await {
                Ok(back) => book = back,
                // The runtime is going down.
                Err(_) => return,
            }
        }
    }
}

#[derive(Debug)]
struct Book {
    acts: Chain,
    traffic: Chain,
    missed: Arc<Missed>,
}

impl Book {
    fn write(&mut self, items: Vec<Item>) {
        let acts = items.iter().any(|item| item.kind == Kind::Acts);
        for Item { kind, entry, written } in items {
            let result = self.append(kind, &entry);
            if let Err(error) = &result {
                self.missed.of(kind).fetch_add(1, Ordering::Relaxed);
                tracing::error!(what = entry.what, %error, "the agent's own log was not written");
            }
            // Who asked may be gone.
            let _ = written.map(|written| written.send(result));
        }
        if acts && let Err(error) = self.acts.sync() {
            tracing::error!(%error, "the agent's own log may not be on the disk");
        }
    }

    fn append(&mut self, kind: Kind, entry: &Entry) -> io::Result<()> {
        let chain = match kind {
            Kind::Acts => &mut self.acts,
            Kind::Traffic => &mut self.traffic,
        };
        let missed = self.missed.of(kind).load(Ordering::Relaxed);
        if missed > 0 {
            chain.append(Entry::new("log.missed").detail(format!("{missed} lines could not be written")).body())?;
            self.missed.of(kind).fetch_sub(missed, Ordering::Relaxed);
        }
        chain.append(entry.body())
    }
}
