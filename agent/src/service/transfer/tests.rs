//! Transfers across a real line, with real files.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proto::{
    code::Code,
    file::FilePath,
    net::stream::FrameStream,
    open::{OpenReply, Operation},
    transfer::{FromWrite, ReadBegin, ReadEnd, ReadSpec, WriteSpec},
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::*;
use crate::{
    service::exec::Patience,
    testing::{Bench, PATIENCE, until},
};

struct World {
    bench: Bench,
    folder: TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    World { bench: Bench::start("allow_all = true", Patience::default()).await, folder }
}

/// Bytes that differ all over.
fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"a file").finalize_xof().fill(&mut bytes);
    bytes
}

fn done(created: bool, content: &[u8]) -> FromWrite {
    FromWrite::Done { created, blake3: *blake3::hash(content).as_bytes() }
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_spec(&self, name: &str, content: &[u8], offset: u64) -> WriteSpec {
        WriteSpec {
            path: file_path(&self.path(name)),
            offset,
            size: content.len() as u64,
            blake3: Some(*blake3::hash(content).as_bytes()),
            key: None,
            mode: None,
            modified_ns: None,
            ask: false,
        }
    }

    async fn open(&self, operation: Operation) -> Result<FrameStream, Code> {
        let (reply, stream) = self.bench.open(operation).await;
        match reply.unwrap() {
            OpenReply::Opened(_) => Ok(stream),
            OpenReply::Refused(refused) => Err(refused.code),
        }
    }

    /// Opens a write, sends `piece`, finishes, and gives what was held before and the last word.
    async fn send(&self, spec: WriteSpec, piece: &[u8]) -> (u64, FromWrite) {
        let mut stream = self.open(Operation::FileWrite(spec)).await.unwrap();
        let offset = match stream.read_within(PATIENCE).await.unwrap() {
            FromWrite::Ready { offset } => offset,
            last => return (0, last),
        };
        stream.send.write_chunk(Bytes::copy_from_slice(piece)).await.unwrap();
        stream.send.finish();
        (offset, stream.read_within(PATIENCE).await.unwrap())
    }

    async fn begin_read(&self, name: &str, offset: u64, length: Option<u64>) -> Result<(ReadBegin, FrameStream), Code> {
        let spec = ReadSpec { path: file_path(&self.path(name)), offset, length, whole: false };
        let mut stream = self.open(Operation::FileRead(spec)).await?;
        let begin: ReadBegin = stream.read_within(PATIENCE).await.unwrap();
        Ok((begin, stream))
    }

    fn parts(&self) -> Vec<PathBuf> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_string_lossy().ends_with(".part")).collect()
    }
}

fn file_path(path: &Path) -> FilePath {
    FilePath(path.as_os_str().as_encoded_bytes().to_vec())
}

async fn rest(begin: &ReadBegin, mut stream: FrameStream) -> (Vec<u8>, ReadEnd) {
    let mut got = vec![0; usize::try_from(begin.length).unwrap()];
    stream.recv.source_mut().read_exact(&mut got).await.unwrap();
    (got, stream.read_within(PATIENCE).await.unwrap())
}

