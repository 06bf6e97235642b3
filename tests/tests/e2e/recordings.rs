//! Recordings while the master is killed with -9 at random moments: each is a valid prefix of what its session showed, holds
//! at least what anybody was shown, and in the end replays it byte for byte (SECURITY R61).

use std::{collections::HashMap, path::PathBuf, process::Command, time::Duration};

use landline_tests::{
    binary,
    master::Master,
    soak,
    terminal::{Terminal, open},
    wait::eventually,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Prints numbered lines until its input says enough; each line holds text, and bytes that are no text.
const COUNT: &str = r"stty -opost -echo; i=0
while ! read -t 0.01 enough; do i=$((i+1)); printf '%d gr\303\274n \377\376\n' $i; done; exit 9";
/// The same in a hurry, a hundred lines.
const SHORT: &str =
    r"stty -opost; i=0; while [ $i -lt 100 ]; do i=$((i+1)); printf '%d gr\303\274n \377\376\n' $i; done";

fn lines(count: usize) -> Vec<u8> {
    (1..=count).flat_map(|n| [n.to_string().as_bytes(), b" gr\xc3\xbcn \xff\xfe\n"].concat()).collect()
}

/// Every recording that is on disk.
fn recordings(master: &Master) -> Vec<PathBuf> {
    let months = std::fs::read_dir(master.data().join("recordings")).unwrap();
    let files = months.flat_map(|month| std::fs::read_dir(month.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

/// The bytes that `landline replay` makes of a file.
fn replayed(file: &std::path::Path) -> Vec<u8> {
    let output = Command::new(binary("landline")).args(["replay", "--instant"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Every line but a torn last one is JSON, the first is the header.
fn is_asciicast(file: &std::path::Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    for (number, line) in whole.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("line {number}: {e}"));
        let good = if number == 0 { value["version"] == 2 } else { value.as_array().is_some_and(|all| all.len() == 3) };
        assert!(good, "line {number} is no asciicast: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_valid_and_whole_whenever_the_master_is_killed() {
    let kills = soak::count(5, 100);
    let mut random = StdRng::seed_from_u64(21);
    let mut master = Master::start().await;
    let _agent = master.agent("desk").await;
    let long = open(&master.api(), "desk", &format!("exec bash -c '{}'", COUNT.replace('\'', r"'\''"))).await;
    let (mut shown, mut shorts) = (Vec::new(), HashMap::new());
    for kill in 0..kills {
        let (api, offset) = (master.api(), shown.len());
        let mut terminal = eventually(Duration::from_secs(30), "the session can be attached to", || async {
            Terminal::attach(&api, &long, &format!("offset={offset}")).await.ok()
        })
        .await;
        assert_eq!((terminal.from, terminal.lost), (offset as u64, 0), "kill {kill}: it goes on where the viewer was");
        // One more begins about when the master dies.
        let begins_after = Duration::from_millis(random.random_range(0..150));
        let dies = Duration::from_millis(random.random_range(50..400));
        let begins = async {
            tokio::time::sleep(begins_after).await;
            open(&api, "desk", SHORT).await
        };
        let begun = tokio::time::timeout(dies, async {
            let (_, id) = tokio::join!(terminal.until(|_| false), begins);
            id
        });
        // The first waits for ever, so that it is the time that ends both.
        assert!(begun.await.is_err());
        master.kill();
        shown.extend_from_slice(&terminal.shown);
        for file in recordings(&master) {
            // One that has not grown was looked at after an earlier kill.
            let length = file.metadata().unwrap().len();
            if shorts.get(&file) == Some(&length) {
                continue;
            }
            is_asciicast(&file);
            let bytes = replayed(&file);
            // As many as there are, and one more: the last may be torn.
            let truth = lines(bytes.iter().filter(|byte| **byte == b'\n').count() + 1);
            assert!(truth.starts_with(&bytes), "kill {kill}: {} is no prefix of what was printed", file.display());
            if file.to_string_lossy().contains(&long) {
                assert!(bytes.starts_with(&shown), "kill {kill}: {} recorded, {} shown", bytes.len(), shown.len());
            } else {
                shorts.insert(file, length);
            }
        }
        master.run().await;
        master.api().online("desk", Duration::from_secs(30)).await;
    }
    let mut terminal = Terminal::attach(&master.api(), &long, &format!("offset={}", shown.len())).await.unwrap();
    terminal.send(b"enough\n").await;
    assert_eq!(terminal.exit().await["code"], 9);
    shown.extend_from_slice(&terminal.shown);
    let file = recordings(&master).into_iter().find(|file| file.to_string_lossy().contains(&long)).unwrap();
    assert!(replayed(&file) == shown, "what was recorded by {kills} masters is what was shown");
    let whole = shorts.keys().filter(|file| replayed(file) == lines(100)).count();
    println!("{kills} kills: {} bytes shown and replayed; {} short sessions, {whole} whole", shown.len(), shorts.len());
    eventually(Duration::from_secs(30), "no session is left open", || async {
        let open = master.api().get("/shells?running=true").await;
        open["items"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}
