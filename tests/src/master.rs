//! One real master process in a folder of its own, on ports of its own.

use std::{
    fs::{File, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use reqwest::Method;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    agent::{ALLOW_ALL, Agent},
    api::Api,
    binary,
    confined::{self, Prefix},
    lab::Lab,
    link::Link,
    peers::free_port,
    process::Process,
    wait::eventually,
};

/// A master and what it needs to start again on the same ports with the same data.
#[derive(Debug)]
pub struct Master {
    pub folder: TempDir,
    pub public_port: u16,
    pub internal_port: u16,
    pub metrics_port: u16,
    /// Where its tunnels listen.
    pub range: std::ops::RangeInclusive<u16>,
    environment: Vec<(String, String)>,
    prefix: Prefix,
    process: Option<Process>,
    _range: OwnRange,
}

/// Ports for tunnels of one master, shared with no other master of this machine while the lock lives.
#[derive(Debug)]
struct OwnRange {
    ports: std::ops::RangeInclusive<u16>,
    _lock: File,
}

impl OwnRange {
    fn take() -> Self {
        const WIDTH: u16 = 40;
        // Below the ports that the kernel hands out by itself.
        for slot in 0..300 {
            let path = std::env::temp_dir().join(format!("landline-test-ports-{slot}"));
            let file = File::options().create(true).truncate(false).write(true).open(path).expect("a lock file");
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let first = 20_000 + slot * WIDTH;
                return Self { ports: first..=first + WIDTH - 1, _lock: file };
            }
        }
        panic!("every range of ports is in use");
    }
}

impl Master {
    /// Starts a master on SQLite with the defaults.
    pub async fn start() -> Self {
        Self::start_with("", "").await
    }

