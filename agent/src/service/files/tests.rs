//! Operations across a real line, with real files.

use std::{
    ffi::OsStr,
    io::{Cursor, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use proto::{
    file::{ArchiveFormat, Entry, FileKind, FileName, FilePath, GrepLine, HashAlgorithm},
    open::{OpenReply, Operation},
};
use tempfile::TempDir;

use super::*;
use crate::{
    service::exec::Patience,
    testing::{Bench, PATIENCE},
};

/// An agent that opens one folder, with one inside that may only be read; and a folder beside it.
struct World {
    bench: Bench,
    folder: TempDir,
    outside: TempDir,
}

/// All that an operation said.
#[derive(Debug, Default)]
struct Said {
    entries: Vec<Entry>,
    lines: Vec<GrepLine>,
    other: Option<FromFile>,
    done: FileDone,
}

impl Said {
    fn names(&self) -> Vec<&[u8]> {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.name.0.as_slice()).collect();
        names.sort_unstable();
        names
    }
}

async fn world() -> World {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("fixed")).unwrap();
    std::fs::write(folder.path().join("fixed/f"), "fixed").unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let fixed = folder.path().join("fixed");
    let policy = format!("[files]\nroots = [{:?}]\nread_only = [{fixed:?}]\n", folder.path());
    World { bench: Bench::start(&policy, Patience::default()).await, folder, outside }
}

