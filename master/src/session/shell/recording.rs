//! One recording on disk: written before anything is shown, each piece with one system call, so that a killed master
//! leaves a valid prefix. Knows the offset of the session's output up to which it is complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::{failpoint, id::ShellId, limits::SHELL_RING, ring::Ring, shell::Size};

use crate::session::cast::{self, Cast};

/// Where recordings of a data folder are; by month below it.
#[derive(Debug, Clone)]
pub struct RecordingDir(pub PathBuf);

/// A recording that is being written.
#[derive(Debug)]
pub(super) struct Recording {
    file: File,
    started_ms: i64,
    /// Output that is not written yet: an incomplete character.
    held: Vec<u8>,
    /// Output up to here is on record, or known to be lost.
    offset: u64,
    /// Bytes of the file up to the end of its last event.
    length: u64,
}

impl RecordingDir {
    pub fn path(&self, id: ShellId, started_ms: i64) -> PathBuf {
        let time = jiff::Timestamp::from_millisecond(started_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.0.join(time.strftime("%Y-%m").to_string()).join(format!("{id}.cast"))
    }

    /// Removes what ended before `before`, and then the oldest until the rest is within `max_total` bytes. Recordings of
    /// running sessions are touched with each piece and so are the youngest.
    pub fn prune(&self, before: std::time::SystemTime, max_total: u64) -> io::Result<usize> {
        let mut found = Vec::new();
        for month in entries(&self.0)? {
            for file in entries(&month)? {
                let metadata = fs::symlink_metadata(&file)?;
                found.push((metadata.modified()?, metadata.len(), file));
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        let mut removed = 0;
        for (modified, bytes, file) in found {
            if modified >= before && total <= max_total {
                break;
            }
            fs::remove_file(&file)?;
            total -= bytes;
            removed += 1;
        }
        Ok(removed)
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Recording {
    /// Writes the header: nothing was shown yet. Blocks on the disk.
    pub(super) fn create(path: &Path, started_ms: i64, size: Size, term: &str, title: &str) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        failpoint::here("recording.created");
        let header = cast::header(size, started_ms / 1000, term, title);
        if let Err(error) = file.write_all(header.as_bytes()).and_then(|()| file.sync_all()) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { file, started_ms, held: Vec::new(), offset: 0, length: header.len() as u64 })
    }

    /// Goes on where an earlier master was stopped: a torn last event goes, and the rest is counted. Also gives the latest
    /// output: whoever looked on has not seen all that was recorded.
    pub(super) fn resume(path: &Path, started_ms: i64) -> io::Result<(Self, Ring)> {
        let (mut reader, mut shown) = (cast::Reader::default(), Ring::new(SHELL_RING, 0));
        let (mut length, mut read, mut begun) = (0, 0, None);
        let mut lines = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            read += line.len() as u64;
            begun = reader.line(&String::from_utf8_lossy(&line)).map(|(_, event)| event).or(begun);
            line.clear();
            // An event of two lines counts when both are there.
            if reader.is_inside() {
                continue;
            }
            length = read;
            match begun.take() {
                Some(Cast::Output(bytes)) => shown.push(&bytes),
                Some(Cast::Lost(bytes)) => shown.skip_to(shown.end() + bytes),
                Some(Cast::Resize(_)) | None => {}
            }
        }
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(length)?;
        Ok((Self { file, started_ms, held: Vec::new(), offset: shown.end(), length }, shown))
    }

    /// Where to go on in the session's output.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn output(&mut self, bytes: &[u8], now_ms: i64) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let whole = cast::whole(&self.held);
        let piece: Vec<u8> = self.held.drain(..whole).collect();
        if piece.is_empty() { Ok(()) } else { self.write(Cast::Output(piece), now_ms) }
    }

    pub(super) fn lost(&mut self, bytes: u64, now_ms: i64) -> io::Result<()> {
        self.rest(now_ms)?;
        self.write(Cast::Lost(bytes), now_ms)
    }

    pub(super) fn resized(&mut self, size: Size, now_ms: i64) -> io::Result<()> {
        self.write(Cast::Resize(size), now_ms)
    }

    /// Writes what was held back; after the last output.
    pub(super) fn rest(&mut self, now_ms: i64) -> io::Result<()> {
        let rest = std::mem::take(&mut self.held);
        if rest.is_empty() { Ok(()) } else { self.write(Cast::Output(rest), now_ms) }
    }

    /// The end of it: what was held back, and all of it on the disk. Blocks on the disk.
    pub(super) fn finish(mut self, now_ms: i64) -> io::Result<()> {
        self.rest(now_ms)?;
        failpoint::here("recording.before_end");
        self.file.sync_all()?;
        failpoint::here("recording.after_end");
        Ok(())
    }

    /// Output that the line will bring again is not held twice.
    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }

