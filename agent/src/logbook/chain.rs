//! A chain on disk: lines appended to the newest of a few files, the oldest file removed when there is one too many. Goes on
//! where the last run stopped. Blocks on the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::failpoint;

use super::line::{Head, Kind, Line};

/// Files of one chain. The bound of a chain is shared out among them.
pub(super) const SEGMENTS: usize = 4;

/// One chain, open for writing. One per folder and kind.
#[derive(Debug)]
pub(super) struct Chain {
    dir: PathBuf,
    kind: Kind,
    head: Head,
    segment: Segment,
    segment_max: u64,
}

/// The newest file.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    /// What was written to it; anything else is somebody else's work.
    size: u64,
}

/// The files of a chain, oldest first, by the number of their first line.
pub(super) fn segments(dir: &Path, kind: Kind) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(kind.word())?.strip_prefix('-'));
        if let Some(first) = number.and_then(|name| name.strip_suffix(".jsonl")?.parse().ok()) {
            found.push((first, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

impl Chain {
    /// Goes on behind the last whole line; one that a crash left half written is cut off, and how many bytes that were is
    /// said. `max` is of the whole chain, bytes.
    pub(super) fn open(dir: &Path, kind: Kind, max: u64) -> io::Result<(Self, u64)> {
        let segment_max = max / SEGMENTS as u64;
        let (mut head, mut newest, mut torn) = (Head::default(), None, 0);
        for (_, path) in segments(dir, kind)?.into_iter().rev() {
            let end = end_of(&path)?;
            if newest.is_none() {
                torn = end.torn;
                newest = Some(Segment { file: cut(&path, end.whole)?, path, size: end.whole });
            }
            if let Some(found) = end.head {
                head = found;
                break;
            }
        }
        let segment = match newest {
            Some(segment) => segment,
            None => create(dir, kind, head.seq + 1)?,
        };
        Ok((Self { dir: dir.to_owned(), kind, head, segment, segment_max }, torn))
    }

    /// Appends one line. It is the system's when this returns; see [`sync`](Self::sync) for the disk's. After an error
    /// nothing of it is there.
    pub(super) fn append(&mut self, body: String) -> io::Result<()> {
        let line = self.head.next(self.kind, body);
        let text = line.text();
        if self.segment.size > 0 && self.segment.size + text.len() as u64 > self.segment_max {
            self.rotate()?;
        }
        self.look_after()?;
        failpoint::here("log.before_write");
        if let Err(error) = self.segment.file.write_all(text.as_bytes()) {
            // A full disk takes half a line and then fails; what it took goes again.
            let _ = self.segment.file.set_len(self.segment.size);
            return Err(error);
        }
        failpoint::here("log.written");
        self.segment.size += text.len() as u64;
        self.head = line.head();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.segment.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        self.segment = create(&self.dir, self.kind, self.head.seq + 1)?;
        let all = segments(&self.dir, self.kind)?;
        for (_, path) in all.iter().take(all.len().saturating_sub(SEGMENTS)) {
            fs::remove_file(path)?;
        }
        File::open(&self.dir)?.sync_all()
    }

    /// A file that was taken away is begun anew: the gap stays to be seen. One that was shortened or lengthened is gone
    /// on with: the next line does not follow what stands there then.
    fn look_after(&mut self) -> io::Result<()> {
        let ours = self.segment.file.metadata()?;
        let there = fs::metadata(&self.segment.path).ok();
        if there.is_none_or(|there| there.ino() != ours.ino()) {
            tracing::error!(path = %self.segment.path.display(), "somebody took the agent's own log away");
            self.segment = create(&self.dir, self.kind, self.head.seq + 1)?;
        } else if ours.len() != self.segment.size {
            tracing::error!(path = %self.segment.path.display(), "somebody wrote to the agent's own log");
            self.segment.size = ours.len();
        }
        Ok(())
    }
}

/// How a file ends.
struct End {
    /// The last line that can be read.
    head: Option<Head>,
    /// Bytes up to the last newline, and behind it.
    whole: u64,
    torn: u64,
}

fn end_of(path: &Path) -> io::Result<End> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut end = End { head: None, whole: 0, torn: 0 };
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            return Ok(end);
        }
        if bytes.last() != Some(&b'\n') {
            end.torn = read;
            return Ok(end);
        }
        end.whole += read;
        end.head = Line::parse(&bytes).map(|line| line.head()).or(end.head);
    }
}

fn cut(path: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().append(true).open(path)?;
    file.set_len(size)?;
    Ok(file)
}

fn create(dir: &Path, kind: Kind, first: u64) -> io::Result<Segment> {
    let path = dir.join(format!("{}-{first:020}.jsonl", kind.word()));
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    let size = file.metadata()?.len();
    Ok(Segment { path, file, size })
}
