//! The agent's binaries that this master can hand out: those an operator put below the data folder, and for the master's
//! own platform the one beside the running program. Finds, measures and opens them; serves nothing.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use moka::sync::Cache;
use sha2::{Digest, Sha256};

/// The program's file name.
pub const PROGRAM: &str = "landline-agent";

/// One platform an agent may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    pub os: &'static str,
    pub arch: &'static str,
    /// What the compiler calls it.
    pub target: &'static str,
}

const fn platform(os: &'static str, arch: &'static str, target: &'static str) -> Platform {
    Platform { os, arch, target }
}

/// Every platform the install script knows, named as it names them.
pub const PLATFORMS: [Platform; 6] = [
    platform("linux", "x86_64", "x86_64-unknown-linux-musl"),
    platform("linux", "aarch64", "aarch64-unknown-linux-musl"),
    platform("linux", "armv7", "armv7-unknown-linux-musleabihf"),
    platform("linux", "riscv64", "riscv64gc-unknown-linux-gnu"),
    platform("freebsd", "x86_64", "x86_64-unknown-freebsd"),
    platform("freebsd", "aarch64", "aarch64-unknown-freebsd"),
];

impl Platform {
    pub fn name(&self) -> String {
        format!("{}-{}", self.os, self.arch)
    }

    /// One of [`PLATFORMS`]; nothing else ever becomes part of a path.
    pub fn named(name: &str) -> Option<Self> {
        PLATFORMS.into_iter().find(|platform| platform.name() == name)
    }

    /// How an absent binary comes to be.
    pub fn how(&self, agents_dir: &Path) -> String {
        let place = agents_dir.join(self.name()).join(PROGRAM);
        format!(
            "cargo build --release -p landline-agent --target {0} && install -D target/{0}/release/{PROGRAM} {1}",
            self.target,
            place.display()
        )
    }

    fn is_ours(&self) -> bool {
        self.os == std::env::consts::OS && self.arch == std::env::consts::ARCH
    }
}

/// An open binary and what it weighs.
#[derive(Debug)]
pub struct Binary {
    pub file: File,
    pub length: u64,
    pub sha256: String,
}

/// What a file is known by while it does not change.
type Stamp = (PathBuf, u64, SystemTime);

/// Where binaries are. Clones share what was measured.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
    beside: Option<PathBuf>,
    hashes: Cache<Stamp, Arc<str>>,
}

impl Binaries {
    /// `dir` holds `<os>-<arch>/landline-agent`.
    pub fn new(dir: PathBuf) -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
        Self { dir, beside, hashes: Cache::new(64) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Blocks on the disk, and reads the whole file the first time.
    pub fn open(&self, platform: Platform) -> io::Result<Option<Binary>> {
        let Some(path) = self.path(platform) else { return Ok(None) };
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        let stamp = (path, metadata.len(), metadata.modified()?);
        let sha256 = match self.hashes.get(&stamp) {
            Some(known) => known,
            None => {
                let measured: Arc<str> = sha256(&mut file)?.into();
                self.hashes.insert(stamp, measured.clone());
                io::Seek::rewind(&mut file)?;
                measured
            }
        };
        Ok(Some(Binary { file, length: metadata.len(), sha256: sha256.as_ref().to_owned() }))
    }

    /// Whether there is one. Blocks on the disk.
    pub fn has(&self, platform: Platform) -> bool {
        self.path(platform).is_some()
    }

    /// The hashes of all there are, as `sha256sum` prints them: what a client without a pin checks a binary by. Blocks.
    pub fn sums(&self) -> io::Result<String> {
        let mut sums = String::new();
        for platform in PLATFORMS {
            if let Some(binary) = self.open(platform)? {
                sums.push_str(&format!("{}  {}/{PROGRAM}\n", binary.sha256, platform.name()));
            }
        }
        Ok(sums)
    }

    fn path(&self, platform: Platform) -> Option<PathBuf> {
        let placed = self.dir.join(platform.name()).join(PROGRAM);
        let beside = self.beside.clone().filter(|_| platform.is_ours());
        [Some(placed), beside].into_iter().flatten().find(|path| path.is_file())
    }
}

fn sha256(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placed_binary_goes_before_the_one_beside_and_a_changed_one_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut binaries = Binaries::new(folder.path().join("agents"));
        binaries.beside = Some(folder.path().join(PROGRAM));
        let ours = PLATFORMS.into_iter().find(Platform::is_ours).unwrap();
        let other = PLATFORMS.into_iter().find(|platform| !platform.is_ours()).unwrap();
        assert!(binaries.open(ours).unwrap().is_none() && !binaries.has(other));
        std::fs::write(folder.path().join(PROGRAM), "beside").unwrap();
        assert_eq!(binaries.open(ours).unwrap().unwrap().length, 6);
        assert!(!binaries.has(other), "the master's own program runs on no other platform");
        let placed = folder.path().join("agents").join(ours.name());
        std::fs::create_dir_all(&placed).unwrap();
        std::fs::write(placed.join(PROGRAM), "placed!").unwrap();
        let mut first = binaries.open(ours).unwrap().unwrap();
        let mut text = String::new();
        first.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "placed!");
        std::fs::write(placed.join(PROGRAM), "placed anew").unwrap();
        let second = binaries.open(ours).unwrap().unwrap();
        assert_ne!(second.sha256, first.sha256);
        assert_eq!(binaries.sums().unwrap(), format!("{}  {}/{PROGRAM}\n", second.sha256, ours.name()));
    }

    #[test]
    fn only_known_names_are_platforms() {
        assert_eq!(Platform::named("linux-x86_64").map(|platform| platform.target), Some("x86_64-unknown-linux-musl"));
        for bad in ["", "linux", "linux-x86_64/", "../linux-x86_64", "LINUX-x86_64", "linux-x86_64\0"] {
            assert_eq!(Platform::named(bad), None, "{bad}");
        }
    }
}