#[tokio::test]
async fn a_file_is_read_whole_and_in_part() {
    let world = world().await;
    let content = bytes(3_000_001);
    std::fs::write(world.path("f"), &content).unwrap();
    let size = content.len() as u64;
    for (offset, length, wanted) in [
        (0, None, &content[..]),
        (1_000_000, None, &content[1_000_000..]),
        (7, Some(5), &content[7..12]),
        (size - 1, Some(100), &content[content.len() - 1..]),
        (size + 9, None, &[]),
    ] {
        let (begin, stream) = world.begin_read("f", offset, length).await.unwrap();
        assert_eq!((begin.size, begin.length), (size, wanted.len() as u64));
        let (got, end) = rest(&begin, stream).await;
        assert!(got == wanted, "other bytes from {offset}");
        assert_eq!(end, ReadEnd { changed: false, blake3: *blake3::hash(wanted).as_bytes() });
    }
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_is_told() {
    let world = world().await;
    let content = bytes(20 << 20);
    std::fs::write(world.path("f"), &content).unwrap();
    let (begin, stream) = world.begin_read("f", 0, None).await.unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(world.path("f")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"other", 0).unwrap();
    let (_, end) = rest(&begin, stream).await;
    assert!(end.changed);
    let (again, _) = world.begin_read("f", 0, None).await.unwrap();
    assert_ne!(again.version, begin.version);
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused_both_ways() {
    let world = world().await;
    rustix::fs::mknodat(rustix::fs::CWD, world.path("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    std::fs::create_dir(world.path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap();
    for name in ["pipe", "folder", "socket"] {
        assert_eq!(world.begin_read(name, 0, None).await.err(), Some(Code::NOT_A_FILE), "{name}");
        let write = Operation::FileWrite(world.write_spec(name, b"new", 0));
        assert_eq!(world.open(write).await.err(), Some(Code::NOT_A_FILE), "{name}");
    }
    assert_eq!(world.begin_read("none", 0, None).await.err(), Some(Code::NOT_FOUND));
    assert!(world.parts().is_empty());
}

#[tokio::test]
async fn a_file_is_written_replaced_and_loses_its_setuid() {
    let world = world().await;
    let (old, new) = (bytes(10), bytes(2_500_000));
    assert_eq!(world.send(world.write_spec("f", &old, 0), &old).await, (0, done(true, &old)));
    std::fs::set_permissions(world.path("f"), PermissionsExt::from_mode(0o4750)).unwrap();
    assert_eq!(world.send(world.write_spec("f", &new, 0), &new).await, (0, done(false, &new)));
    assert!(std::fs::read(world.path("f")).unwrap() == new);
    assert_eq!(std::fs::metadata(world.path("f")).unwrap().permissions().mode() & 0o7777, 0o750);
    let spec = WriteSpec {
        mode: Some(0o6711),
        modified_ns: Some(1_500_000_000_000_000_000),
        ..world.write_spec("g", &old, 0)
    };
    assert_eq!(world.send(spec, &old).await, (0, done(true, &old)));
    let metadata = std::fs::metadata(world.path("g")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o711);
    assert_eq!(metadata.modified().unwrap(), part::system_time(1_500_000_000_000_000_000).unwrap());
    assert_eq!(world.send(world.write_spec("empty", b"", 0), b"").await, (0, done(true, b"")));
    assert!(world.parts().is_empty());
}

#[tokio::test]
async fn a_write_goes_on_where_it_ended_and_nowhere_else() {
    let world = world().await;
    let content = bytes(1_000_000);
    std::fs::write(world.path("f"), "old").unwrap();
    let spec = |offset| world.write_spec("f", &content, offset);
    assert_eq!(world.send(spec(0), &content[..400_000]).await, (0, FromWrite::Partial { offset: 400_000 }));
    assert_eq!(std::fs::read(world.path("f")).unwrap(), b"old");
    let (_, last) = world.send(spec(0), b"").await;
    assert!(matches!(last, FromWrite::Failed { code: Code::BAD_OFFSET, offset: 400_000, .. }), "{last:?}");
    let mut asked = world.open(Operation::FileWrite(WriteSpec { ask: true, ..spec(0) })).await.unwrap();
    assert_eq!(asked.read_within::<FromWrite>(PATIENCE).await.unwrap(), FromWrite::Ready { offset: 400_000 });
    let other = bytes(1_000_001);
    let (held, _) = world.send(world.write_spec("f", &other, 0), b"x").await;
    assert_eq!(held, 0, "another content does not continue it");
    let last = world.send(spec(400_000), &content[400_000..]).await;
    assert_eq!(last, (400_000, done(false, &content)));
    assert!(std::fs::read(world.path("f")).unwrap() == content);
}

#[tokio::test]
async fn a_wrong_hash_and_too_many_bytes_leave_the_old_file() {
    let world = world().await;
    std::fs::write(world.path("f"), "old").unwrap();
    let content = bytes(300_000);
    let mut wrong = content.clone();
    wrong[299_999] ^= 1;
    let (_, last) = world.send(world.write_spec("f", &content, 0), &wrong).await;
    assert!(matches!(last, FromWrite::Failed { code: Code::WRONG_HASH, offset: 0, .. }), "{last:?}");
    assert!(world.parts().is_empty());
    // A held part that was spoilt on the disk is found out when the rest came.
    let spec = world.write_spec("f", &content, 0);
    assert_eq!(world.send(spec.clone(), &content[..100]).await.1, FromWrite::Partial { offset: 100 });
    std::fs::write(&world.parts()[0], &wrong[299_900..]).unwrap();
    let (_, last) = world.send(WriteSpec { offset: 100, ..spec }, &content[100..]).await;
    assert!(matches!(last, FromWrite::Failed { code: Code::WRONG_HASH, .. }), "{last:?}");
    let (_, last) = world.send(world.write_spec("f", b"short", 0), b"longer than it").await;
    assert!(matches!(last, FromWrite::Failed { code: Code::TOO_LARGE, .. }), "{last:?}");
    assert_eq!(std::fs::read(world.path("f")).unwrap(), b"old");
    assert!(world.parts().is_empty());
}

#[tokio::test]
async fn of_two_writers_of_one_content_the_second_is_told_to_wait() {
    let world = world().await;
    let content = bytes(1000);
    let spec = world.write_spec("f", &content, 0);
    let mut first = world.open(Operation::FileWrite(spec.clone())).await.unwrap();
    assert_eq!(first.read_within::<FromWrite>(PATIENCE).await.unwrap(), FromWrite::Ready { offset: 0 });
    assert_eq!(world.open(Operation::FileWrite(spec)).await.err(), Some(Code::BUSY));
    first.send.write_chunk(Bytes::from(content.clone())).await.unwrap();
    first.send.finish();
    assert_eq!(first.read_within::<FromWrite>(PATIENCE).await.unwrap(), done(true, &content));
}

#[tokio::test]
async fn content_without_a_known_hash_is_taken_whole_or_not_at_all() {
    let world = world().await;
    let content = bytes(200_000);
    let spec = WriteSpec { blake3: None, ..world.write_spec("f", &content, 0) };
    let (_, last) = world.send(spec.clone(), &content[..100_000]).await;
    assert_eq!(last, FromWrite::Partial { offset: 0 });
    until("nothing is left", || world.parts().is_empty()).await;
    assert_eq!(world.send(spec, &content).await, (0, done(true, &content)));
}

#[tokio::test]
async fn a_lost_line_keeps_what_arrived() {
    let mut world = world().await;
    let content = bytes(1000);
    let spec = world.write_spec("f", &content, 0);
    let mut stream = world.open(Operation::FileWrite(spec)).await.unwrap();
    assert_eq!(stream.read_within::<FromWrite>(PATIENCE).await.unwrap(), FromWrite::Ready { offset: 0 });
    stream.send.write_chunk(Bytes::copy_from_slice(&content[..600])).await.unwrap();
    let arrived = || world.parts().first().is_some_and(|part| std::fs::metadata(part).unwrap().len() == 600);
    until("the bytes are on the disk", arrived).await;
    world.bench.lose_line();
    assert_eq!(std::fs::metadata(&world.parts()[0]).unwrap().len(), 600);
    assert!(!world.path("f").exists());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_kernel_shows_as_files_is_refused_and_not_read_as_empty() {
    let world = world().await;
    for path in ["/proc/cpuinfo", "/proc/self/status", "/sys/kernel/uevent_seqnum"] {
        if !Path::new(path).exists() {
            continue;
        }
        let spec = ReadSpec { path: FilePath(path.into()), offset: 0, length: None, whole: false };
        assert_eq!(world.open(Operation::FileRead(spec)).await.err(), Some(Code::NOT_A_FILE), "{path}");
    }
    std::fs::write(world.path("empty"), "").unwrap();
    assert_eq!(world.begin_read("empty", 0, None).await.unwrap().0.size, 0);
    // No file can be made there; that is not a race with another writer.
    let spec = WriteSpec { path: FilePath(b"/proc/self/new".to_vec()), ..world.write_spec("x", b"x", 0) };
    let refused = world.open(Operation::FileWrite(spec)).await.err();
    assert!(refused.is_some_and(|code| code != Code::BUSY), "{refused:?}");
}
