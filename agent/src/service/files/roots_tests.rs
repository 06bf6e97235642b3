//! Where paths lead: spellings, links of every kind, roots inside roots, and an attacker who swaps links meanwhile.

use std::{
    io::Read,
    os::unix::{ffi::OsStrExt, fs::symlink},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

/// `open/` may be written, `open/shut/` and `look/` be read, `out/` is nobody's business.
struct World {
    folder: tempfile::TempDir,
    roots: Roots,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for dir in ["open/sub", "open/shut", "look", "out"] {
        std::fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["open/f", "open/sub/f", "open/shut/f", "look/f", "out/f"] {
        std::fs::write(at(file), file).unwrap();
    }
    let rules = FileRules { roots: vec![at("open")], read_only: vec![at("open/shut"), at("look")] };
    World { roots: Roots::new(&rules), folder }
}

impl World {
    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn link(&self, at: &str, target: impl AsRef<Path>) {
        symlink(target, self.path(at)).unwrap();
    }

    fn locate(&self, below: &str, access: Access) -> Result<Place, FileError> {
        self.roots.locate(&file_path(&self.path(below)), access, Links::Follow)
    }

    fn reads(&self, below: &str) -> Result<String, Code> {
        let mut text = String::new();
        let mut file = self.locate(below, Access::Read).and_then(|place| place.open_read()).map_err(|e| e.code)?;
        file.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    fn write_code(&self, below: &str) -> Option<Code> {
        self.locate(below, Access::Write).err().map(|error| error.code)
    }
}

fn file_path(path: &Path) -> FilePath {
    FilePath(path.as_os_str().as_bytes().to_vec())
}

#[test]
fn plain_paths_lead_where_they_say() {
    let world = world();
    for (spelling, found) in [
        ("open/f", "open/f"),
        ("open//sub/./f", "open/sub/f"),
        ("open/sub//f/", "open/sub/f"),
        ("open/shut/f", "open/shut/f"),
        ("look/f", "look/f"),
    ] {
        assert_eq!(world.reads(spelling), Ok(found.into()), "{spelling}");
    }
    assert_eq!(world.reads("open/none"), Err(Code::NOT_FOUND));
    assert_eq!(world.reads("open/none/f"), Err(Code::NOT_FOUND));
    assert_eq!(world.reads("open/f/f"), Err(Code::NOT_A_FOLDER));
    assert_eq!(world.reads("open/sub"), Err(Code::NOT_A_FILE));
    assert_eq!(world.reads("open"), Err(Code::NOT_A_FILE));
}

#[test]
fn no_spelling_leaves_the_roots() {
    let world = world();
    let top = world.folder.path().as_os_str().as_bytes();
    let below: &[&[u8]] = &[
        b"/out/f",
        b"/open/../out/f",
        b"/open/sub/../../out/f",
        b"/open/sub/..",
        b"/open/..",
        b"/open/./../out/f",
        b"//open//..//out/f",
        b"/open/sub/../f",
        b"/openx/f",
        b"/ope",
        b"/look/../out/f",
        b"/",
        b"",
    ];
    for below in below {
        let path = FilePath([top, below].concat());
        let error = world.roots.locate(&path, Access::Read, Links::Follow).expect_err("outside");
        assert_eq!(error.code, Code::OUTSIDE_ROOTS, "{:?}", String::from_utf8_lossy(below));
    }
    for outside in ["/", "/etc/passwd", "/..", "/proc/self/root", "/proc/self/cwd"] {
        let path = FilePath(outside.into());
        let error = world.roots.locate(&path, Access::Read, Links::Follow).expect_err("outside");
        assert_eq!(error.code, Code::OUTSIDE_ROOTS, "{outside}");
    }
    let long = [b"/".to_vec(), vec![b'a'; 5000]].concat();
    for bad in [&b""[..], b"open/f", b"../f", b"./f", b"/a\0b", &long] {
        let error = world.roots.locate(&FilePath(bad.to_vec()), Access::Read, Links::Follow).expect_err("invalid");
        assert_eq!(error.code, Code::INVALID, "{:?}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn links_count_where_they_lead() {
    let world = world();
    world.link("open/rel", "sub/f");
    world.link("open/sub/up", "../f");
    world.link("open/abs", world.path("open/sub/f"));
    world.link("open/across", "../look/f");
    world.link("open/dir", "sub");
    world.link("open/self", ".");
    world.link("open/out", "../out/f");
    world.link("open/out-abs", world.path("out/f"));
    world.link("open/out-dir", world.path("out"));
    world.link("open/etc", "/etc/passwd");
    world.link("open/many", "../../../../../../../../../../etc/passwd");
    world.link("open/a", "b");
    world.link("open/b", "a");
    world.link("open/none-yet", "sub/new");
    for (spelling, found) in [
        ("open/rel", "open/sub/f"),
        ("open/sub/up", "open/f"),
        ("open/abs", "open/sub/f"),
        ("open/across", "look/f"),
        ("open/dir/f", "open/sub/f"),
        ("open/self/self/dir/up", "open/f"),
    ] {
        assert_eq!(world.reads(spelling), Ok(found.into()), "{spelling}");
    }
    for outside in ["open/out", "open/out-abs", "open/out-dir", "open/out-dir/f", "open/etc", "open/many"] {
        assert_eq!(world.reads(outside), Err(Code::OUTSIDE_ROOTS), "{outside}");
        assert_eq!(world.write_code(outside), Some(Code::OUTSIDE_ROOTS), "{outside}");
    }
    assert_eq!(world.reads("open/a"), Err(Code::NOT_FOUND), "a circle");
    assert_eq!(world.locate("open/none-yet", Access::Write).unwrap().path(), world.path("open/sub/new"));
    assert_eq!(world.locate("open/self", Access::Write).unwrap().path(), world.path("open"));
    assert_eq!(world.locate("open/dir", Access::Write).unwrap().name(), "sub");
    let kept = world.roots.locate(&file_path(&world.path("open/etc")), Access::Write, Links::Keep).unwrap();
    assert_eq!(kept.path(), world.path("open/etc"), "the link itself is in the root");
    assert_eq!(kept.open_read().unwrap_err().code, Code::NOT_A_FILE, "and is not followed");
}

#[test]
fn a_read_only_root_stays_so_through_every_way_in() {
    let world = world();
    world.link("open/in", "shut");
    world.link("open/in-abs", world.path("open/shut"));
    world.link("open/in-file", "sub/../shut/f");
    for path in ["look/f", "look/new", "open/shut/f", "open/shut", "open/in/f", "open/in", "open/in-abs/new"] {
        assert_eq!(world.write_code(path), Some(Code::READ_ONLY), "{path}");
    }
    assert_eq!(world.write_code("open/in-file"), Some(Code::READ_ONLY));
    assert_eq!(world.write_code("open/sub/new"), None);
    assert_eq!(world.reads("open/in-file"), Ok("open/shut/f".into()));
    let top = world.locate("open", Access::Write).unwrap();
    assert_eq!(top.movable().unwrap_err().code, Code::READ_ONLY, "it holds a root");
    assert!(world.locate("open/sub", Access::Write).unwrap().movable().is_ok());
}

#[test]
fn a_root_that_is_a_link_itself_is_the_owners_choice() {
    let world = world();
    world.link("alias", "open");
    world.link("shut-alias", "open/shut");
    let rules = FileRules { roots: vec![world.path("alias")], read_only: vec![world.path("shut-alias")] };
    let roots = Roots::new(&rules);
    let code = |below: &str| {
        roots.locate(&file_path(&world.path(below)), Access::Write, Links::Follow).err().map(|error| error.code)
    };
    assert_eq!(code("alias/f"), None);
    assert_eq!(code("open/f"), None, "the same folder by its own name");
    assert_eq!(code("alias/shut/f"), Some(Code::READ_ONLY), "known by what it is, not by how it is called");
    assert_eq!(code("out/f"), Some(Code::OUTSIDE_ROOTS));
}

#[test]
fn links_made_to_be_long_end_soon() {
    let world = world();
    let long = "sub/../".repeat(500);
    world.link("open/long", format!("{long}long"));
    let deep = "a/".repeat(1000);
    let began = std::time::Instant::now();
    assert_eq!(world.reads("open/long"), Err(Code::NOT_FOUND));
    assert_eq!(world.reads(&format!("open/{deep}")), Err(Code::NOT_FOUND));
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
}

/// The attacker flips a folder between itself and a link out, and a file between itself and a link out, as fast as it can.
#[test]
fn swapped_links_never_lead_out() {
    let swaps: u32 = if std::env::var_os("LANDLINE_SOAK").is_some() { 100_000 } else { 5_000 };
    let world = world();
    std::fs::write(world.path("out/secret"), "secret").unwrap();
    std::fs::create_dir(world.path("open/real")).unwrap();
    std::fs::write(world.path("open/real/secret"), "public").unwrap();
    std::fs::create_dir(world.path("open/spare")).unwrap();
    world.link("open/spare/link", "../out");
    world.link("open/spare/link-abs", world.path("out"));
    world.link("open/spare/file", "../../out/secret");
    let (done, dir) = (AtomicBool::new(false), world.path("open"));
    let (mut read, mut refused) = (0u32, 0u32);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = |a: &str, b: &str| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, dir.join(a), CWD, dir.join(b), flags).unwrap();
            };
            for turn in 0..swaps {
                exchange("real", if turn % 4 < 2 { "spare/link" } else { "spare/link-abs" });
                if turn % 2 == 1 {
                    exchange("real/secret", "spare/file");
                    exchange("real/secret", "spare/file");
                }
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            match world.reads("open/real/secret") {
                Ok(text) => {
                    assert_eq!(text, "public");
                    read += 1;
                }
                Err(_) => refused += 1,
            }
            if let Ok(place) = world.locate("open/real/new", Access::Write)
                && let Ok(mut temp) = place.create_temp("00")
            {
                std::io::Write::write_all(&mut temp.file, b"x").unwrap();
                let _ = temp.commit(None, true);
            }
        }
    });
    let out: Vec<_> = std::fs::read_dir(world.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(out.len(), 2, "nothing was written outside: {out:?}");
    assert_eq!(std::fs::read(world.path("out/secret")).unwrap(), b"secret");
    eprintln!("{swaps} swaps: {read} reads of the public file, {refused} refused, no escape");
}