    /// For whoever makes it durable meanwhile.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn write(&mut self, event: Cast, now_ms: i64) -> io::Result<()> {
        let seconds = now_ms.saturating_sub(self.started_ms).max(0) as f64 / 1000.0;
        let text = cast::event(seconds, &event);
        failpoint::here("recording.before_event");
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // Half an event would spoil what comes behind it.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        self.offset += counted([(seconds, event)]);
        Ok(())
    }
}

/// Runs what waits for the disk on a thread of its own: all lines of the fleet hang on the one that must not wait.
pub(super) async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn counted(events: impl IntoIterator<Item = (f64, Cast)>) -> u64 {
    let count = |event: Cast| match event {
        Cast::Output(bytes) => bytes.len() as u64,
        Cast::Lost(bytes) => bytes,
        Cast::Resize(_) => 0,
    };
    events.into_iter().map(|(_, event)| count(event)).sum()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use super::*;

    const SIZE: Size = Size { cols: 80, rows: 24 };

    fn create(dir: &Path) -> (PathBuf, Recording) {
        let path = RecordingDir(dir.to_owned()).path(ShellId::random(), 1_700_000_000_000);
        let recording = Recording::create(&path, 1_700_000_000_000, SIZE, "xterm", "t").unwrap();
        (path, recording)
    }

    #[test]
    fn it_is_private_and_goes_on_behind_its_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut recording) = create(folder.path());
        assert!(path.to_string_lossy().contains("/2023-11/"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        recording.output("grü".as_bytes(), 1_700_000_001_000).unwrap();
        recording.output(&"ß".as_bytes()[..1], 1_700_000_001_000).unwrap();
        assert_eq!(recording.offset(), 4, "half a character is not on record");
        recording.lost(10, 1_700_000_001_000).unwrap();
        assert_eq!(recording.offset(), 15);
        recording.output(b"\xff\xfe", 1_700_000_002_000).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let torn = folder.path().join("torn");
            fs::write(&torn, &whole[..cut]).unwrap();
            let (mut resumed, shown) = Recording::resume(&torn, 1_700_000_000_000).unwrap();
            assert!(resumed.offset() <= 17 && shown.end() == resumed.offset());
            resumed.output(b"x", 1_700_000_003_000).unwrap();
            let mut reader = cast::Reader::default();
            let replayed = counted(fs::read_to_string(&torn).unwrap().lines().filter_map(|line| reader.line(line)));
            assert_eq!(replayed, resumed.offset(), "cut at {cut}: what is on record is replayed");
        }
        let (resumed, shown) = Recording::resume(&path, 1_700_000_000_000).unwrap();
        assert_eq!((resumed.offset(), shown.start(), shown.read(15, 9)), (17, 15, b"\xff\xfe".to_vec()));
    }

    #[test]
    fn the_old_and_the_surplus_go() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RecordingDir(folder.path().to_owned());
        let paths: Vec<_> = (0..4).map(|_| create(folder.path()).0).collect();
        for (age, path) in paths.iter().enumerate() {
            let at = SystemTime::now() - Duration::from_secs(1_000 * (4 - age as u64));
            File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        }
        let bytes = fs::metadata(&paths[0]).unwrap().len();
        assert_eq!(dir.prune(SystemTime::now() - Duration::from_secs(3_500), u64::MAX).unwrap(), 1);
        assert_eq!(dir.prune(SystemTime::UNIX_EPOCH, 2 * bytes).unwrap(), 1);
        assert_eq!(paths.iter().map(|path| path.exists()).collect::<Vec<_>>(), [false, false, true, true]);
    }
}
