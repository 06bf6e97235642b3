//! `landline backup`: everything a master cannot be made again without, in one closed file, while it runs. Works on the
//! data folder, so it runs on the master's host as the master's user or root. Must change nothing there.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use walkdir::WalkDir;

use super::{output, serve::Source};
use crate::{
    config::{Config, Database},
    store::backup::copy_sqlite,
};

/// The database's name in the file, and of a restored one.
const DATABASE: &str = "landline.db";
/// Made anew at start, or good for nothing elsewhere.
const SKIPPED: [&str; 3] = ["admin.token", "lock", "tunnels"];
/// Left out unless asked for: they may be ten gigabytes.
const RECORDINGS: &str = "recordings";

/// Copy a master's database and keys into one file, while it runs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landline backup /backup/landline-$(date +%F).tar\n  landline backup --config /etc/landline/master.toml --recordings all.tar"
)]
pub(super) struct Backup {
    #[command(flatten)]
    source: Source,
    /// The recordings of shells as well
    #[arg(long)]
    recordings: bool,
    /// A new file, 0600. It holds the CA's key: keep it as safe as the master
    file: PathBuf,
}

/// Files of an unfinished backup, removed when dropped.
struct Unfinished {
    archive: PathBuf,
    database: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        for path in [&self.archive, &self.database] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(code) => return Ok(code),
        };
        let name = self.file.file_name().context("name a file")?.to_string_lossy().into_owned();
        let beside = |ending: &str| self.file.with_file_name(format!(".{name}.{}.{ending}", std::process::id()));
        anyhow::ensure!(!self.file.exists(), "{} exists; it is not overwritten", self.file.display());
        let unfinished = Unfinished { archive: beside("part"), database: beside("db") };
        let database = match &config.database {
            Database::Sqlite(path) => {
                copy_sqlite(path, &unfinished.database).await?;
                Some(unfinished.database.as_path())
            }
            Database::Postgres(_) => {
                eprintln!("landline: the database is PostgreSQL and not in this file; keep a pg_dump of it beside");
                None
            }
        };
        let files = pack(&config, self.recordings, database, &unfinished.archive)?;
        renameat_with(CWD, &unfinished.archive, CWD, &self.file, RenameFlags::NOREPLACE)
            .with_context(|| format!("cannot make {}", self.file.display()))?;
        let size = output::bytes(fs::metadata(&self.file)?.len());
        output::line(&format!("{}: {files} files, {size}", self.file.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the archive and says how many files are in it.
fn pack(config: &Config, recordings: bool, database: Option<&Path>, to: &Path) -> anyhow::Result<u64> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let file = file.with_context(|| format!("cannot make {}", to.display()))?;
    let mut archive = tar::Builder::new(file);
    archive.follow_symlinks(false);
    let mut files = 0;
    if let Some(database) = database {
        archive.append_path_with_name(database, DATABASE).context("cannot write the copy of the database")?;
        files += 1;
    }
    let data_dir = &config.data_dir;
    let wanted = |name: &str| {
        let database = matches!(&config.database, Database::Sqlite(path)
            if path.parent() == Some(data_dir) && path.file_name().is_some_and(|own| name.starts_with(&*own.to_string_lossy())));
        !SKIPPED.contains(&name) && !database && (recordings || name != RECORDINGS)
    };
    let walk = WalkDir::new(data_dir).min_depth(1).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| entry.depth() != 1 || wanted(&entry.file_name().to_string_lossy())) {
        let entry = entry.with_context(|| format!("cannot read {}", data_dir.display()))?;
        let name = entry.path().strip_prefix(data_dir)?;
        if entry.file_type().is_dir() || entry.file_type().is_file() {
            match archive.append_path_with_name(entry.path(), name) {
                // One that went meanwhile, such as an old recording.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                appended => appended.with_context(|| format!("cannot copy {}", entry.path().display()))?,
            }
            files += u64::from(entry.file_type().is_file());
        }
    }
    anyhow::ensure!(data_dir.join("ca/ca.key").is_file(), "{} is no data folder of a master", data_dir.display());
    let file: File = archive.into_inner().context("cannot finish the archive")?;
    file.sync_all().context("cannot write the archive to disk")?;
    Ok(files)
}
