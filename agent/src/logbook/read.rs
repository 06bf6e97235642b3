//! Reading the log: the lines of both chains in the order of their times, and those that come while somebody looks. Needs
//! no running agent, and changes nothing.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    Entry,
    chain::segments,
    line::{Kind, Line},
};

/// A line as it stands, and what it says.
#[derive(Debug, Clone)]
pub struct Shown {
    pub line: Line,
    pub entry: Entry,
}

/// Reads a log from a point on. Each call gives what is new since the one before.
#[derive(Debug)]
pub struct Reader {
    chains: [Tail; 2],
}

/// One chain, and how far it was read.
#[derive(Debug)]
struct Tail {
    dir: PathBuf,
    kind: Kind,
    /// The file that was read last, by the number of its first line, and the bytes of it that were.
    at: (u64, u64),
}

impl Reader {
    pub fn new(dir: &Path) -> Self {
        Self { chains: Kind::ALL.map(|kind| Tail { dir: dir.to_owned(), kind, at: (0, 0) }) }
    }

    /// What is new, the latest `last` of it. Lines that cannot be read are left to `verify`.
    pub fn news(&mut self, last: usize) -> io::Result<Vec<Shown>> {
        let [acts, traffic] = &mut self.chains;
        let (acts, traffic) = (acts.news(last)?, traffic.news(last)?);
        let mut all: Vec<_> = acts.into_iter().chain(traffic).collect();
        // Stable: within a chain its own order counts, whatever the machine's clock did.
        all.sort_by_key(|shown| shown.entry.at);
        Ok(all.split_off(all.len().saturating_sub(last)))
    }
}

impl Tail {
    fn news(&mut self, last: usize) -> io::Result<VecDeque<Shown>> {
        let mut found = VecDeque::new();
        for (first, path) in segments(&self.dir, self.kind)? {
            if first < self.at.0 {
                continue;
            }
            let from = if first == self.at.0 { self.at.1 } else { 0 };
            match File::open(&path) {
                Ok(file) => self.at = (first, read(file, from, last, &mut found)?),
                // Rotation took it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Reads whole lines; gives where they end.
fn read(mut file: File, from: u64, last: usize, found: &mut VecDeque<Shown>) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let (mut reader, mut at, mut bytes) = (BufReader::new(file), from, Vec::new());
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        if bytes.last() != Some(&b'\n') {
            return Ok(at);
        }
        at += read as u64;
        if let Some(shown) = Line::parse(&bytes).and_then(shown) {
            if found.len() == last {
                found.pop_front();
            }
            found.push_back(shown);
        }
    }
}

fn shown(line: Line) -> Option<Shown> {
    let entry = serde_json::from_str(&line.body).ok()?;
    Some(Shown { line, entry })
}
