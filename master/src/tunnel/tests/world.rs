//! A master's tunnels on a real fleet and store, and agents that speak the real protocol over real QUIC.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use certs::{authority::Authority, identity::AgentKey, tls};
use proto::{
    code::Code,
    control::{Carrier, FromAgent, Heartbeat, Hello, HelloReply},
    id::{AgentId, InstanceId, TunnelId},
    limits::FRAME_MAX,
    net::{
        carrier::{Dialed, Dialer},
        credit::{CreditPool, LineCredit, PROCESS_CREDIT_MAX},
        frame::FrameReader,
        quic::{AGENT_RECEIVE_WINDOW, EndpointKeys, ServerParts, Tuning, server_endpoint},
        relay::{Meter, relay},
        stream::{FrameStream, RecvHalf, SendHalf, close},
    },
    open::{Open, OpenReply, Opened, Operation, Refused},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    access::Limiter,
    clock::unix_ms,
    config::{self, Config},
    events::{Events, Subscription},
    fleet::{Fleet, FleetParts, LinkState, SteadyClock},
    metrics::Metrics,
    store::{
        Page, Store,
        agents::{NewAgent, NewSecret},
        audit::AuditEntry,
        enrolments::{Certificate, EnrolAttempt},
        labels::Labels,
        testing,
        tunnels::{ListenKind, Scheme, TunnelFilter, TunnelTarget},
    },
    tunnel::{By, NewTunnel, Parts, Tunnels, View},
};

const WITHIN: Duration = Duration::from_secs(10);

pub(super) struct World {
    pub(super) store: Store,
    pub(super) events: Events,
    pub(super) fleet: Arc<Fleet>,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) parts: Parts,
    authority: Arc<Authority>,
    master: SocketAddr,
    dir: TempDir,
}

