//! `landline cp` as a test runs it: content that is known by its seed, the command, and what it may leave behind.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{binary, master::Master};

/// Made or compared at once, bytes.
const PIECE: usize = 1 << 20;
/// Between two looks of a `Witness`.
const LOOK: Duration = Duration::from_millis(5);

/// Bytes that differ all over, the same for the same seed.
pub fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// The same into a file, for sizes that memory need not hold. Gives its hash.
pub fn content_file(path: &Path, length: u64, seed: u8) -> blake3::Hash {
    let (mut file, mut hasher) = (File::create(path).expect("a file"), blake3::Hasher::new());
    let mut bytes = blake3::Hasher::new().update(&[seed]).finalize_xof();
    let mut piece = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        bytes.fill(&mut piece[..part]);
        hasher.update(&piece[..part]);
        file.write_all(&piece[..part]).expect("room on the disk");
        left -= part as u64;
    }
    hasher.finalize()
}

/// BLAKE3 of a file.
pub fn hash_of(path: &Path) -> blake3::Hash {
    let (mut file, mut hasher) = (File::open(path).expect("the file is there"), blake3::Hasher::new());
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).expect("the file is read") {
            0 => return hasher.finalize(),
            read => _ = hasher.update(&piece[..read]),
        }
    }
}

/// `landline cp` against one master, not yet started.
pub fn cp(master: &Master, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data()).arg("cp").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, output and errors of a copy that ends by itself.
pub async fn copied(master: &Master, arguments: &[&str]) -> (i32, String, String) {
    let mut command = cp(master, arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("landline runs"));
    let output = output.await.expect("no panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it was not killed"), text(&output.stdout), text(&output.stderr))
}

/// What stands in a folder of files that nobody finished.
pub fn parts_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    names.filter_map(|name| Some(name.to_str()?.to_owned())).filter(|name| name.ends_with(".part")).collect()
}

/// Looks at a file all the time: each look must find the old content or the new one, whole.
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Witness {
    pub fn start(path: PathBuf, old: Vec<u8>, new: Vec<u8>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                look(&path, [&old, &new], looks);
                looks += 1;
                // How often it is looked at, not how long is waited.
                std::thread::sleep(LOOK);
            }
            looks
        });
        Self { stop, thread }
    }

    /// How often it looked. Panics where it saw a mixture.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the file was always the old or the new one")
    }
}

/// Length, beginning, end, and another piece in between at each look.
fn look(path: &Path, states: [&Vec<u8>; 2], turn: u64) {
    const SAMPLE: u64 = 4096;
    let file = File::open(path).expect("the file is always there");
    let length = file.metadata().expect("metadata").len();
    let state = states.into_iter().find(|state| state.len() as u64 == length);
    let state = state.unwrap_or_else(|| panic!("a file of {length} bytes is neither the old nor the new one"));
    let last = length.saturating_sub(SAMPLE);
    for at in [0, last, turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (last + 1)] {
        let mut sample = vec![0; usize::try_from(SAMPLE.min(length)).expect("a small number")];
        file.read_exact_at(&mut sample, at).expect("an open file keeps its length");
        let from = usize::try_from(at).expect("it is in memory");
        assert!(sample == state[from..from + sample.len()], "a mixture at {at} of {length} bytes");
    }
}
