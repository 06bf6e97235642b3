//! `landline sim`: many agents in one process, with real handshakes, enrolment and heartbeats, for sizing a master. They
//! refuse every piece of work. Owns their creation and removal through the API, and the summary.

mod agent;
mod carrier;
mod report;

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    agent::{Setup, SimAgent},
    carrier::SimCarrier,
    report::{Counters, Report},
};
use super::{
    Context,
    client::{CallError, Client, segment},
    output,
    stop::StopSignal,
};
use crate::api::dto::agent::{Credentials, NewAgent};

/// Most agents of one process: each holds a socket, and 1,000,000 descriptors is where systems stop.
const AGENTS_MAX: u32 = 30_000;
/// Calls to the API at a time while agents are created and removed.
const CALLS: usize = 16;
/// Tries of one call that a busy master refused.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// Time for the agents to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline sim --agents 500
  landline sim --agents 3 --for 60s -o json
  landline sim --agents 200 --carrier wss

The agents are made through the API, named PREFIX-1 onwards, and removed at the end unless --keep is given.")]
pub(super) struct Sim {
    /// How many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(AGENTS_MAX)))]
    agents: u32,
    /// End after this long; without it, on Ctrl-C
    #[arg(long = "for", value_parser = output::parse_seconds)]
    duration: Option<u32>,
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// What carries their lines
    #[arg(long, value_enum, default_value_t = SimCarrier::Udp)]
    carrier: SimCarrier,
    /// Handshakes in flight; of WebSockets a master takes four at a time from one address
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallel: Option<u32>,
    /// Leave the agents registered
    #[arg(long)]
    keep: bool,
}

impl Sim {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        let keys = tempfile_dir()?;
        let started = Instant::now();
        let setup = tokio::select! {
            biased;
            () = stop.wait() => Err(anyhow::anyhow!("stopped while the agents were created")),
            setup = self.create(&context.client, keys.path()) => setup,
        };
        let counters = Arc::new(Counters::default());
        let outcome = match setup {
            Ok(agents) => {
                eprintln!("{} agents registered in {:.1} s", agents.len(), started.elapsed().as_secs_f64());
                self.live(agents, &counters, &mut stop).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        if !self.keep {
            self.remove(&context.client).await;
        }
        outcome?;
        let report = counters.report(self.agents, started.elapsed());
        output::print(context.format, &report, Report::text)?;
        Ok(if report.connected_once == u64::from(self.agents) { ExitCode::SUCCESS } else { super::FAILED.into() })
    }

    fn id(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    async fn create(&self, client: &Client, keys: &Path) -> anyhow::Result<Vec<Setup>> {
        let permits = Arc::new(Semaphore::new(CALLS));
        let mut calls = JoinSet::new();
        for number in 1..=self.agents {
            let (client, id, permits) = (client.clone(), self.id(number), permits.clone());
            let (key_path, carrier) = (keys.join(&id), self.carrier);
            calls.spawn(async move {
                let _permit = permits.acquire_owned().await;
                let credentials = credentials(&client, &id).await.with_context(|| format!("cannot register {id}"))?;
                Setup::new(&credentials, key_path, carrier).await
            });
        }
        let mut setups = Vec::new();
        while let Some(joined) = calls.join_next().await {
            setups.push(joined??);
        }
        Ok(setups)
    }

    /// Runs the agents until the time is up or somebody stops us.
    async fn live(&self, setups: Vec<Setup>, counters: &Arc<Counters>, stop: &mut StopSignal) {
        let ending = CancellationToken::new();
        let parallel = self.parallel.unwrap_or(self.carrier.parallel());
        let permits = Arc::new(Semaphore::new(usize::try_from(parallel).unwrap_or(1)));
        let mut agents = JoinSet::new();
        for setup in setups {
            let agent = SimAgent::new(setup, counters.clone(), permits.clone(), ending.clone());
            agents.spawn(agent.run());
        }
        let all = counters.clone();
        let (wanted, began) = (u64::from(self.agents), Instant::now());
        let progress = async {
            all.wait_connected(wanted).await;
            eprintln!("{wanted} agents online after {:.1} s", began.elapsed().as_secs_f64());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = until(self.duration.map(|seconds| began + Duration::from_secs(seconds.into()))) => {}
            () = progress => {}
        }
        ending.cancel();
        let _ = timeout(GOODBYE_WITHIN, async { while agents.join_next().await.is_some() {} }).await;
    }

    async fn remove(&self, client: &Client) {
        let permits = Arc::new(Semaphore::new(CALLS));
        let mut calls = JoinSet::new();
        for number in 1..=self.agents {
            let (client, path, permits) =
                (client.clone(), format!("/agents/{}", segment(&self.id(number))), permits.clone());
            calls.spawn(async move {
                let _permit = permits.acquire_owned().await;
                patiently(|| client.delete(&path)).await
            });
        }
        let mut left = 0;
        while let Some(joined) = calls.join_next().await {
            let gone = |error: &CallError| matches!(error, CallError::Problem(problem) if problem.status == 404);
            left += u32::from(!matches!(joined, Ok(Ok(()))) && !matches!(&joined, Ok(Err(error)) if gone(error)));
        }
        if left > 0 {
            eprintln!(
                "landline: {left} simulated agents could not be removed; see: landline agents ls -q {}",
                self.prefix
            );
        }
    }
}

/// A new agent, or a new secret for one that an earlier run left.
async fn credentials(client: &Client, id: &str) -> Result<Credentials, CallError> {
    let body = NewAgent { id: id.to_owned(), labels: None, external_id: None };
    match patiently(|| client.post_once("/agents", &body)).await {
        Err(CallError::Problem(problem)) if problem.status == 409 => {
            let path = format!("/agents/{}/secret", segment(id));
            let nothing = serde_json::json!({});
            patiently(|| client.post_once(&path, &nothing)).await
        }
        other => other,
    }
}

/// A sizing tool brings a master to its bounds; being told so is no failure yet.
async fn patiently<T, F: Future<Output = Result<T, CallError>>>(call: impl Fn() -> F) -> Result<T, CallError> {
    let mut tries = 1;
    loop {
        match call().await {
            Err(CallError::Problem(problem)) if tries < TRIES && matches!(problem.status, 429 | 503) => {
                tries += 1;
                tokio::time::sleep(TRY_AGAIN).await;
            }
            other => return other,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A private folder for the agents' keys, removed with everything in it when dropped.
struct KeyDir(std::path::PathBuf);

impl KeyDir {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile_dir() -> anyhow::Result<KeyDir> {
    let path = std::env::temp_dir().join(format!("landline-sim-{}", uuid::Uuid::new_v4()));
    certs::state::open_dir(&path)?;
    Ok(KeyDir(path))
}