/// Ports of one test: threads of one process and processes of one run stay apart.
fn own_range() -> std::ops::RangeInclusive<u16> {
    const WIDTH: u16 = 8;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = (std::process::id() % 1_000) as u16;
    let slot = (pid * 3 + NEXT.fetch_add(1, Ordering::Relaxed)) % 1_000;
    10_000 + slot * WIDTH..=10_000 + slot * WIDTH + WIDTH - 1
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut config::Tunnel)) -> Self {
        let (dir, store) = testing::sqlite().await;
        let metrics = Arc::new(Metrics::new().unwrap());
        let events = Events::new(0, unix_ms());
        let ca = dir.path().join("ca");
        let authority = Arc::new(Authority::load_or_create(&ca).unwrap());
        let identity = authority.server_identity(&ca).unwrap();
        let tls = tls::server_config(&authority, &identity).unwrap();
        let fleet = Fleet::new(FleetParts {
            store: store.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            authority: authority.clone(),
            limiter: Arc::new(Limiter::new()),
            clock: SteadyClock::start(),
            heartbeat_interval: Duration::from_secs(15),
            certificate_validity: Duration::from_secs(3_600),
            enrol_again_within: Duration::from_secs(600),
            websockets: ServerParts::new(tls.clone(), Tuning::default()).unwrap(),
        });
        let keys = EndpointKeys::from_bytes(&[7; EndpointKeys::LENGTH]);
        let endpoint = server_endpoint((Ipv4Addr::LOCALHOST, 0).into(), tls, &keys, &Tuning::default()).unwrap();
        let master = endpoint.local_addr().unwrap();
        fleet.start(endpoint);
        let mut config = Config::parse("", []).unwrap().config.tunnel;
        config.port_range = own_range();
        change(&mut config);
        let socket_dir = dir.path().join("tunnels");
        let parts =
            Parts { config, socket_dir, fleet: fleet.clone(), store: store.clone(), events: events.clone(), metrics };
        let tunnels = Tunnels::start(parts.clone()).await.unwrap();
        Self { store, events, fleet, tunnels, parts, authority, master, dir }
    }

    /// Stops the tunnels and starts them again on what the store holds.
    pub(super) async fn restart(&mut self) {
        self.tunnels.stop(WITHIN).await;
        assert!(listening(&self.parts.config.port_range).is_empty(), "a stopped master listens on nothing");
        self.tunnels = Tunnels::start(self.parts.clone()).await.unwrap();
    }

    /// Registers an agent, with a key and a certificate, and connects nothing.
    pub(super) async fn register(&self, name: &str) -> Identity {
        let agent: AgentId = name.parse().unwrap();
        let key = AgentKey::load_or_create(&self.dir.path().join(format!("{name}.key"))).unwrap();
        let audit = AuditEntry::new(unix_ms(), "local", "test");
        let secret = NewSecret { sha256: [1; 32], expires_at_ms: unix_ms() + 60_000 };
        let labels = Labels::default();
        let new = NewAgent { id: agent.clone(), external_id: None, labels, secret, now_ms: unix_ms() };
        self.store.agents().add(new, &audit).await.unwrap();
        let not_after_ms = unix_ms() + 3_600_000;
        let issued = self.authority.issue_agent(&key.csr_der().unwrap(), &agent, not_after_ms).unwrap();
        let attempt = EnrolAttempt {
            agent_id: &agent,
            secret_sha256: [1; 32],
            key_sha256: issued.key_sha256,
            now_ms: unix_ms(),
            idempotent: Duration::ZERO,
        };
        let certificate = Certificate { der: issued.der.clone(), not_after_ms };
        self.store.enrolments().enrol(attempt, |_| Ok(certificate), &audit).await.unwrap();
        Identity { agent, key, certificate: issued.der, instance: InstanceId::random(), refuse: Arc::default() }
    }

    /// A registered agent with a line.
    pub(super) async fn agent(&self, name: &str) -> (Identity, Peer) {
        let identity = self.register(name).await;
        let peer = self.connect(&identity).await;
        (identity, peer)
    }

    pub(super) async fn connect(&self, identity: &Identity) -> Peer {
        let tls = tls::agent_line_config(&self.authority.pin(), &identity.key, &identity.certificate, 0).unwrap();
        let dialer = Dialer { tuning: Tuning::default() };
        let dialed = dialer.dial(self.master, tls, tls::SERVER_NAME).await.unwrap();
        let connection = dialed.connection.clone();
        let (send, recv) = connection.open_bi().await.unwrap();
        let mut control = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
        let hello = Hello {
            versions: proto::VERSIONS.to_vec(),
            agent_version: "test".into(),
            instance_id: identity.instance,
            os: "linux".into(),
            arch: "x86_64".into(),
            hostname: "test".into(),
            capabilities: vec!["forward".into()],
            carrier: Carrier::Udp,
            keep_alive_ms: 5_000,
        };
        control.send.write_frame(&hello).await.unwrap();
        let HelloReply::Welcome(_) = control.read_within(WITHIN).await.unwrap() else { panic!("refused") };
        let up = |state: &LinkState| matches!(state, LinkState::Up { .. });
        tokio::time::timeout(WITHIN, self.fleet.watch(&identity.agent).wait_for(up)).await.unwrap().unwrap();
        let serving = tokio::spawn(serve(connection.clone(), identity.refuse.clone()));
        Peer { connection, control, _serving: AbortOnDropHandle::new(serving), _dialed: dialed, beats: 0 }
    }

    /// Opens a tunnel and waits until it is active or final.
    pub(super) async fn open(&self, new: NewTunnel) -> View {
        let created = self.tunnels.create(new).await.unwrap();
        self.tunnels.settled(created.id, WITHIN).await.unwrap().unwrap()
    }

    pub(super) async fn view(&self, id: TunnelId) -> View {
        self.tunnels.find(id).await.unwrap().unwrap()
    }

    /// Waits until the tunnel shows this final status; by then its row must say the same.
    pub(super) async fn ends(&self, id: TunnelId, status: &str, reason: &str) {
        let row = eventually("the tunnel ends", async || {
            let row = self.view(id).await.row;
            row.status.is_final().then_some(row)
        })
        .await;
        assert_eq!((row.status.word(), row.closed_reason.as_deref()), (status, Some(reason)));
        let stored = self.store.tunnels().find(id).await.unwrap().unwrap();
        assert_eq!((stored.status, &stored.closed_reason), (row.status, &row.closed_reason));
        assert!(stored.closed_at_ms.is_some());
        self.check_listeners().await;
    }

    /// Listening sockets = rows pending or active (SECURITY R41).
    pub(super) async fn check_listeners(&self) {
        let filter = TunnelFilter { open: true, ..TunnelFilter::default() };
        // Rows are read anew with each look: other tunnels of the test may be ending just now.
        eventually("listening sockets are the open rows", async || {
            let rows = self.store.tunnels().list(&filter, &Page::default()).await.unwrap();
            let ports: BTreeSet<_> = rows.items.iter().filter_map(|row| row.port).collect();
            (listening(&self.parts.config.port_range) == ports).then_some(())
        })
        .await;
    }

    /// The next event of this kind.
    pub(super) async fn event(&self, events: &mut Subscription, kind: &str) -> Arc<crate::events::Event> {
        let wanted = async {
            loop {
                let event = events.next().await.unwrap();
                if event.kind == kind {
                    return event;
                }
            }
        };
        tokio::time::timeout(WITHIN, wanted).await.unwrap_or_else(|_| panic!("no {kind}"))
    }
}

