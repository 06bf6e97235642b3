//! Large files with `landline cp`: both ways with equal hashes, and the master's memory stays what it is.

use landline_tests::{
    copying::{content_file, copied, hash_of, parts_in},
    master::Master,
    process::{Peak, resident},
    soak,
};

const MIB: u64 = 1 << 20;
/// What a master may grow by while a file passes through it, whatever the file's size, bytes.
const GROWTH: u64 = 16 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_large_file_goes_both_ways_and_the_master_does_not_grow() {
    let size = soak::count(256 * MIB, 2048 * MIB);
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut master = Master::start().await;
    let _agent = master.agent("store").await;
    let local = |name: &str| here.path().join(name).display().to_string();
    let remote = format!("store:{}", there.path().join("large").display());
    let hash = content_file(&here.path().join("large"), size, 9);
    let pid = master.process().pid();
    for (arguments, arrived) in [
        ([local("large"), remote.clone()], there.path().join("large")),
        ([remote.clone(), local("back")], here.path().join("back")),
    ] {
        let (before, peak) = (resident(pid), Peak::watch(pid));
        let (code, out, err) = copied(&master, &[&arguments[0], &arguments[1]]).await;
        let grown = peak.finish().saturating_sub(before);
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        assert_eq!(hash_of(&arrived), hash);
        println!("{} MiB: {}; the master grew by {:.1} MiB", size / MIB, err.trim(), grown as f64 / MIB as f64);
        assert!(grown <= GROWTH, "the master grew by {grown} bytes");
    }
    assert_eq!((parts_in(here.path()), parts_in(there.path())), (vec![], vec![]));
}
