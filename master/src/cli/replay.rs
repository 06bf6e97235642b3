//! `landline replay`: shows a recording again, at its own pace or at once.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::{Context, output, shells::download};
use crate::session::cast::{Cast, Reader};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline replay 0b8e6f3a-…                     the recording of a session, from the master
  landline replay session.cast --speed 4 --idle-limit 2s
  landline replay session.cast --instant > exact-output

Ctrl-C ends it. Any player of asciicast v2 shows the same.")]
pub(super) struct Replay {
    /// A file, or a session's id
    recording: String,
    /// So many times as fast
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// No pause longer than this
    #[arg(long, value_parser = output::parse_seconds)]
    idle_limit: Option<u32>,
    /// Everything at once: the exact bytes that were shown
    #[arg(long)]
    instant: bool,
}

impl Replay {
    pub(super) async fn run(self, context: impl FnOnce() -> anyhow::Result<Context>) -> anyhow::Result<ExitCode> {
        let path = Path::new(&self.recording);
        let text = if path.exists() {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        } else {
            download(&context()?, &self.recording).await?
        };
        let mut reader = Reader::default();
        let mut before = 0.0;
        for (time, event) in text.lines().filter_map(|line| reader.line(line)) {
            self.pause(time - before).await;
            before = time;
            match event {
                Cast::Output(bytes) => show(&bytes)?,
                Cast::Lost(bytes) => eprintln!("landline: {bytes} bytes of output are not in the recording"),
                Cast::Resize(_) => {}
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn pause(&self, seconds: f64) {
        if self.instant || seconds <= 0.0 {
            return;
        }
        let limit = self.idle_limit.map_or(f64::INFINITY, f64::from);
        let pause = Duration::try_from_secs_f64(seconds.min(limit) / self.speed);
        tokio::time::sleep(pause.unwrap_or_default()).await;
    }
}

fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush())
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 && speed.is_finite() => Ok(speed),
        Ok(_) | Err(_) => Err("a number above 0".into()),
    }
}