/// Loopback ports of the range on which something listens.
fn listening(range: &std::ops::RangeInclusive<u16>) -> BTreeSet<u16> {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == LISTEN)
        .filter_map(|row| u16::from_str_radix(row[1].split_once(':')?.1, 16).ok())
        .filter(|port| range.contains(port))
        .collect()
}

/// Looks again and again until there is something to see.
pub(super) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        // Between two looks; the deadline above bounds them.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A request for a plain tunnel to a loopback port.
pub(super) fn request(agent: &str, port: u16) -> NewTunnel {
    NewTunnel {
        agent: agent.parse().unwrap(),
        target: TunnelTarget { host: "127.0.0.1".into(), port, scheme: Scheme::Tcp },
        listen: ListenKind::Tcp,
        standing: false,
        ttl: None,
        heartbeat: false,
        idempotency_key: None,
        owner: "token-1".into(),
        by: by(),
    }
}

pub(super) fn by() -> By {
    By { actor: "token:token-1".into(), source: None }
}

pub(super) struct Identity {
    pub(super) agent: AgentId,
    key: AgentKey,
    certificate: Vec<u8>,
    instance: InstanceId,
    /// Answer every forward with this.
    pub(super) refuse: Arc<Mutex<Option<Code>>>,
}

/// An agent that is connected.
pub(super) struct Peer {
    pub(super) connection: quinn::Connection,
    control: FrameStream,
    beats: u64,
    _serving: AbortOnDropHandle<()>,
    _dialed: Dialed,
}

impl Peer {
    pub(super) fn leave(self) {
        self.leave_with(Code::SHUTDOWN);
    }

    pub(super) fn leave_with(self, code: Code) {
        close(&self.connection, code);
    }

    pub(super) async fn beat(&mut self) {
        self.beats += 1;
        let stats = proto::stats::Stats::default();
        let beat = FromAgent::Heartbeat(Heartbeat { seq: self.beats, stats, rtt_us: 0 });
        self.control.send.write_frame(&beat).await.unwrap();
    }
}

/// Serves forwards as an agent does.
async fn serve(connection: quinn::Connection, refuse: Arc<Mutex<Option<Code>>>) {
    let credit = LineCredit::new(connection.clone(), AGENT_RECEIVE_WINDOW, CreditPool::new(PROCESS_CREDIT_MAX));
    let mut streams = tokio::task::JoinSet::new();
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (credit, refuse) = (credit.clone(), refuse.clone());
        streams.spawn(async move {
            let (mut send, recv) = (SendHalf::new(send), RecvHalf::new(recv));
            let mut frames = FrameReader::new(recv, FRAME_MAX);
            let open: Open = frames.next_within(WITHIN).await.unwrap();
            let Operation::Forward(target) = open.operation else { panic!("not a forward") };
            let refused = *refuse.lock().unwrap();
            let socket = match refused {
                Some(code) => Err(code),
                None => TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|_| Code::TARGET_REFUSED),
            };
            match socket {
                Ok(socket) => {
                    let peer = Some(socket.peer_addr().unwrap().to_string());
                    send.write_frame(&OpenReply::Opened(Opened { peer })).await.unwrap();
                    let _ = relay(socket, send, frames.into_source(), &credit, &Meter::default()).await;
                }
                Err(code) => {
                    let refused = OpenReply::Refused(Refused { code, message: String::new() });
                    send.write_frame(&refused).await.unwrap();
                    send.finish();
                    let _ = send.stopped().await;
                }
            }
        });
    }
}
