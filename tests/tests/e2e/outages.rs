//! The link of an agent is down for twenty seconds in the middle of a copy: how soon it goes on, at four round trips, both
//! ways, and that the file is whole (SECURITY, reliability figures).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use landline_tests::{
    copying::{content, cp, parts_in},
    lab::Lab,
    link::Shape,
    master::Master,
    soak,
    wait::{eventually, until},
};

/// Bytes a second: the copy takes longer than what lies before and after the gap.
const RATE: u64 = 2_500_000;
const SIZE: usize = 30_000_000;
const DOWN: Duration = Duration::from_secs(20);
/// What is promised, from the moment when the link is back.
const PROMISED: Duration = Duration::from_secs(5);

fn arrived(folder: &Path) -> u64 {
    let parts = parts_in(folder);
    parts.iter().filter_map(|part| std::fs::metadata(folder.join(part)).ok()).map(|meta| meta.len()).sum()
}

/// How long after its return the link brings something new to `folder`.
async fn resumed(lab: &Lab, folder: &Path) -> Duration {
    until(Duration::from_secs(60), "the copy is under way", || arrived(folder) > 5_000_000).await;
    lab.down();
    // What was on the way arrives; the length of the gap is what is asked for.
    tokio::time::sleep(DOWN).await;
    let before = arrived(folder);
    assert!((before as usize) < SIZE * 2 / 3, "too much came before the gap: {before}");
    let returned = Instant::now();
    lab.up();
    let more = || async { (arrived(folder) > before).then(|| returned.elapsed()) };
    eventually(Duration::from_secs(60), "the copy goes on", more).await
}

struct Copy {
    here: tempfile::TempDir,
    there: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Copy {
    fn new() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self { here: folder(), there: folder(), bytes: content(SIZE, 9) }
    }

    /// One copy with a gap in it, and how long after the gap it went on.
    async fn through(&self, lab: &Lab, master: &Master, up: bool, name: &str) -> Duration {
        let (source, target) = if up { (&self.here, &self.there) } else { (&self.there, &self.here) };
        std::fs::write(source.path().join(name), &self.bytes).unwrap();
        let path = |folder: &tempfile::TempDir| folder.path().join(name).display().to_string();
        let (local, remote) = (path(&self.here), format!("far:{}", path(&self.there)));
        let arguments = if up { ["-q", &local, &remote] } else { ["-q", &remote, &local] };
        let mut copy = cp(master, &arguments).spawn().unwrap();
        let resumed = resumed(lab, target.path()).await;
        lab.shape(Shape { rate: None, ..Shape::default() });
        until(Duration::from_secs(60), "the copy ends", || copy.try_wait().unwrap().is_some()).await;
        let output = copy.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(target.path().join(name)).unwrap() == self.bytes, "the file is another one");
        resumed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_copy_goes_on_after_the_link_was_down() {
    let Some(lab) = Lab::start(21) else { return };
    let master = Master::start_in(&lab).await;
    let _agent = master.agent_in(&lab, "far").await;
    let copy = Copy::new();
    let mut missed = Vec::new();
    for rtt in soak::count(vec![42], vec![5, 42, 152, 300]) {
        for up in soak::count(vec![true], vec![true, false]) {
            let delay = Duration::from_micros(rtt * 500);
            lab.shape(Shape { delay, rate: Some(RATE), ..Shape::default() });
            let resumed = copy.through(&lab, &master, up, &format!("{rtt}-{up}")).await;
            let way = if up { "upload" } else { "download" };
            println!("link down {DOWN:?}, round trip {rtt} ms, {way}: went on {resumed:.2?} after its return, equal");
            if resumed > PROMISED {
                missed.push(format!("{rtt} ms {way}: {resumed:.2?}"));
            }
        }
    }
    assert!(missed.is_empty(), "later than {PROMISED:?}: {missed:?}");
}
