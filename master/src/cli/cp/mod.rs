//! `landline cp`: files between this machine and an agent. What was interrupted goes on where it was when the command is
//! repeated; a line or a master that goes away is waited for.

mod download;
mod folder;
mod patience;
mod progress;
mod upload;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use self::{folder::Folder, progress::Progress};
use super::{
    Context, UsageError,
    client::{CallError, Client},
    end::{End, Remote},
    output::{self, Format},
    stop::StopSignal,
};

/// Files under way at once.
const JOBS: u8 = 8;
const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline cp backup.tar.gz home-1:/srv/backups/
  landline cp home-1:/var/log/syslog .
  landline cp home-1:/etc/hosts home-1:/etc/fstab ./etc/

A path with AGENT: in front is on that agent and begins with /. Permission bits and times are kept. Each file is verified
by its BLAKE3 and takes its place only when it is whole; after a break repeat the command and it goes on where it was.
Exit code: 0 if all was copied, 1 if not, 130 after Ctrl-C.")]
pub(super) struct Copy {
    /// What to copy, and where to, last
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "DESTINATION"])]
    paths: Vec<OsString>,
    /// Neither progress nor a summary
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Files under way at once
    #[arg(short = 'j', long, default_value_t = JOBS, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
}

/// One file's way.
enum Job {
    Up { from: PathBuf, to: Remote },
    Down { from: Remote, folder: PathBuf, name: OsString },
}

/// What came of it all.
#[derive(Debug, Default, Serialize)]
struct Summary {
    files: u64,
    bytes: u64,
    failed: u64,
    seconds: f64,
}

impl Copy {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        let started = Instant::now();
        let jobs = plan(&context.client, self.paths).await?;
        let progress = Progress::new(self.quiet);
        let mut summary = Summary::default();
        {
            let runs = jobs.into_iter().map(|job| job.run(&context.client, &progress));
            let mut runs = stream::iter(runs).buffer_unordered(self.jobs.into());
            loop {
                let ended = tokio::select! {
                    biased;
                    () = stop.wait() => {
                        progress.finish();
                        eprintln!("landline: interrupted; repeat the command to go on where it was");
                        return Ok(INTERRUPTED.into());
                    }
                    ended = runs.next() => ended,
                };
                match ended {
                    None => break,
                    Some(Ok(bytes)) => {
                        summary.files += 1;
                        summary.bytes += bytes;
                    }
                    Some(Err(error)) => {
                        summary.failed += 1;
                        progress.say(&format!("landline: {error:#}"));
                    }
                }
            }
        }
        progress.finish();
        summary.seconds = started.elapsed().as_secs_f64();
        summary.print(context.format, self.quiet)?;
        Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { super::FAILED.into() })
    }
}

impl Summary {
    fn print(&self, format: Format, quiet: bool) -> anyhow::Result<()> {
        match format {
            Format::Json => output::line(&serde_json::to_string(self)?)?,
            Format::Table if quiet => {}
            Format::Table => {
                let rate = (self.bytes as f64 / self.seconds.max(0.001)) as u64;
                let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
                let (bytes, rate) = (output::bytes(self.bytes), output::bytes(rate));
                eprintln!("copied {} files, {bytes} in {:.1} s ({rate}/s){failed}", self.files, self.seconds);
            }
        }
        Ok(())
    }
}

impl Job {
    /// The file's size when it stands in its place.
    async fn run(self, client: &Client, progress: &Progress) -> anyhow::Result<u64> {
        match self {
            Self::Up { from, to } => {
                let shown = || format!("{} to {to}", from.display());
                let size = std::fs::metadata(&from).map_or(0, |meta| meta.len());
                progress.expect(size);
                let meter = progress.file(from.display().to_string());
                upload::send(client, &from, &to, &meter).await.with_context(shown)
            }
            Self::Down { from, folder, name } => {
                let shown = || format!("{from} to {}", folder.join(&name).display());
                let opened = Folder::open(&folder).with_context(shown)?;
                download::fetch(client, &from, &opened, &name, progress).await.with_context(shown)
            }
        }
    }
}

/// Which files go where.
async fn plan(client: &Client, paths: Vec<OsString>) -> anyhow::Result<Vec<Job>> {
    let mut ends = paths.iter().map(|path| End::parse(path)).collect::<Result<Vec<_>, _>>()?;
    let many = ends.len() > 2;
    let last = ends.pop().ok_or_else(|| UsageError("give a source and a destination".into()))?;
    let one_way = || UsageError("one side is on an agent (AGENT:/PATH), the other on this machine".into());
    match last {
        End::Remote(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Local(path) => Ok(path),
                End::Remote(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let folder = many || to.path.ends_with(b"/") || is_folder(client, &to).await?;
            sources.into_iter().map(|from| up(from, &to, folder)).collect()
        }
        End::Local(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Remote(from) => Ok(from),
                End::Local(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let folder = many || to.as_os_str().as_encoded_bytes().ends_with(b"/") || to.is_dir();
            sources.into_iter().map(|from| down(from, &to, folder)).collect()
        }
    }
}

fn up(from: PathBuf, to: &Remote, folder: bool) -> anyhow::Result<Job> {
    if !folder {
        return Ok(Job::Up { from, to: to.clone() });
    }
    let name = from.file_name().map(OsStr::to_owned);
    let name = name.ok_or_else(|| UsageError(format!("{} has no name to copy it under", from.display())))?;
    let to = to.join(name.as_encoded_bytes());
    Ok(Job::Up { from, to })
}

fn down(from: Remote, to: &Path, folder: bool) -> anyhow::Result<Job> {
    if folder {
        let name = from.name().ok_or_else(|| UsageError(format!("{from} has no name to copy it under")))?;
        return Ok(Job::Down { from, folder: to.to_owned(), name });
    }
    // A link at the destination is written through, as by any program.
    let to = if to.is_symlink() { std::fs::canonicalize(to)? } else { to.to_owned() };
    let name = to.file_name().map(OsStr::to_owned);
    let name = name.ok_or_else(|| UsageError(format!("{} is no name for a file", to.display())))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Job::Down { from, folder: folder.to_owned(), name })
}

/// Whether the destination is a folder on the agent.
async fn is_folder(client: &Client, to: &Remote) -> anyhow::Result<bool> {
    match client.look(to).await {
        Ok(()) => Ok(false),
        Err(CallError::Problem(problem)) => match problem.code.as_str() {
            "not_a_file" => Ok(true),
            "file_not_found" => Ok(false),
            _ => Err(CallError::Problem(problem).into()),
        },
        Err(error) => Err(error.into()),
    }
}

impl Client {
    /// Whether a file can be read on an agent.
    async fn look(&self, at: &Remote) -> Result<(), CallError> {
        let path = format!("/agents/{}/files/content", super::client::segment(&at.agent));
        let request = self.request(reqwest::Method::GET, &path).query(&[at.query()]).header("Range", "bytes=0-0");
        match self.send(request).await {
            Err(CallError::Problem(problem)) if problem.code == "bad_range" => Ok(()),
            other => other.map(drop),
        }
    }
}
