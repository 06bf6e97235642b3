//! Replays every committed fuzz input through the body of its target, so that what fuzzing once found stays fixed
//! without a fuzzer, and sees to it that every target has its file, its entry and its corpus.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../fuzz/bodies/mod.rs"]
mod bodies;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(dir: &str) -> BTreeSet<String> {
    let stem = |entry: std::io::Result<fs::DirEntry>| {
        Path::new(&entry.unwrap().file_name()).file_stem().unwrap().to_string_lossy().into_owned()
    };
    fs::read_dir(fuzz_dir().join(dir)).unwrap().map(stem).collect()
}

fn replay(target: &str, body: impl Fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(fuzz_dir().join("corpus").join(target)).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&input)));
        assert!(outcome.is_ok(), "{} breaks {target}", path.display());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
    body(b"");
}

#[test]
fn every_committed_input_is_answered() {
    for (target, body) in bodies::TARGETS {
        replay(target, body);
    }
    replay("lifecycle", |input| assert_eq!(landline::tunnel::lifecycle::model::run(input).map(drop), Ok(())));
}

#[test]
fn every_target_has_its_file_its_entry_and_its_corpus() {
    let mut targets: BTreeSet<String> = bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    targets.insert("lifecycle".into());
    let manifest: toml::Table = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap().parse().unwrap();
    let entries = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    assert_eq!(targets, entries.collect());
    assert_eq!(targets, names("fuzz_targets"));
    assert_eq!(targets, names("corpus"));
}

#[test]
fn a_target_runs_by_its_name() {
    bodies::run("hello", b"");
    assert!(std::panic::catch_unwind(|| bodies::run("missing", b"")).is_err());
}
