//! `landline demo`: a master, three agents and an HTTPS site behind each, on this machine. Owns everything it starts and
//! ends it again; uses the product only as an operator would.

mod child;
mod files;
mod ports;
mod site;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use secrecy::SecretString;
use tokio::time::{Instant, sleep, timeout};

use self::{
    child::{Child, Program},
    files::{DemoDir, Lock},
    ports::Ports,
    site::Site,
};
use super::{client::Client, output, stop::StopSignal};
use crate::api::dto::agent::{Agent, Credentials, NewAgent, Presence};

pub(super) use child::WithParent;

const AGENTS: usize = 3;
const MASTER_READY_WITHIN: Duration = Duration::from_secs(30);
const AGENTS_ONLINE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A child that died is started again after this long, as a service manager would.
const RESTART_AFTER: Duration = Duration::from_millis(500);
const RESTARTS_MAX: u32 = 20;
/// Time to end everything cleanly.
const END_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline demo
  landline demo --down

Runs in the foreground until Ctrl-C. What a caller needs stands in DIR/env, as lines for a shell.")]
pub(super) struct Demo {
    /// Where it keeps its files; removed and made anew at each start
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// End the demo that runs there
    #[arg(long)]
    down: bool,
}

/// What runs.
struct Running {
    dir: DemoDir,
    ports: Ports,
    sites: Vec<Site>,
    master: Child,
    agents: Vec<Child>,
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.down {
            return files::end(&self.dir, END_WITHIN).await.map(|()| ExitCode::SUCCESS);
        }
        let mut stop = StopSignal::listen()?;
        let dir = DemoDir::prepare(&self.dir)?;
        let lock = Lock::take(&dir)?;
        dir.empty()?;
        let mut master = None;
        let started = tokio::select! {
            biased;
            () = stop.wait() => None,
            started = start(dir.clone(), &mut master) => Some(started),
        };
        let outcome = match started {
            Some(Ok(mut running)) => {
                let outcome = running.live(&mut stop).await;
                running.end().await;
                outcome
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        // Dropped handles kill what a failed start left.
        drop(master);
        dir.forget_env();
        drop(lock);
        outcome.map(|()| ExitCode::SUCCESS)
    }
}

/// Starts everything. A master that came up before something failed is left in `master` for the caller to end.
async fn start(dir: DemoDir, master: &mut Option<Child>) -> anyhow::Result<Running> {
    let ports = Ports::choose()?;
    dir.write_config(&ports)?;
    let landline = std::env::current_exe().context("cannot find this binary")?;
    let agent = landline.with_file_name("landline-agent");
    if !agent.exists() {
        bail!("{} is missing; build it with: cargo build --workspace", agent.display());
    }
    let program = Program::new(&landline, &dir.log("master")).arg("serve").arg("--config").arg(dir.config());
    let started = master.insert(Child::start(program)?);
    eprintln!("starting the master …");
    let token = ready(started, &dir, &ports).await?;
    let client = Client::new(&ports.url(), SecretString::from(token.clone()))?;
    let (mut sites, mut agents) = (Vec::new(), Vec::new());
    for number in 1..=AGENTS {
        let id = format!("home-{number}");
        sites.push(Site::start(&id).await?);
        let body = NewAgent { id: id.clone(), labels: None, external_id: i64::try_from(number).ok() };
        let credentials: Credentials = client.post_once("/agents", &body).await?;
        let home = dir.write_agent(&id, &credentials)?;
        let program = Program::new(&agent, &dir.log(&id)).arg("run").dir(&home).envs(dir.agent_environment(&id));
        agents.push(Child::start(program)?);
    }
    eprintln!("starting the agents …");
    online(&client, &mut agents).await?;
    dir.write_env(&ports, &token, &landline, &sites)?;
    let master = master.take().context("the master is gone")?;
    Ok(Running { dir, ports, sites, master, agents })
}

/// Waits for the master, and gives its admin token.
async fn ready(master: &mut Child, dir: &DemoDir, ports: &Ports) -> anyhow::Result<String> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    let url = format!("{}/readyz", ports.url());
    let deadline = Instant::now() + MASTER_READY_WITHIN;
    while Instant::now() < deadline {
        if let Some(status) = master.exited()? {
            bail!("the master ended ({status}):\n{}", dir.log_tail("master"));
        }
        if http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            return dir.admin_token();
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("the master was not ready within {MASTER_READY_WITHIN:?}:\n{}", dir.log_tail("master"))
}

async fn online(client: &Client, agents: &mut [Child]) -> anyhow::Result<()> {
    let deadline = Instant::now() + AGENTS_ONLINE_WITHIN;
    let mut waiting: Vec<_> = (1..=agents.len()).map(|number| format!("home-{number}")).collect();
    while let Some(id) = waiting.last() {
        let agent: Agent = client.get(&format!("/agents/{id}"), &()).await?;
        if agent.presence == Presence::Online {
            waiting.pop();
            continue;
        }
        for child in agents.iter_mut() {
            if let Some(status) = child.exited()? {
                bail!("{} ended ({status}):\n{}", child.name(), files::tail(child.log()));
            }
        }
        if Instant::now() >= deadline {
            bail!("{id} was not online within {AGENTS_ONLINE_WITHIN:?}; see its log beside the others in target/demo");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

impl Running {
    /// Until told to stop. Children that die are started again.
    async fn live(&mut self, stop: &mut StopSignal) -> anyhow::Result<()> {
        output::line(&self.summary())?;
        let mut restarts = 0;
        loop {
            tokio::select! {
                biased;
                () = stop.wait() => return Ok(()),
                () = sleep(LOOK_EVERY) => {}
            }
            for child in self.agents.iter_mut().chain([&mut self.master]) {
                let Some(status) = child.exited()? else { continue };
                restarts += 1;
                if restarts > RESTARTS_MAX {
                    bail!("{} ended again ({status}):\n{}", child.name(), files::tail(child.log()));
                }
                eprintln!("{} ended ({status}); starting it again", child.name());
                tokio::select! {
                    biased;
                    () = stop.wait() => return Ok(()),
                    () = sleep(RESTART_AFTER) => child.restart()?,
                }
            }
        }
    }

    fn summary(&self) -> String {
        let sites = self
            .sites
            .iter()
            .map(|site| format!("  landline tunnel open {} localhost:{} --scheme https", site.agent(), site.port()));
        format!(
            "\nLandline demo\n\n  dashboard  {dashboard}\n  API        {url}\n  metrics    {metrics}/metrics\n  agents     home-1 home-2 home-3, an HTTPS site behind each\n\n\
             In another shell:\n\n  set -a; . {env}; set +a\n  export PATH=\"$(dirname \"$LANDLINE_BIN\"):$PATH\"\n  landline agents ls\n{sites}\n\n\
             Ctrl-C ends it all; so does `make demo-down`.",
            // The link makes the first administrator, once; whoever came back later signs in.
            dashboard = self.dir.setup_link().unwrap_or_else(|| self.ports.url()),
            url = self.ports.url(),
            metrics = self.ports.metrics_url(),
            env = self.dir.env().display(),
            sites = sites.collect::<Vec<_>>().join("\n"),
        )
    }

    /// Agents first, so that nobody logs a lost master.
    async fn end(mut self) {
        eprintln!("ending the demo …");
        let ended = async {
            for child in &mut self.agents {
                child.terminate();
            }
            for child in &mut self.agents {
                child.gone(LOOK_EVERY).await;
            }
            self.master.terminate();
            self.master.gone(LOOK_EVERY).await;
        };
        if timeout(END_WITHIN, ended).await.is_err() {
            eprintln!("landline: something did not end in time and is killed");
        }
    }
}
