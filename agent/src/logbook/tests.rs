//! The log on a disk: what is written is found again and verifies, and what somebody does to it shows.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio_util::task::AbortOnDropHandle;

use super::{chain::segments, *};

const MIB: u64 = 1 << 20;

async fn filled(state: &Path, count: usize, max: u64) {
    let (logbook, writer) = Logbook::open(state, max).unwrap();
    let writing = tokio::spawn(writer.run());
    for number in 0..count {
        let entry = Entry::new("exec.start").target(format!("echo {number}"));
        logbook.write(Kind::Acts, entry).await.unwrap();
    }
    drop(logbook);
    writing.await.unwrap();
}

fn files(state: &Path) -> Vec<PathBuf> {
    segments(&folder(state), Kind::Acts).unwrap().into_iter().map(|(_, path)| path).collect()
}

fn verdict(state: &Path) -> Verdict {
    verify(&folder(state), Kind::Acts, None).unwrap()
}

fn whole(state: &Path) -> (u64, u64) {
    match verdict(state) {
        Verdict::Whole { first, last, unfinished: 0, .. } => (first, last),
        other => panic!("{other:?}"),
    }
}

fn broken(state: &Path) -> (u64, &'static str) {
    match verdict(state) {
        Verdict::Broken(broken) => (broken.seq, broken.why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_is_closed_to_others_and_goes_on_where_it_stopped() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(verify(state.path(), Kind::Acts, None).unwrap(), Verdict::Empty);
    for run in 1..=3 {
        filled(state.path(), 5, MIB).await;
        assert_eq!(whole(state.path()), (1, run * 5));
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder(state.path())), mode(&files(state.path())[0])), (0o700, 0o600));
    let mut reader = Reader::new(&folder(state.path()));
    let told: Vec<_> = reader.news(7).unwrap().into_iter().map(|shown| shown.entry.target).collect();
    assert_eq!(told, ["echo 3", "echo 4", "echo 0", "echo 1", "echo 2", "echo 3", "echo 4"]);
    assert!(reader.news(7).unwrap().is_empty());
    filled(state.path(), 1, MIB).await;
    assert_eq!(reader.news(7).unwrap().len(), 1, "what is new since then");
}

#[tokio::test]
async fn it_stays_within_its_bound_and_verifies_across_its_files() {
    let state = tempfile::tempdir().unwrap();
    let max = 128 * 1024;
    for _ in 0..4 {
        filled(state.path(), 200, max).await;
    }
    let size: u64 = files(state.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(size <= max / 2, "{size}");
    assert_eq!(files(state.path()).len(), chain::SEGMENTS);
    let (first, last) = whole(state.path());
    assert!(first > 1 && last == 800, "{first} to {last}");
}

/// Each byte of some lines, changed: the line is named. Where a line or a file is taken out, its place is.
#[tokio::test]
async fn an_edit_a_removal_and_a_cut_in_the_middle_are_named() {
    let state = tempfile::tempdir().unwrap();
    filled(state.path(), 6, MIB).await;
    let path = &files(state.path())[0];
    let good = fs::read(path).unwrap();
    let ends: Vec<_> = good.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    for at in ends[2] + 1..ends[3] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(path, &bad).unwrap();
        let (seq, why) = broken(state.path());
        assert_eq!(seq, 4, "byte {at}: {why}");
    }
    let without = [&good[..=ends[2]], &good[ends[3] + 1..]].concat();
    fs::write(path, without).unwrap();
    assert_eq!(broken(state.path()), (4, "another line stands in its place"));
    fs::write(path, &good[ends[0] + 1..]).unwrap();
    assert_eq!(broken(state.path()), (2, "the lines before it are missing, and not by rotation"));
    let twice = [&good[..=ends[3]], &good[ends[2] + 1..]].concat();
    fs::write(path, twice).unwrap();
    assert_eq!(broken(state.path()).0, 5);
    fs::write(path, [&good[..=ends[2]], b"{}\n", &good[ends[2] + 1..]].concat()).unwrap();
    assert_eq!(broken(state.path()), (4, "it is no line of a log"));
    fs::write(path, &good).unwrap();
    assert_eq!(whole(state.path()), (1, 6));
}