    /// Starts one with `top` before the tables and `tunnel` inside `[tunnel]` of its configuration.
    pub async fn start_with(top: &str, tunnel: &str) -> Self {
        let mut master = Self::prepare(top, tunnel);
        master.run().await;
        master
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(top: &str, tunnel: &str) -> Self {
        Self::prepare_at(Ipv4Addr::LOCALHOST, top, tunnel)
    }

    /// The same with the public listener at another address of this machine.
    pub fn prepare_at(public: Ipv4Addr, top: &str, tunnel: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (public_port, internal_port, metrics_port) = (free_port(), free_port(), free_port());
        let own_range = OwnRange::take();
        let range = own_range.ports.clone();
        let (first, last) = (range.start(), range.end());
        let data = folder.path().join("data");
        let text = format!(
            "data_dir = {data:?}\n{top}\n\
             [public]\nlisten = \"{public}:{public_port}\"\naddress = \"{public}:{public_port}\"\n\
             [internal]\nlisten = \"127.0.0.1:{internal_port}\"\n\
             [metrics]\nlisten = \"127.0.0.1:{metrics_port}\"\n\
             [tunnel]\nport_range = \"{first}-{last}\"\n{tunnel}\n"
        );
        std::fs::write(folder.path().join("landline.toml"), text).expect("a configuration");
        Self {
            folder,
            public_port,
            internal_port,
            metrics_port,
            range,
            environment: Vec::new(),
            prefix: Prefix::new(),
            process: None,
            _range: own_range,
        }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Puts this build's agent, stripped as a release is, where the master hands it out from; before it starts.
    pub fn hand_out_agents(&self) {
        let folder = self.data().join("agents/linux-x86_64");
        std::fs::create_dir_all(&folder).expect("a folder");
        for dir in [self.data(), self.data().join("agents")] {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("its mode");
        }
        let mut strip = Command::new(crate::tools::tool("strip"));
        strip.arg("-o").arg(folder.join("landline-agent")).arg(binary("landline-agent"));
        assert!(strip.status().expect("strip").success(), "the agent is not built");
    }

    /// Confines the starts to come.
    pub fn confine(&mut self, prefix: Prefix) {
        self.prefix = prefix;
    }

    /// Starts the process and waits until it is ready.
    pub async fn run(&mut self) {
        self.spawn();
        self.ready(Duration::from_secs(20)).await;
    }

    pub fn spawn(&mut self) {
        let mut command = confined::command(&self.prefix, &binary("landline"));
        command.arg("serve").arg("--config").arg(self.folder.path().join("landline.toml"));
        command.envs(self.environment.iter().cloned());
        self.process = Some(Process::start(command, &self.log_path()));
    }

    pub async fn ready(&self, within: Duration) {
        let url = format!("{}/readyz", self.url());
        eventually(within, "the master is ready", || async {
            reqwest::get(&url).await.ok().filter(|response| response.status().is_success())
        })
        .await;
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal_port)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The API under the admin token.
    pub fn api(&self) -> Api {
        let token = std::fs::read_to_string(self.data().join("admin.token")).expect("an admin token");
        Api::new(&self.url(), token.trim())
    }

    /// `landline` against this master, not yet started.
    pub fn landline(&self) -> Command {
        let mut command = Command::new(binary("landline"));
        command.env("LANDLINE_URL", self.url()).env("LANDLINE_DATA_DIR", self.data());
        command
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the master was started")
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the master was started");
        process.terminate(within).await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where the first administrator is made, as the master printed it; null once there is one.
    pub fn setup_link(&self) -> Option<String> {
        let log = self.log();
        let start = log.rfind(&format!("{}/setup#", self.url()))?;
        log[start..].split(|c: char| c.is_whitespace() || c == '"').next().map(str::to_owned)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("master.log")
    }

    /// Registers an agent and gives what the API answered: its secret and join token among it.
    pub async fn add(&self, id: &str) -> Value {
        let (status, body) = self.api().call(Method::POST, "/agents", Some(json!({ "id": id }))).await;
        assert_eq!(status, 201, "{body}");
        body
    }

    /// Registers and starts an agent that allows everything, and waits until it is online.
    pub async fn agent(&self, id: &str) -> Agent {
        self.agent_under(id, Some(ALLOW_ALL)).await
    }

    /// The same behind a link that the test can make bad. `seed` decides which packets will be lost.
    pub async fn agent_behind(&self, id: &str, seed: u64) -> (Agent, Link) {
        let link = Link::start(([127, 0, 0, 1], self.public_port).into(), seed).await;
        let mut agent = Agent::new(&self.add(id).await, Some(ALLOW_ALL));
        agent.through(&link);
        agent.start();
        self.api().online(id, Duration::from_secs(10)).await;
        (agent, link)
    }

    /// A master whose public listener is at its end of a lab's link; the test reaches its API as ever.
    pub async fn start_in(lab: &Lab) -> Self {
        let mut master = Self::prepare_at(lab.master_side().address, "", "");
        master.run().await;
        master
    }

    /// Registers and starts an agent at the other end of it, and waits until it is online.
    pub async fn agent_in(&self, lab: &Lab, id: &str) -> Agent {
        let mut agent = Agent::new(&self.add(id).await, Some(ALLOW_ALL));
        agent.confine(lab.agent_side().prefix());
        agent.start();
        self.api().online(id, Duration::from_secs(20)).await;
        agent
    }

    /// The same under a policy of its own; `None` for no policy file.
    pub async fn agent_under(&self, id: &str, policy: Option<&str>) -> Agent {
        let mut agent = Agent::new(&self.add(id).await, policy);
        agent.start();
        self.api().online(id, Duration::from_secs(10)).await;
        agent
    }

    /// The ports on which this master's tunnels listen, as the kernel sees it.
    pub fn listening(&self) -> std::collections::BTreeSet<u16> {
        crate::sockets::listening(self.range.clone())
    }

    /// The ports of its tunnels that are pending or active, as its rows say.
    pub async fn rows(&self) -> std::collections::BTreeSet<u16> {
        let tunnels = self.api().get("/tunnels?limit=200").await;
        let open = |tunnel: &&Value| matches!(tunnel["status"].as_str(), Some("pending" | "active"));
        tunnels["items"].as_array().expect("items").iter().filter(open).map(crate::api::port_of).collect()
    }

    /// Holds for listening sockets and rows: they are the same (SECURITY R41).
    pub async fn sockets_equal_rows(&self) {
        eventually(Duration::from_secs(3), "listening sockets equal rows", || async {
            (self.listening() == self.rows().await).then_some(())
        })
        .await;
    }
}
