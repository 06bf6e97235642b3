//! The fleet that it happens to: a master, agents behind links, echoes as targets, and a record of what was asked and
//! answered. Does steps; judges only what a step's own answer must be.

use std::{net::SocketAddr, time::Instant};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::{
    checks,
    files::Files,
    leaks::Baseline,
    model::{AGENTS, Cable, Model, Step, TARGETS},
    runs::Runs,
    tunnels,
};
use crate::{
    agent::{ALLOW_ALL, Agent},
    link::{Blocked, Link},
    master::Master,
};

/// So long that no tunnel ends by any time of the run: the model knows no times.
const TUNNELS: &str = "agent_grace_s = 3600\npending_timeout_s = 3600\nttl_s = 28800\npark_s = 60";

pub(super) struct World {
    pub(super) master: Master,
    pub(super) agents: Vec<Agent>,
    pub(super) links: Vec<Link>,
    /// Ports that say everything back.
    pub(super) targets: [u16; TARGETS],
    pub(super) runs: Runs,
    pub(super) files: Files,
    pub(super) done: Done,
    pub(super) baseline: Baseline,
    /// Since when each agent could not be reached.
    pub(super) gone_since: [Option<Instant>; AGENTS],
    /// What programs and copies leave on the agents' machines, which are this one.
    pub(super) folder: TempDir,
    _echoes: Vec<AbortOnDropHandle<()>>,
}

/// What the API said was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Audit actions, and the agent or object that they were done to.
    pub(super) effects: Vec<(&'static str, String)>,
    pub(super) carried: usize,
    pub(super) shells: usize,
}

/// The agent's name.
pub(super) fn name(agent: usize) -> String {
    format!("chaos-{agent}")
}

impl World {
    /// Everything runs and is online.
    pub(super) async fn start(seed: u64) -> Self {
        let master = Master::start_with("", TUNNELS).await;
        let folder = tempfile::tempdir().expect("a folder");
        let public: SocketAddr = ([127, 0, 0, 1], master.public_port).into();
        let (mut agents, mut links) = (Vec::new(), Vec::new());
        for number in 0..AGENTS {
            let link = Link::start(public, seed.wrapping_add(number as u64)).await;
            let mut agent = Agent::new(&master.add(&name(number)).await, Some(ALLOW_ALL));
            agent.through(&link);
            if number == 0 {
                agent.adjustable_clock();
            }
            agent.start();
            agents.push(agent);
            links.push(link);
        }
        let (first, second) = (echo().await, echo().await);
        let mut world = Self {
            runs: Runs::new(folder.path()),
            files: Files::new(folder.path(), seed),
            master,
            agents,
            links,
            targets: [first.0, second.0],
            done: Done::default(),
            baseline: Baseline::default(),
            gone_since: [None; AGENTS],
            folder,
            _echoes: vec![first.1, second.1],
        };
        checks::settled(&mut world, &Model::new()).await;
        world.baseline = Baseline::of(&mut world);
        world
    }

    pub(super) async fn perform(&mut self, step: Step, model: &Model) {
        match step {
            Step::KillMaster => self.master.kill(),
            Step::StartMaster => self.master.run().await,
            Step::KillAgent(agent) => self.agents[agent].kill(),
            Step::StartAgent(agent) => self.agents[agent].start(),
            Step::SetCable(agent, cable) => self.set_cable(agent, cable),
            Step::NewAddress(agent) => self.links[agent].readdress(),
            Step::Suspend(agent) => self.set_status(agent, "suspended", "agent.suspend").await,
            Step::Resume(agent) => self.resume(agent, model).await,
            Step::RotateKey(agent) => self.rotate(agent).await,
            Step::ShiftClock { agent, hours } => self.agents[agent].set_clock(hours),
            Step::OpenTunnel { slot, standing } => tunnels::open(self, slot, standing).await,
            Step::CloseTunnel(slot) => tunnels::close(self, slot).await,
            Step::ExpireTunnel(slot) => tunnels::expire(self, slot).await,
            Step::Carry { slot, bytes } => tunnels::carry(self, slot, bytes).await,
            Step::Exec { agent, lasts_ms, by_cli } => self.runs.start(&self.master, agent, lasts_ms, by_cli),
            Step::Shell(agent) => super::runs::shell(self, agent).await,
            Step::Upload { agent, bytes } => self.files.upload(&self.master, agent, bytes).await,
            Step::Download(agent) => self.files.download(&self.master, agent).await,
            // How long things are left to happen is part of the step.
            Step::Pause { ms } => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
            Step::Settle => checks::settled(self, model).await,
        }
    }

    pub(super) fn did(&mut self, action: &'static str, to: impl Into<String>) {
        self.done.effects.push((action, to.into()));
    }

    pub(super) fn summary(&self) -> String {
        let (carried, shells) = (self.done.carried, self.done.shells);
        format!(
            "{}, {}, {carried} times bytes through tunnels, {shells} shells",
            self.runs.summary(),
            self.files.summary()
        )
    }

    fn set_cable(&self, agent: usize, cable: Cable) {
        let link = &self.links[agent];
        match cable {
            Cable::Whole => {
                link.block(Blocked::NOTHING);
                link.restore();
            }
            Cable::WithoutUdp => {
                link.block(Blocked::UDP);
                link.restore();
            }
            Cable::Cut => link.cut(),
        }
    }

    async fn set_status(&mut self, agent: usize, status: &str, action: &'static str) {
        let change = Some(json!({ "status": status }));
        let answer = self.master.api().call(Method::PATCH, &format!("/agents/{}", name(agent)), change).await;
        assert!(answer.0.is_success(), "{answer:?}");
        self.did(action, name(agent));
    }

    /// And starts the agent anew, as its owner would: one that was refused comes by itself only after a minute.
    async fn resume(&mut self, agent: usize, model: &Model) {
        self.set_status(agent, "active", "agent.resume").await;
        if model.machines[agent].runs {
            self.agents[agent].kill();
            self.agents[agent].start();
        }
    }

    /// Whether it is done is the agent's to say; that it comes back with either key is what the later steps see.
    async fn rotate(&mut self, agent: usize) {
        let path = format!("/agents/{}/rotate", name(agent));
        let (status, answer) = self.master.api().call(Method::POST, &path, None).await;
        assert!(matches!(status.as_u16(), 204 | 409 | 504), "{status} {answer}");
        if status == 204 {
            self.did("agent.rotate", name(agent));
        }
    }
}

/// Says everything back, for as long as its handle is held.
async fn echo() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serve = async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(say_back(socket));
        }
    };
    (port, AbortOnDropHandle::new(tokio::spawn(serve)))
}

async fn say_back(mut socket: TcpStream) {
    let (mut reader, mut writer) = socket.split();
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}