#[tokio::test]
async fn a_file_out_of_the_middle_is_missed() {
    let state = tempfile::tempdir().unwrap();
    filled(state.path(), 250, 128 * 1024).await;
    let all = files(state.path());
    assert_eq!(all.len(), chain::SEGMENTS);
    let (taken, kept) = (fs::read(&all[1]).unwrap(), all[1].with_extension("kept"));
    fs::rename(&all[1], &kept).unwrap();
    // As many files as before, so that rotation cannot be told from the gap by their number.
    let forged = all[0].with_file_name("acts-00000000000000000000.jsonl");
    fs::write(&forged, b"").unwrap();
    assert_eq!(broken(state.path()).1, "another line stands in its place");
    fs::remove_file(&forged).unwrap();
    assert_eq!(broken(state.path()).1, "the lines before it are missing, and not by rotation");
    fs::write(&all[1], taken).unwrap();
    whole(state.path());
}

/// What a cut tail shows, and what it does not: nothing, unless its hash was noted, or the agent was running.
#[tokio::test]
async fn a_tail_that_was_cut_shows_by_a_noted_hash_or_by_the_next_line_of_the_same_run() {
    let state = tempfile::tempdir().unwrap();
    filled(state.path(), 6, MIB).await;
    let path = files(state.path())[0].clone();
    let good = fs::read(&path).unwrap();
    let Verdict::Whole { last, hash, .. } = verdict(state.path()) else { panic!() };
    let noted = Noted { chain: Kind::Acts, head: Head { seq: last, hash } };
    let ends: Vec<_> = good.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    fs::write(&path, &good[..=ends[3]]).unwrap();
    assert_eq!(whole(state.path()), (1, 4), "by itself it shows nothing");
    let with_note = |state: &Path| verify(&folder(state), Kind::Acts, Some(&noted)).unwrap();
    assert!(matches!(with_note(state.path()), Verdict::Broken(Broken { seq: 5, .. })));
    filled(state.path(), 4, MIB).await;
    assert_eq!(whole(state.path()), (1, 8));
    assert!(matches!(with_note(state.path()), Verdict::Broken(Broken { seq: 6, .. })), "written anew");

    let (logbook, writer) = Logbook::open(state.path(), MIB).unwrap();
    let _writing = AbortOnDropHandle::new(tokio::spawn(writer.run()));
    logbook.write(Kind::Acts, Entry::new("one")).await.unwrap();
    fs::write(&path, &good[..=ends[3]]).unwrap();
    logbook.write(Kind::Acts, Entry::new("two")).await.unwrap();
    assert_eq!(broken(state.path()).0, 5);
    fs::remove_file(&path).unwrap();
    logbook.write(Kind::Acts, Entry::new("three")).await.unwrap();
    assert_eq!(broken(state.path()), (11, "the lines before it are missing, and not by rotation"));
}

#[tokio::test]
async fn a_line_that_a_crash_left_half_written_is_cut_off_and_told() {
    let state = tempfile::tempdir().unwrap();
    filled(state.path(), 3, MIB).await;
    let path = files(state.path())[0].clone();
    let good = fs::read(&path).unwrap();
    for cut in [1, 40, 200] {
        fs::write(&path, &good[..good.len() - cut]).unwrap();
        assert!(
            matches!(verdict(state.path()), Verdict::Whole { last: 2, unfinished: 1.., .. }),
            "{:?}",
            verdict(state.path())
        );
        filled(state.path(), 1, MIB).await;
        assert_eq!(whole(state.path()), (1, 4), "the third is what tells of it");
        assert!(fs::read_to_string(&path).unwrap().contains("log.cut"));
    }
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_told_of() {
    let state = tempfile::tempdir().unwrap();
    let (logbook, writer) = Logbook::open(state.path(), MIB).unwrap();
    for _ in 0..QUEUE + 7 {
        logbook.note(Kind::Traffic, Entry::new("forward"));
    }
    let _writing = AbortOnDropHandle::new(tokio::spawn(writer.run()));
    logbook.write(Kind::Acts, Entry::new("exec.start")).await.unwrap();
    logbook.write(Kind::Traffic, Entry::new("forward")).await.unwrap();
    let text = fs::read_to_string(&segments(&folder(state.path()), Kind::Traffic).unwrap()[0].1).unwrap();
    assert!(text.contains("7 lines could not be written"), "{}", &text[text.len() - 500..]);
    assert!(matches!(verify(&folder(state.path()), Kind::Traffic, None).unwrap(), Verdict::Whole { .. }));
}
