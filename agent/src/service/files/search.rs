//! Finding files by their names and lines by what they say. Binary files are passed over, long lines cut.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

use globset::GlobBuilder;
use proto::{
    code::Code,
    file::{FileDone, FileKind, FileName, FilePath, GrepLine},
};
use regex::bytes::{Regex, RegexBuilder};
use rustix::fs::OFlags;

use super::{
    Access, FileError, Links, Roots,
    out::Out,
    place::open_plain,
    tree::{self, Met, bytes_of, entry},
};
use crate::platform::users;

/// Memory that a pattern may be compiled to, bytes.
const PATTERN_MAX: usize = 1 << 20;
/// Longest part of a line that is looked at, bytes.
const LINE_MAX: u64 = 1 << 20;
/// Longest part of a line that is told, bytes.
const SHOWN_MAX: usize = 2048;
/// A file with a NUL in its first bytes is no text.
const HEAD: usize = 8192;

pub(super) fn names(
    roots: &Roots,
    path: &FilePath,
    pattern: &str,
    limit: u32,
    out: &Out,
) -> Result<FileDone, FileError> {
    let bad = |error: globset::Error| FileError::new(Code::INVALID, format!("the pattern: {error}"));
    let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(bad)?.compile_matcher();
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let top = place.open_dir().map_err(|error| error.at(place.path()))?;
    let users = users::names();
    let mut done = FileDone::default();
    let walked = tree::walk(&top, place.sealed(), &mut |met| {
        out.go_on()?;
        match met {
            // A pattern with a slash is of the whole path, one without of the name.
            Met::Found(found)
                if glob.is_match(if pattern.contains('/') { found.path.as_os_str() } else { found.name }) =>
            {
                if done.files == u64::from(limit) {
                    done.more = true;
                    return Err(enough());
                }
                done.files += 1;
                out.entry(entry(found.dir, found.name, bytes_of(found.path), found.stat, &users))
            }
            Met::Found(_) | Met::Left(_) => Ok(()),
            Met::Unreadable(..) => {
                done.skipped += 1;
                Ok(())
            }
        }
    });
    ended(walked, done)
}

pub(super) fn lines(
    roots: &Roots,
    path: &FilePath,
    pattern: &str,
    ignore_case: bool,
    limit: u32,
    out: &Out,
) -> Result<FileDone, FileError> {
    let bad = |error: regex::Error| FileError::new(Code::INVALID, format!("the pattern: {error}"));
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .size_limit(PATTERN_MAX)
        .dfa_size_limit(PATTERN_MAX)
        .build()
        .map_err(bad)?;
    let place = roots.locate(path, Access::Read, Links::Follow)?;
    let at = |error: FileError| error.at(place.path());
    let mut search = Search { regex, left: limit, done: FileDone::default(), out };
    if tree::kind(&place.stat().map_err(at)?) != FileKind::Folder {
        let walked = search.file(place.open_read().map_err(at)?, &[]);
        return ended(walked, search.done);
    }
    let top = place.open_dir().map_err(at)?;
    let walked = tree::walk(&top, place.sealed(), &mut |met| match met {
        Met::Found(found) if tree::kind(found.stat) == FileKind::File => {
            match open_plain(found.dir, found.name, OFlags::RDONLY) {
                Ok(file) => search.file(file, &bytes_of(found.path)),
                Err(_) => {
                    search.done.skipped += 1;
                    Ok(())
                }
            }
        }
        Met::Found(_) | Met::Left(_) => Ok(()),
        Met::Unreadable(..) => {
            search.done.skipped += 1;
            Ok(())
        }
    });
    ended(walked, search.done)
}

struct Search<'a> {
    regex: Regex,
    left: u32,
    done: FileDone,
    out: &'a Out,
}

impl Search<'_> {
    fn file(&mut self, file: File, name: &[u8]) -> Result<(), FileError> {
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let Ok(head) = reader.fill_buf() else {
            self.done.skipped += 1;
            return Ok(());
        };
        if head[..head.len().min(HEAD)].contains(&0) {
            return Ok(());
        }
        self.done.files += 1;
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            self.out.go_on()?;
            line.clear();
            let Ok(read) = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) else {
                self.done.skipped += 1;
                return Ok(());
            };
            if read == 0 {
                return Ok(());
            }
            number += 1;
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            if !self.regex.is_match(&line) {
                continue;
            }
            if self.left == 0 {
                self.done.more = true;
                return Err(enough());
            }
            self.left -= 1;
            self.done.bytes += 1;
            let text = line[..line.len().min(SHOWN_MAX)].to_vec();
            self.out.line(GrepLine { name: FileName(name.to_vec()), number, text })?;
        }
    }
}

/// Ends a walk that has found what was asked for.
fn enough() -> FileError {
    FileError::new(Code::DONE, "")
}

fn ended(walked: Result<(), FileError>, done: FileDone) -> Result<FileDone, FileError> {
    match walked {
        Err(error) if error.code == Code::DONE => Ok(done),
        Err(error) => Err(error),
        Ok(()) => Ok(done),
    }
}
