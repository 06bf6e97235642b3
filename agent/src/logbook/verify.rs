//! Verifying a chain: recomputes every hash from the oldest line that is kept to the newest. Changes nothing.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use super::{
    chain::{SEGMENTS, segments},
    line::{Head, Kind, Line},
};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No line was ever written.
    Empty,
    /// Every line from `first` to `last` holds. `hash` is that of `last`: noted elsewhere, it shows later that the chain up
    /// to there is still the same one.
    Whole {
        first: u64,
        last: u64,
        hash: String,
        /// Bytes of a last line that is not finished: being written, or left by a crash.
        unfinished: u64,
    },
    Broken(Broken),
}

/// The first place that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub seq: u64,
    pub file: PathBuf,
    /// Of the file, from 1.
    pub line: u64,
    pub why: &'static str,
}

/// A line whose hash somebody noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    pub chain: Kind,
    pub head: Head,
}

/// Recomputes one chain. A line that was noted has to be there as it was.
pub fn verify(dir: &Path, kind: Kind, noted: Option<&Noted>) -> io::Result<Verdict> {
    let files = segments(dir, kind)?;
    let mut walk = Walk {
        kind,
        noted: noted.filter(|noted| noted.chain == kind),
        first: None,
        head: Head::default(),
        unfinished: 0,
    };
    for (number, (_, path)) in files.iter().enumerate() {
        if let Some(broken) = walk.file(path, number == 0, files.len())? {
            return Ok(Verdict::Broken(broken));
        }
    }
    let last = files.last().map(|(_, path)| path.clone()).unwrap_or_else(|| dir.to_owned());
    Ok(walk.verdict(last))
}

struct Walk<'a> {
    kind: Kind,
    noted: Option<&'a Noted>,
    first: Option<u64>,
    head: Head,
    unfinished: u64,
}

impl Walk<'_> {
    fn file(&mut self, path: &Path, oldest: bool, files: usize) -> io::Result<Option<Broken>> {
        let mut reader = BufReader::new(File::open(path)?);
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes)?;
            if read == 0 {
                break;
            }
            let broken = |seq, why| Some(Broken { seq, file: path.to_owned(), line: number, why });
            if self.unfinished > 0 {
                return Ok(broken(self.head.seq + 1, "it begins in the middle of a line"));
            }
            if bytes.last() != Some(&b'\n') {
                self.unfinished = read as u64;
                continue;
            }
            let Some(line) = Line::parse(&bytes) else {
                return Ok(broken(self.head.seq + 1, "it is no line of a log"));
            };
            if oldest && number == 1 {
                self.head = line.before();
                // What rotation takes it takes from a full set of files.
                if line.seq > 1 && files < SEGMENTS {
                    return Ok(broken(line.seq, "the lines before it are missing, and not by rotation"));
                }
            }
            if let Some(why) = self.head.fault(&line, self.kind) {
                return Ok(broken(self.head.seq + 1, why));
            }
            if self.noted.is_some_and(|noted| noted.head.seq == line.seq && noted.head.hash != line.hash) {
                return Ok(broken(line.seq, "it is not the line whose hash was noted"));
            }
            self.first.get_or_insert(line.seq);
            self.head = line.head();
        }
        Ok(None)
    }

    fn verdict(self, file: PathBuf) -> Verdict {
        let broken = |seq, why| Verdict::Broken(Broken { seq, file: file.clone(), line: 0, why });
        match (self.first, self.noted) {
            (_, Some(noted)) if noted.head.seq > self.head.seq => {
                broken(self.head.seq + 1, "lines are missing at the end: a later one was noted")
            }
            (None, _) => Verdict::Empty,
            (Some(first), _) => {
                let Head { seq: last, hash } = self.head;
                Verdict::Whole { first, last, hash, unfinished: self.unfinished }
            }
        }
    }
}