impl World {
    fn here(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> FilePath {
        path_of(&self.here(name))
    }

    fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.here(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    async fn ask(&self, request: FileRequest) -> Result<Said, (Code, String)> {
        let (reply, mut stream) = self.bench.open(Operation::File(request)).await;
        if let OpenReply::Refused(refused) = reply.unwrap() {
            return Err((refused.code, refused.message));
        }
        let mut said = Said::default();
        loop {
            match stream.read_within(PATIENCE).await.unwrap() {
                FromFile::Entries(entries) => said.entries.extend(entries),
                FromFile::Lines(lines) => said.lines.extend(lines),
                FromFile::Done(done) => return Ok(Said { done, ..said }),
                FromFile::Failed { code, message } => return Err((code, message)),
                other => said.other = Some(other),
            }
        }
    }

    async fn done(&self, request: FileRequest) -> Said {
        let asked = format!("{request:?}");
        self.ask(request).await.unwrap_or_else(|(code, message)| panic!("{asked}: {code} {message}"))
    }

    async fn fails(&self, request: FileRequest) -> Code {
        let asked = format!("{request:?}");
        self.ask(request).await.map(|said| panic!("{asked}: {said:?}")).unwrap_err().0
    }
}

fn path_of(path: &Path) -> FilePath {
    FilePath(path.as_os_str().as_bytes().to_vec())
}

#[tokio::test]
async fn folders_are_listed_by_page_and_walked_whatever_their_names() {
    let world = world().await;
    for name in [b"new\nline".as_slice(), b"esc\x1b[2J", b"\xff\xfe", b" ", b"-rf"] {
        std::fs::write(world.folder.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    symlink("/etc/passwd", world.here("link")).unwrap();
    let list = |after: &[u8], limit| FileRequest::List { path: world.path(""), after: FileName(after.to_vec()), limit };
    let first = world.done(list(b"", 4)).await;
    assert!(first.done.more);
    assert_eq!(first.names(), [b" ".as_slice(), b"-rf", b"esc\x1b[2J", b"fixed"]);
    let rest = world.done(list(b"fixed", 10)).await;
    assert!(!rest.done.more);
    assert_eq!(rest.names(), [b"link".as_slice(), b"new\nline", b"\xff\xfe"]);
    let link = &rest.entries[0];
    assert_eq!((link.kind, link.target.as_ref().unwrap().0.as_slice()), (FileKind::Link, b"/etc/passwd".as_slice()));

    let walked = world.done(FileRequest::Walk { path: world.path("") }).await;
    assert_eq!((walked.entries.len(), walked.done.files), (8, 8));
    let place = |name: &[u8]| walked.entries.iter().position(|entry| entry.name.0 == name).unwrap();
    assert!(place(b"fixed") < place(b"fixed/f"), "a folder comes first");
    let stat = world.done(FileRequest::Stat { path: world.path("fixed/f"), follow: true }).await;
    assert_eq!((stat.entries[0].size, stat.entries[0].kind), (5, FileKind::File));
}

#[tokio::test]
async fn files_are_made_moved_copied_and_removed() {
    let world = world().await;
    let mkdir = |name: &str, parents| FileRequest::Mkdir { path: world.path(name), parents, mode: Some(0o4750) };
    assert_eq!(world.done(mkdir("a/b/c", true)).await.done.files, 3);
    assert_eq!(std::fs::metadata(world.here("a/b/c")).unwrap().mode() & 0o7777, 0o750, "without setuid");
    assert_eq!(world.fails(mkdir("a", false)).await, Code::EXISTS);
    assert_eq!(world.fails(mkdir("x/y", false)).await, Code::NOT_FOUND);
    std::fs::write(world.here("a/f"), "content").unwrap();
    symlink("f", world.here("a/link")).unwrap();

    let copy = |from: &str, to: &str, recursive, replace| FileRequest::Copy {
        from: world.path(from),
        to: world.path(to),
        recursive,
        replace,
    };
    assert_eq!(world.fails(copy("a", "copy", false, false)).await, Code::NOT_A_FILE);
    assert_eq!(world.fails(copy("a", "a/b/again", true, false)).await, Code::INVALID);
    world.done(copy("a", "copy", true, false)).await;
    assert_eq!(world.content("copy/f"), b"content");
    assert_eq!(std::fs::read_link(world.here("copy/link")).unwrap(), Path::new("f"));
    assert_eq!(world.fails(copy("a/f", "copy/f", false, false)).await, Code::EXISTS);

    let rename =
        |from: &str, to: &str, replace| FileRequest::Rename { from: world.path(from), to: world.path(to), replace };
    std::fs::write(world.here("old"), "old").unwrap();
    assert_eq!(world.fails(rename("a/f", "old", false)).await, Code::EXISTS);
    assert_eq!(world.content("old"), b"old");
    world.done(rename("a/f", "old", true)).await;
    assert_eq!(world.content("old"), b"content");

    let remove = |name: &str, recursive| FileRequest::Remove { path: world.path(name), recursive };
    assert_eq!(world.fails(remove("a", false)).await, Code::NOT_EMPTY);
    // Unfinished files go with their folder; a link goes alone.
    std::fs::write(world.here("copy/.landline-00.part"), "").unwrap();
    symlink(world.outside.path(), world.here("copy/out")).unwrap();
    world.done(remove("copy", true)).await;
    assert!(!world.here("copy").exists());
    assert!(world.outside.path().join("secret").exists());
    assert_eq!(world.fails(remove("copy", true)).await, Code::NOT_FOUND);
}

#[tokio::test]
async fn what_is_told_of_a_file_can_be_changed() {
    let world = world().await;
    let path = || world.path("f");
    assert_eq!(world.fails(FileRequest::Chmod { path: path(), mode: 0o644 }).await, Code::NOT_FOUND);
    world.done(FileRequest::Touch { path: path(), modified_ns: Some(1_500_000_000_000_000_001) }).await;
    let meta = std::fs::metadata(world.here("f")).unwrap();
    assert_eq!((meta.len(), meta.mtime(), meta.mtime_nsec()), (0, 1_500_000_000, 1));
    world.done(FileRequest::Chmod { path: path(), mode: 0o1604 }).await;
    assert_eq!(std::fs::metadata(world.here("f")).unwrap().permissions().mode() & 0o7777, 0o1604);
    assert_eq!(world.fails(FileRequest::Chmod { path: path(), mode: 0o4755 }).await, Code::INVALID);
    let chown = |user: Option<&str>| FileRequest::Chown {
        path: path(),
        user: user.map(str::to_owned),
        group: None,
        follow: true,
    };
    assert_eq!(world.fails(chown(Some("no such user"))).await, Code::INVALID);
    assert_eq!(world.fails(chown(None)).await, Code::INVALID);
    let own = std::fs::metadata(world.here("f")).unwrap().uid().to_string();
    world.done(chown(Some(&own))).await;
    let link = FileRequest::Symlink { path: world.path("link"), target: FileName(b"f".to_vec()) };
    world.done(link.clone()).await;
    assert_eq!(world.fails(link).await, Code::EXISTS);
    let read = world.done(FileRequest::ReadLink { path: world.path("link") }).await;
    assert_eq!(read.other, Some(FromFile::Target(FileName(b"f".to_vec()))));
    assert_eq!(world.fails(FileRequest::ReadLink { path: path() }).await, Code::INVALID);
}

#[tokio::test]
async fn content_is_hashed_typed_measured_and_searched() {
    let world = world().await;
    std::fs::write(world.here("f"), "abc").unwrap();
    let hash =
        async |algorithm| match world.done(FileRequest::Checksum { path: world.path("f"), algorithm }).await.other {
            Some(FromFile::Hash(hash)) => hex::encode(hash),
            other => panic!("{other:?}"),
        };
    // FIPS 180-4 and RFC 1321 name these.
    assert!(hash(HashAlgorithm::Sha256).await.starts_with("ba7816bf8f01cfea"));
    assert!(hash(HashAlgorithm::Sha512).await.starts_with("ddaf35a193617aba"));
    assert_eq!(hash(HashAlgorithm::Md5).await, "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(hash(HashAlgorithm::Blake3).await, blake3::hash(b"abc").to_hex().as_str());

    std::fs::write(world.here("picture"), b"\x89PNG\r\n\x1a\n0000").unwrap();
    std::fs::write(world.here("page.html"), "<p>").unwrap();
    for (name, wanted) in
        [("picture", "image/png"), ("page.html", "text/html"), ("f", "text/plain"), ("", "inode/directory")]
    {
        let said = world.done(FileRequest::Type { path: world.path(name) }).await;
        assert!(matches!(&said.other, Some(FromFile::Type { mime, .. }) if mime == wanted), "{name}: {said:?}");
    }
    let used = world.done(FileRequest::DiskUse { path: world.path("") }).await.done;
    assert_eq!(used.files, 6);

    std::fs::create_dir(world.here("deep")).unwrap();
    std::fs::write(world.here("deep/log"), "one\nNEEDLE two\r\nthree\n").unwrap();
    std::fs::write(world.here("deep/binary"), b"needle\0").unwrap();
    let grep = |path: &str, pattern: &str, limit| FileRequest::Grep {
        path: world.path(path),
        pattern: pattern.into(),
        ignore_case: true,
        limit,
    };
    let found = world.done(grep("", "needle t", 10)).await;
    let line = GrepLine { name: FileName(b"deep/log".to_vec()), number: 2, text: b"NEEDLE two".to_vec() };
    assert_eq!(found.lines, [line]);
    let capped = world.done(grep("deep/log", "", 2)).await;
    assert_eq!((capped.lines.len(), capped.done.more), (2, true));
    assert_eq!(world.fails(grep("", "(", 1)).await, Code::INVALID);
    let search = |pattern: &str| FileRequest::Search { path: world.path(""), pattern: pattern.into(), limit: 10 };
    assert_eq!(world.done(search("*.html")).await.names(), [b"page.html"]);
    assert_eq!(world.done(search("de?p/l[a-z]g")).await.names(), [b"deep/log"]);
    assert_eq!(world.fails(search("[")).await, Code::INVALID);
}

#[tokio::test]
async fn nothing_leads_out_and_what_may_only_be_read_stays() {
    let world = world().await;
    symlink(world.outside.path(), world.here("out")).unwrap();
    symlink("fixed", world.here("alias")).unwrap();
    let outside = path_of(&world.outside.path().join("secret"));
    for path in [world.path("out/secret"), world.path("../x"), outside.clone(), FilePath(b"/etc/passwd".to_vec())] {
        for request in [
            FileRequest::Stat { path: path.clone(), follow: true },
            FileRequest::Remove { path: path.clone(), recursive: true },
            FileRequest::Touch { path: path.clone(), modified_ns: None },
            FileRequest::Copy { from: path.clone(), to: world.path("c"), recursive: true, replace: true },
            FileRequest::Rename { from: world.path("fixed/f"), to: path.clone(), replace: true },
        ] {
            let code = world.fails(request.clone()).await;
            assert!(matches!(code, Code::OUTSIDE_ROOTS | Code::READ_ONLY), "{request:?}: {code}");
        }
    }
    for request in [
        FileRequest::Remove { path: world.path("fixed/f"), recursive: false },
        FileRequest::Remove { path: world.path("alias/f"), recursive: false },
        FileRequest::Remove { path: world.path("fixed"), recursive: true },
        FileRequest::Rename { from: world.path("fixed"), to: world.path("moved"), replace: false },
        FileRequest::Touch { path: world.path("fixed/new"), modified_ns: None },
        FileRequest::Chmod { path: world.path(""), mode: 0o777 },
        FileRequest::Remove { path: world.path(""), recursive: true },
        FileRequest::Copy { from: world.path("fixed"), to: world.path(""), recursive: true, replace: true },
    ] {
        assert_eq!(world.fails(request.clone()).await, Code::READ_ONLY, "{request:?}");
    }
    assert_eq!(world.content("fixed/f"), b"fixed");
    let closed = Bench::start("[exec]\nallow = []\n", Patience::default()).await;
    let (reply, _) = closed.open(Operation::File(FileRequest::Stat { path: outside, follow: true })).await;
    assert!(matches!(reply.unwrap(), OpenReply::Refused(refused) if refused.code == Code::POLICY));
}

#[tokio::test]
async fn special_files_have_no_content() {
    let world = world().await;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.here("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.here("socket")).unwrap();
    for name in ["pipe", "socket", "fixed"] {
        let path = || world.path(name);
        let hash = FileRequest::Checksum { path: path(), algorithm: HashAlgorithm::Md5 };
        assert_eq!(world.fails(hash).await, Code::NOT_A_FILE, "{name}");
        let to = world.path("x");
        let pack = FileRequest::Pack { from: vec![path()], to, format: ArchiveFormat::Gzip, replace: true };
        assert_eq!(world.fails(pack).await, Code::NOT_A_FILE, "{name}");
    }
    let pack = FileRequest::Pack {
        from: vec![world.path("fixed"), world.path("")],
        to: world.path("all.tar"),
        format: ArchiveFormat::Tar,
        replace: false,
    };
    assert_eq!(world.done(pack).await.done.skipped, 2, "archives leave them out and say so");
}

#[tokio::test]
async fn archives_are_made_and_taken_apart() {
    let world = world().await;
    std::fs::create_dir(world.here("d")).unwrap();
    std::fs::write(world.here("d/f"), vec![7; 300_000]).unwrap();
    std::fs::set_permissions(world.here("d/f"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("f", world.here("d/link")).unwrap();
    for (format, name) in [(ArchiveFormat::Zip, "z"), (ArchiveFormat::Tar, "t"), (ArchiveFormat::TarGzip, "tgz")] {
        let pack = |replace| FileRequest::Pack {
            from: vec![world.path("d"), world.path("fixed/f")],
            to: world.path(name),
            format,
            replace,
        };
        let done = world.done(pack(false)).await.done;
        assert_eq!((done.files, done.bytes), (4, 300_005), "{format:?}");
        assert_eq!(world.fails(pack(false)).await, Code::EXISTS);
        let into = format!("{name}.d");
        let unpack = |replace| FileRequest::Unpack { from: world.path(name), to: world.path(&into), format, replace };
        world.done(unpack(false)).await;
        let file = world.here(&into).join("d/f");
        assert_eq!(std::fs::read(&file).unwrap(), vec![7; 300_000], "{format:?}");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o751, "{format:?}: without setuid");
        assert_eq!(std::fs::read_link(world.here(&into).join("d/link")).unwrap(), Path::new("f"));
        assert_eq!(std::fs::read(world.here(&into).join("f")).unwrap(), b"fixed");
        assert_eq!(world.fails(unpack(false)).await, Code::EXISTS);
        world.done(unpack(true)).await;
    }
    let pack = FileRequest::Pack {
        from: vec![world.path("d/f")],
        to: world.path("g"),
        format: ArchiveFormat::Gzip,
        replace: false,
    };
    world.done(pack).await;
    let unpack = FileRequest::Unpack {
        from: world.path("g"),
        to: world.path("back"),
        format: ArchiveFormat::Gzip,
        replace: false,
    };
    world.done(unpack).await;
    assert_eq!(world.content("back"), vec![7; 300_000]);
    for format in [ArchiveFormat::Zip, ArchiveFormat::Tar, ArchiveFormat::TarGzip, ArchiveFormat::Gzip] {
        let to = world.path("none");
        let unpack = FileRequest::Unpack { from: world.path("d/f"), to, format, replace: true };
        assert_eq!(world.fails(unpack).await, Code::BAD_ARCHIVE, "{format:?}");
    }
    assert!(!world.here("none/f").exists());
}

/// One entry as a tar archive holds it, whatever a library would say to its name.
fn raw_tar(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o6755);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn archives_cannot_write_beside_their_folder() {
    use tar::EntryType as Kind;
    let world = world().await;
    let out = world.outside.path().display().to_string();
    let evil = format!("{out}/evil");
    let corpus: Vec<Vec<u8>> = vec![
        raw_tar(&[("../evil", Kind::Regular, "", b"x")]),
        raw_tar(&[("a/../../evil", Kind::Regular, "", b"x")]),
        raw_tar(&[(&evil, Kind::Regular, "", b"x")]),
        raw_tar(&[("l", Kind::Symlink, &out, b""), ("l/evil", Kind::Regular, "", b"x")]),
        raw_tar(&[("l", Kind::Symlink, "..", b"")]),
        raw_tar(&[("d/l", Kind::Symlink, "../../x", b"")]),
        raw_tar(&[("h", Kind::Link, "/etc/passwd", b"")]),
        raw_tar(&[("dev", Kind::Char, "", b"")]),
        raw_tar(&[("fifo", Kind::Fifo, "", b"")]),
    ];
    for (number, archive) in corpus.into_iter().enumerate() {
        std::fs::write(world.here("evil.tar"), archive).unwrap();
        let to = format!("into/{number}");
        std::fs::create_dir_all(world.here(&to)).unwrap();
        let unpack = FileRequest::Unpack {
            from: world.path("evil.tar"),
            to: world.path(&to),
            format: ArchiveFormat::Tar,
            replace: true,
        };
        assert_eq!(world.fails(unpack).await, Code::BAD_ARCHIVE, "{number}");
    }
    // A link of its own is not followed either: where it stands nothing more is put.
    let through =
        raw_tar(&[("l", Kind::Symlink, "d", b""), ("d", Kind::Directory, "", b""), ("l/f", Kind::Regular, "", b"x")]);
    std::fs::write(world.here("evil.tar"), through).unwrap();
    let unpack = FileRequest::Unpack {
        from: world.path("evil.tar"),
        to: world.path("through"),
        format: ArchiveFormat::Tar,
        replace: true,
    };
    assert_eq!(world.fails(unpack).await, Code::NOT_A_FOLDER);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("../evil", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"x").unwrap();
    std::fs::write(world.here("evil.zip"), zip.finish().unwrap().into_inner()).unwrap();
    let unpack = FileRequest::Unpack {
        from: world.path("evil.zip"),
        to: world.path("into/z"),
        format: ArchiveFormat::Zip,
        replace: true,
    };
    assert_eq!(world.fails(unpack).await, Code::BAD_ARCHIVE);
    assert!(!Path::new(&evil).exists() && !world.here("into/evil").exists() && !world.here("evil").exists());
}

#[tokio::test]
async fn who_looks_does_not_wait_behind_who_reads_the_whole_disk() {
    let world = world().await;
    let endless = std::fs::File::create(world.here("endless")).unwrap();
    endless.set_len(1 << 42).unwrap();
    let mut busy = Vec::new();
    for _ in 0..AT_ONCE {
        let checksum =
            FileRequest::Checksum { path: world.path("endless"), algorithm: proto::file::HashAlgorithm::Blake3 };
        let (reply, stream) = world.bench.open(Operation::File(checksum)).await;
        assert!(matches!(reply, Ok(OpenReply::Opened(_))), "{reply:?}");
        busy.push(stream);
    }
    let said = world.done(FileRequest::Stat { path: world.path("endless"), follow: true }).await;
    assert_eq!(said.names(), [b"endless"]);
}

/// One turn of an attacker: a file, or else a folder, changes places with a link to its aim. What operations removed a
/// moment ago is made again. It follows no link itself, so that whatever happens outside was an operation's doing.
fn swap(top: &Path, [outside, secret]: &[std::path::PathBuf; 2], file: bool) {
    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat, renameat_with};
    let (real, folder, link) = (top.join("real"), top.join("spare/folder"), top.join("spare/file"));
    let _ = std::fs::create_dir(&real);
    if !real.is_symlink() && !folder.is_symlink() {
        let _ = std::fs::remove_dir_all(&folder);
        let _ = symlink(outside, &folder);
    }
    let Ok(inside) = openat(CWD, &real, OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) else {
        let _ = renameat_with(CWD, &real, CWD, &folder, RenameFlags::EXCHANGE);
        return;
    };
    for name in ["f", "g"] {
        let _ = std::fs::write(top.join("spare/new"), "public");
        let _ = renameat_with(CWD, top.join("spare/new"), &inside, name, RenameFlags::NOREPLACE);
    }
    let _ = symlink(secret, top.join("spare/fresh"));
    let _ = renameat(CWD, top.join("spare/fresh"), CWD, &link);
    let _ = match file {
        true => renameat_with(&inside, "f", CWD, &link, RenameFlags::EXCHANGE),
        false => renameat_with(CWD, &real, CWD, &folder, RenameFlags::EXCHANGE),
    };
}

/// While folders and files turn into links that lead out and back, no operation reads or changes anything outside.
#[tokio::test(flavor = "multi_thread")]
async fn no_operation_is_led_out_by_links_that_are_swapped() {
    let turns = if std::env::var_os("LANDLINE_SOAK").is_some() { 100_000 } else { 4_000 };
    let world = world().await;
    let secret = world.outside.path().join("f");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
    let before = std::fs::metadata(&secret).unwrap();
    for dir in ["real", "spare", "got"] {
        std::fs::create_dir(world.here(dir)).unwrap();
    }
    std::fs::write(world.here("real/f"), "public").unwrap();
    symlink(world.outside.path(), world.here("spare/folder")).unwrap();
    symlink(&secret, world.here("spare/file")).unwrap();
    let (top, done) = (world.folder.path().to_owned(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let (over, aims) = (done.clone(), [world.outside.path().to_owned(), secret.clone()]);
    let attacker = std::thread::spawn(move || {
        for turn in 0..turns {
            swap(&top, &aims, turn % 3 == 0);
        }
        over.store(true, std::sync::atomic::Ordering::Release);
    });
    let (mut asked, mut refused) = (0, 0);
    while !done.load(std::sync::atomic::Ordering::Acquire) {
        for request in [
            FileRequest::Chmod { path: world.path("real/f"), mode: 0o600 },
            FileRequest::Touch { path: world.path("real/f"), modified_ns: Some(1) },
            FileRequest::Copy { from: world.path("real"), to: world.path("got/copy"), recursive: true, replace: true },
            FileRequest::Copy {
                from: world.path("real/f"),
                to: world.path("got/one"),
                recursive: false,
                replace: true,
            },
            FileRequest::Rename { from: world.path("got/one"), to: world.path("real/moved"), replace: true },
            FileRequest::Remove { path: world.path("real/f"), recursive: false },
            FileRequest::Remove { path: world.path("real"), recursive: true },
        ] {
            asked += 1;
            refused += u32::from(world.ask(request).await.is_err());
        }
    }
    attacker.join().unwrap();
    let after = std::fs::metadata(&secret).unwrap();
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(
        (before.mode(), before.mtime_nsec(), before.ctime_nsec()),
        (after.mode(), after.mtime_nsec(), after.ctime_nsec())
    );
    assert_eq!(std::fs::read_dir(world.outside.path()).unwrap().count(), 2, "nothing was put outside, nothing taken");
    let mut folders = vec![world.here("got")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                // A copy that was beaten on its way has nothing of the file yet.
                kind if kind.is_file() => assert!(b"public".starts_with(&std::fs::read(entry.path()).unwrap())),
                _ => {}
            }
        }
    }
    eprintln!("{turns} swaps: {asked} operations, {refused} refused or beaten, no escape");
}
