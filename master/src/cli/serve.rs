//! `landline serve`: logging → configuration → start → wait for a signal → drain. A second signal exits at once.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{USAGE, log, stop::StopSignal};
use crate::{
    app::App,
    config::{Config, ConfigErrors, Loaded},
};

/// Read when no file is named and it exists.
const DEFAULT_CONFIG: &str = "/etc/landline/master.toml";

/// Run the master in the foreground
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landline serve\n  landline serve --config /etc/landline/master.toml\n  LANDLINE_DATA_DIR=/srv/landline landline serve"
)]
pub(super) struct Serve {
    #[command(flatten)]
    source: Source,
}

/// Read the configuration, report every mistake, and start nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  landline check-config --config /etc/landline/master.toml")]
pub(super) struct CheckConfig {
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(super) struct Source {
    /// TOML file; /etc/landline/master.toml if it exists, else the defaults
    #[arg(long, env = "LANDLINE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    fn path(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_CONFIG)).filter(|path| path.exists());
        self.config.clone().or_else(default)
    }

    /// The configuration, or every mistake in it.
    pub(super) fn read(&self) -> Result<Config, ConfigErrors> {
        Config::load(self.path().as_deref()).map(|loaded| loaded.config)
    }

    /// The configuration, or the exit code after every mistake was printed.
    pub(super) fn load(&self) -> Result<Config, ExitCode> {
        let path = self.path();
        match Config::load(path.as_deref()) {
            Ok(Loaded { config, unknown_environment }) => {
                // These are settings of the command line itself.
                let ours =
                    ["LANDLINE_CONFIG", "LANDLINE_URL", "LANDLINE_TOKEN", "LANDLINE_METRICS_URL", "LANDLINE_BIN"];
                for name in unknown_environment.iter().filter(|name| !ours.contains(&name.as_str())) {
                    eprintln!("landline: {name} in the environment is no setting of this version");
                }
                Ok(config)
            }
            Err(errors) => {
                let named = path.map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
                eprintln!("landline: {} mistake(s) in {named}:", errors.0.len());
                errors.to_string().lines().for_each(|line| eprintln!("  {line}"));
                Err(USAGE.into())
            }
        }
    }
}

impl CheckConfig {
    pub(super) fn run(self) -> ExitCode {
        match self.source.load() {
            Ok(_) => {
                println!("the configuration is good");
                ExitCode::SUCCESS
            }
            Err(code) => code,
        }
    }
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(code) => return Ok(code),
        };
        log::start(&config.log)?;
        proto::failpoint::from_environment();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(config.worker_threads).enable_all().build()?.block_on(serve(config))
    }
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignal::listen()?;
    let data_dir = config.data_dir.clone();
    let app = App::start(config).await.context("the master cannot start")?;
    tracing::info!(
        public = %app.public, internal = %app.internal, metrics = %app.metrics, data_dir = %data_dir.display(),
        version = env!("CARGO_PKG_VERSION"), "the master is ready"
    );
    if let Some(link) = app.setup_link() {
        // Not through the log, which is kept and shipped: it is for the one who starts this.
        eprintln!("landline: no admin was made yet; make one, once, at\n  {link}\nor with: landline admin create NAME");
    }
    stop.wait().await;
    tracing::info!("draining; a second signal exits at once");
    tokio::select! {
        biased;
        () = stop.wait() => {
            tracing::warn!("a second signal: exiting undrained");
            Ok(super::FAILED.into())
        }
        () = app.stop() => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}
