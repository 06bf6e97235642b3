//! `landline-agent run`: the daemon. Logs to stderr, ends on SIGTERM or SIGINT, at once on the second one.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::Context;
use landline_agent::{
    app::{self, StartError},
    config::{Config, Mistakes},
    link::member::MemberError,
};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Threads for disk work end soon after it: an idle agent holds none.
const BLOCKING_THREADS_KEPT: Duration = Duration::from_secs(1);
/// Enough that names which do not resolve leave room for the journal; each exists only while it works.
const BLOCKING_THREADS_MAX: usize = 64;

pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    proto::failpoint::from_environment();
    log_to_stderr(&config)?;
    let runtime = runtime(&config)?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(shut_down_on_signals(shutdown.clone())?);
        // Beyond a limit of file sizes a write then fails, where the signal would end the agent.
        let _file_size = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).context("cannot listen for SIGXFSZ")?;
        let result = app::run(config, shutdown).await;
        signals.abort();
        anyhow::Ok(result)
    })?;
    // Whatever still blocks on a disk must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(StartError::Member(
            error @ (MemberError::Incomplete(_) | MemberError::OtherAgent { .. } | MemberError::OtherMaster),
        )) => Err(Mistakes(vec![error.to_string()]).into()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn log_filter(config: &Config) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(&config.log_level)
}

fn log_to_stderr(config: &Config) -> Result<(), Mistakes> {
    let filter = log_filter(config).map_err(|error| Mistakes(vec![format!("log_level: {error}")]))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}

/// One worker is faster than two for a busy line on two cores, and one thread is enough for that.
fn runtime(config: &Config) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match config.worker_threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    builder.enable_all().thread_keep_alive(BLOCKING_THREADS_KEPT).max_blocking_threads(BLOCKING_THREADS_MAX);
    builder.build().context("cannot start the runtime")
}

fn shut_down_on_signals(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                std::process::exit(1);
            }
            tracing::info!("shutting down; a second signal exits at once");
            shutdown.cancel();
        }
    })
}
