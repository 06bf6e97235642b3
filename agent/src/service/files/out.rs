//! What an operation has to say, from its thread to the stream: batched, bounded, and closed when nobody listens.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use proto::{
    code::Code,
    file::{Entry, FileDone, FromFile, GrepLine},
    limits::FILE_ITEMS_MAX,
};
use tokio::sync::mpsc;

use super::{FileError, last_word};

/// Bytes of names and lines in one frame: with one more of the longest it is still a frame.
const BATCH: usize = 32 * 1024;

/// The longest that an operation at work says nothing.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The way out of a thread.
#[derive(Debug)]
pub(super) struct Out {
    frames: mpsc::Sender<FromFile>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    entries: Vec<Entry>,
    lines: Vec<GrepLine>,
    bytes: usize,
    heard: Instant,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { entries: Vec::new(), lines: Vec::new(), bytes: 0, heard: Instant::now() }
    }
}

impl Out {
    pub(super) fn new(ahead: usize) -> (Self, mpsc::Receiver<FromFile>) {
        let (frames, receiver) = mpsc::channel(ahead);
        (Self { frames, waiting: Mutex::default() }, receiver)
    }

    /// Asked at every step. `Err` once nobody waits for the result: the operation ends.
    pub(super) fn go_on(&self) -> Result<(), FileError> {
        if self.frames.is_closed() {
            return Err(nobody());
        }
        let mut waiting = self.lock();
        if waiting.heard.elapsed() > SIGN_OF_LIFE {
            waiting.heard = Instant::now();
            // A full queue is a sign of life itself.
            let _ = self.frames.try_send(FromFile::Entries(Vec::new()));
        }
        Ok(())
    }

    pub(super) fn say(&self, frame: FromFile) -> Result<(), FileError> {
        self.flush()?;
        self.frames.blocking_send(frame).map_err(|_| nobody())
    }

    pub(super) fn entry(&self, entry: Entry) -> Result<(), FileError> {
        let bytes = entry.name.0.len() + entry.target.as_ref().map_or(0, |target| target.0.len()) + 64;
        self.batch(bytes, |waiting| waiting.entries.push(entry))
    }

    pub(super) fn line(&self, line: GrepLine) -> Result<(), FileError> {
        let bytes = line.name.0.len() + line.text.len() + 16;
        self.batch(bytes, |waiting| waiting.lines.push(line))
    }

    pub(super) fn last(&self, result: Result<FileDone, FileError>) {
        let _ = self.say(last_word(result));
    }

    fn batch(&self, bytes: usize, add: impl FnOnce(&mut Waiting)) -> Result<(), FileError> {
        let full = {
            let mut waiting = self.lock();
            add(&mut waiting);
            waiting.bytes += bytes;
            waiting.bytes >= BATCH || waiting.entries.len() + waiting.lines.len() >= FILE_ITEMS_MAX
        };
        if full { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), FileError> {
        let Waiting { entries, lines, .. } = std::mem::take(&mut *self.lock());
        if !entries.is_empty() {
            self.frames.blocking_send(FromFile::Entries(entries)).map_err(|_| nobody())?;
        }
        if !lines.is_empty() {
            self.frames.blocking_send(FromFile::Lines(lines)).map_err(|_| nobody())?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn nobody() -> FileError {
    FileError::new(Code::ABANDONED, "nobody waits for it any more")
}
