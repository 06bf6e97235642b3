//! `landline cp`: files between this machine and an agent. What was interrupted goes on where it was when the command is
//! repeated; a line or a master that goes away is waited for.

mod download;
mod folder;
mod patience;
mod progress;
mod tree;
mod upload;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use self::{
    folder::Folder,
    progress::Progress,
    tree::{Links, Planned},
};
use crate::api::dto::file::Kind;

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
  landline cp -r ./site home-1:/srv/www

A path with AGENT: in front is on that agent and begins with /. Permission bits and times are kept. Each file is verified
by its BLAKE3 and takes its place only when it is whole; after a break repeat the command and it goes on where it was.
Exit code: 0 if all was copied, 1 if not, 130 after Ctrl-C.")]
pub(super) struct Copy {
    /// What to copy, and where to, last
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "DESTINATION"])]
    paths: Vec<OsString>,
    /// Folders with everything in them; files that are there with the same size and time are passed over
    #[arg(short = 'r', long)]
    recursive: bool,
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
    Down { from: Remote, folder: Arc<Folder>, parent: PathBuf, name: OsString },
}

/// What came of it all.
#[derive(Debug, Default, Serialize)]
struct Summary {
    files: u64,
    bytes: u64,
    /// There already.
    same: u64,
    /// Neither files nor folders nor links.
    left_out: u64,
    failed: u64,
    seconds: f64,
}

impl Copy {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        let started = Instant::now();
        let progress = Progress::new(self.quiet);
        let planned = tokio::select! {
            biased;
            () = stop.wait() => return Ok(INTERRUPTED.into()),
            planned = plan(&context, self.paths, self.recursive, &progress) => planned?,
        };
        let Plan { jobs, links, same, left_out } = planned;
        let mut summary = Summary { same, left_out, ..Summary::default() };
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
        for links in links {
            if let Err(error) = links.make() {
                summary.failed += 1;
                progress.say(&format!("landline: {error:#}"));
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
                let and = |count: u64, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
                let rest =
                    and(self.same, "there already") + &and(self.left_out, "left out") + &and(self.failed, "failed");
                let (bytes, rate) = (output::bytes(self.bytes), output::bytes(rate));
                eprintln!("copied {} files, {bytes} in {:.1} s ({rate}/s){rest}", self.files, self.seconds);
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
                let meter = progress.file(from.display().to_string());
                upload::send(client, &from, &to, &meter).await.with_context(shown)
            }
            Self::Down { from, folder, parent, name } => {
                let shown = || format!("{from} to {}", parent.join(&name).display());
                let folder = folder.below(&parent).with_context(shown)?;
                download::fetch(client, &from, &folder, &name, progress).await.with_context(shown)
            }
        }
    }
}

/// What there is to do.
#[derive(Default)]
struct Plan {
    jobs: Vec<Job>,
    links: Vec<Links>,
    same: u64,
    left_out: u64,
}

impl Plan {
    fn add(&mut self, planned: Planned) {
        self.jobs.extend(planned.jobs);
        self.same += planned.same;
        self.left_out += planned.left_out;
    }
}

/// Which files go where. Folders are made on the way.
async fn plan(context: &Context, paths: Vec<OsString>, recursive: bool, progress: &Progress) -> anyhow::Result<Plan> {
    let mut ends = paths.iter().map(|path| End::parse(path)).collect::<Result<Vec<_>, _>>()?;
    let many = ends.len() > 2;
    let last = ends.pop().ok_or_else(|| UsageError("give a source and a destination".into()))?;
    let one_way = || UsageError("one side is on an agent (AGENT:/PATH), the other on this machine".into());
    let mut plan = Plan::default();
    match last {
        End::Remote(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Local(path) => Ok(path),
                End::Remote(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let folder = many || to.path.ends_with(b"/") || kind(context, &to).await? == Some(Kind::Folder);
            for from in sources {
                let to = if folder { to.join(named(&from)?.as_encoded_bytes()) } else { to.clone() };
                let meta = std::fs::metadata(&from).with_context(|| from.display().to_string())?;
                if meta.is_dir() {
                    wanted(recursive, &from.display())?;
                    plan.add(tree::up(context, &from, &to, progress).await?);
                } else {
                    progress.expect(meta.len());
                    plan.jobs.push(Job::Up { from, to });
                }
            }
        }
        End::Local(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Remote(from) => Ok(from),
                End::Local(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let folder = many || to.as_os_str().as_encoded_bytes().ends_with(b"/") || to.is_dir();
            for from in sources {
                if recursive && kind(context, &from).await? == Some(Kind::Folder) {
                    let to = if folder { to.join(from.name().unwrap_or_default()) } else { to.clone() };
                    let (planned, links) = tree::down(context, &from, &to).await?;
                    plan.add(planned);
                    plan.links.push(links);
                } else {
                    plan.jobs.push(down(from, &to, folder)?);
                }
            }
        }
    }
    Ok(plan)
}

fn wanted(recursive: bool, folder: &dyn std::fmt::Display) -> Result<(), UsageError> {
    if recursive { Ok(()) } else { Err(UsageError(format!("{folder} is a folder; copy it with -r"))) }
}

/// The name that something is copied under into a folder.
fn named(from: &Path) -> anyhow::Result<OsString> {
    let whole = if from.file_name().is_none() { std::fs::canonicalize(from)? } else { from.to_owned() };
    let name = whole.file_name().map(OsStr::to_owned);
    Ok(name.ok_or_else(|| UsageError(format!("{} has no name to copy it under", from.display())))?)
}

fn down(from: Remote, to: &Path, folder: bool) -> anyhow::Result<Job> {
    // A link at the destination is written through, as by any program.
    let to = if !folder && to.is_symlink() { std::fs::canonicalize(to)? } else { to.to_owned() };
    let (folder, name) = if folder {
        (to.as_path(), from.name())
    } else {
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        (folder.unwrap_or(Path::new(".")), to.file_name().map(OsStr::to_owned))
    };
    let name = name.ok_or_else(|| UsageError(format!("{from} has no name to copy it under")))?;
    let folder = Folder::open(folder).with_context(|| folder.display().to_string())?;
    Ok(Job::Down { from, folder: Arc::new(folder), parent: PathBuf::new(), name })
}

/// What there is on the agent; `None` for nothing.
async fn kind(context: &Context, at: &Remote) -> Result<Option<Kind>, CallError> {
    match super::fs::ask(context, at, "stat", &super::fs::at(at)).await {
        Ok(answer) => Ok(answer.entries.and_then(|entries| Some(entries.first()?.kind))),
        Err(CallError::Problem(problem)) if problem.code == "file_not_found" => Ok(None),
        Err(error) => Err(error),
    }
}
