//! `landline cp`: files between this machine and an agent. What was interrupted goes on where it was when the command is
//! repeated; a line or a master that goes away is waited for.

mod download;
mod folder;
mod local;
mod plan;
mod progress;
mod tree;
mod upload;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use self::{
    folder::Folder,
    plan::{Plan, plan},
    progress::Progress,
};
use super::{
    Context,
    client::Client,
    end::Remote,
    output::{self, Format, shown},
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
  landline cp -r ./site home-1:/srv/www        /srv/www becomes a copy of ./site
  landline cp -r ./site home-1:/srv/           with a / at the end: /srv/site does
  landline cp -r ./site/. home-1:/srv          what is in ./site, beside what is there

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
        let Plan { jobs, links, same, left_out, unread } = planned;
        let mut summary = Summary { same, left_out, failed: unread.len() as u64, ..Summary::default() };
        for unread in unread {
            progress.say(&format!("landline: {unread}"));
        }
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
                let files = if self.files == 1 { "file" } else { "files" };
                eprintln!("copied {} {files}, {bytes} in {:.1} s ({rate}/s){rest}", self.files, self.seconds);
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
                let meter = progress.file(shown(&from));
                let way = || format!("{} to {to}", shown(&from));
                upload::send(client, &from, &to, &meter).await.with_context(way)
            }
            Self::Down { from, folder, parent, name } => {
                let way = || format!("{from} to {}", shown(&parent.join(&name)));
                let folder = folder.below(&parent).with_context(way)?;
                download::fetch(client, &from, &folder, &name, progress).await.with_context(way)
            }
        }
    }
}
