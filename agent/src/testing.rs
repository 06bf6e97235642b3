//! What the tests of this crate stand on: a small honest master inside the test, and a dispatch of the agent across a
//! real line. Nothing here is in the product.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use certs::{authority::Authority, join::Pin, tls};
use proto::{
    ALPN_ENROL,
    code::Code,
    control::{FromAgent, Hello, HelloReply, Refusal, Welcome},
    enrol::{EnrolReply, EnrolRequest, Issued},
    id::{AgentId, LineEpoch, RequestId},
    limits::FRAME_MAX,
    net::{
        carrier::{Dialed, Dialer},
        frame::FrameError,
        quic::{EndpointKeys, Tuning, server_endpoint},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
    open::{Open, OpenReply, Operation},
};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::PolicyFile,
    dispatch::Dispatch,
    freshness::Freshness,
    journal::Journal,
    logbook::Logbook,
    policy::Policy,
    service::{
        command::Commands,
        exec::{Execs, Patience},
        files::{Files, Sealed},
        once::Once,
        shell::{self, Shells},
        stats::Sampler,
    },
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The master's time on a [`Bench`]: far from any real clock.
pub(crate) const NOW_MS: i64 = 2_200_000_000_000;

/// A master that answers what a test tells it to.
pub(crate) struct Master {
    pub(crate) folder: TempDir,
    authority: Authority,
    endpoint: quinn::Endpoint,
    agent: AgentId,
    /// The time it claims.
    pub(crate) clock_ms: i64,
}

/// A line as the master holds it.
pub(crate) struct Line {
    pub(crate) connection: quinn::Connection,
    pub(crate) control: FrameStream,
    pub(crate) hello: Hello,
}

impl Master {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&folder.path().join("ca")).unwrap();
        let server = authority.server_identity(&folder.path().join("ca")).unwrap();
        let config = tls::server_config(&authority, &server).unwrap();
        let keys = EndpointKeys::from_bytes(&[7; EndpointKeys::LENGTH]);
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = server_endpoint(any, config, &keys, &Tuning::default()).unwrap();
        Self {
            folder,
            authority,
            endpoint,
            agent: "home-1".parse().unwrap(),
            clock_ms: jiff::Timestamp::now().as_millisecond(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) fn pin(&self) -> Pin {
        self.authority.pin()
    }

    pub(crate) fn agent(&self) -> AgentId {
        self.agent.clone()
    }

    /// The next connection, its ALPN, and its first stream.
    pub(crate) async fn accept(&self) -> (quinn::Connection, bool, FrameStream) {
        let accepting = async {
            let connection = loop {
                // An agent that does not trust us hangs up in the handshake.
                if let Ok(connection) = self.endpoint.accept().await.unwrap().await {
                    break connection;
                }
            };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            let (send, recv) = connection.accept_bi().await.unwrap();
            let stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
            (connection, data.protocol.as_deref() == Some(ALPN_ENROL), stream)
        };
        tokio::time::timeout(PATIENCE, accepting).await.expect("a connection")
    }

    /// Answers one enrolment or renewal, and says which it was.
    pub(crate) async fn enrols(&self) -> EnrolRequest {
        let (connection, enrols, mut stream) = self.accept().await;
        assert!(enrols, "an enrolment was expected");
        let request: EnrolRequest = stream.read_within(PATIENCE).await.unwrap();
        let (EnrolRequest::Enrol { csr_der, .. }
        | EnrolRequest::Renew { csr_der }
        | EnrolRequest::EnrolWithKey { csr_der, .. }) = &request;
        let issued = self.authority.issue_agent(csr_der, &self.agent, i64::MAX / 2).unwrap();
        let ca_der = self.authority.ca_der().to_vec();
        let reply = Issued { certificate_der: issued.der, ca_der, master_time_ms: 0 };
        stream.send.write_frame(&EnrolReply::Issued(reply)).await.unwrap();
        stream.send.finish();
        connection.closed().await;
        request
    }

    /// Takes one line and answers its Hello.
    pub(crate) async fn answers(&self, reply: HelloReply) -> Line {
        let (connection, enrols, mut control) = self.accept().await;
        assert!(!enrols, "a line was expected");
        let hello: Hello = control.read_within(PATIENCE).await.unwrap();
        control.send.write_frame(&reply).await.unwrap();
        Line { connection, control, hello }
    }

    /// Refuses one line and waits until the agent has gone.
    pub(crate) async fn refuses(&self, code: Code, retry_after_ms: u32) {
        let refusal = Refusal { code, message: "for the test".into(), retry_after_ms };
        let line = self.answers(HelloReply::Refused(refusal)).await;
        tokio::time::timeout(PATIENCE, line.connection.closed()).await.expect("the agent hangs up");
    }

    pub(crate) async fn welcomes(&self) -> Line {
        self.answers(HelloReply::Welcome(Welcome {
            version: 1,
            line_epoch: LineEpoch(1),
            master_time_ms: self.clock_ms,
            heartbeat_interval_ms: 1_000,
            master_version: "test".into(),
        }))
        .await
    }

    /// Both ends of a fresh connection: the agent's and the master's.
    async fn pair(&self) -> (Dialed, quinn::Connection) {
        let tls = tls::agent_enrol_config(&self.pin(), None, 0).unwrap();
        let dialer = Dialer { tuning: Tuning::default() };
        let accepting = async { self.endpoint.accept().await.unwrap().await.unwrap() };
        let (dialed, accepted) = tokio::join!(dialer.dial(self.address(), tls, tls::SERVER_NAME), accepting);
        (dialed.unwrap(), accepted)
    }
}

impl Line {
    /// The next control message.
    pub(crate) async fn hears(&mut self) -> FromAgent {
        self.control.read_within(PATIENCE).await.unwrap()
    }
}

/// The agent's dispatch, served on a line of its own, and the master's end of that line.
pub(crate) struct Bench {
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) connection: quinn::Connection,
    pub(crate) shutdown: CancellationToken,
    pub(crate) master: Master,
    dialed: Option<Dialed>,
    /// Serves the line for as long as the bench lives.
    serving: AbortOnDropHandle<()>,
}

impl Bench {
    pub(crate) async fn start(policy: &str, patience: Patience) -> Self {
        Self::start_with(policy, patience, |_| {}).await
    }

    /// `prepare` may change the dispatch before it serves.
    pub(crate) async fn start_with(policy: &str, patience: Patience, prepare: impl FnOnce(&mut Dispatch)) -> Self {
        let master = Master::start();
        let shutdown = CancellationToken::new();
        let mut dispatch = dispatch(master.folder.path(), policy, patience, &shutdown);
        prepare(&mut dispatch);
        dispatch.freshness.learn(NOW_MS);
        let dispatch = Arc::new(dispatch);
        let (dialed, connection) = master.pair().await;
        let serving = tokio::spawn(dispatch.clone().serve(dialed.connection.clone(), dialed.carrier));
        let serving = AbortOnDropHandle::new(serving);
        Self { dispatch, connection, shutdown, master, dialed: Some(dialed), serving }
    }

    pub(crate) fn journal_dir(&self) -> std::path::PathBuf {
        self.master.folder.path().join("journal")
    }

    /// Opens a stream with a fresh header.
    pub(crate) async fn open(&self, operation: Operation) -> (Result<OpenReply, FrameError>, FrameStream) {
        self.open_as(RequestId::random(), NOW_MS, operation).await
    }

    pub(crate) async fn open_as(
        &self,
        request_id: RequestId,
        issued_at_ms: i64,
        operation: Operation,
    ) -> (Result<OpenReply, FrameError>, FrameStream) {
        let open = Open { request_id, issued_at_ms, trace_id: [0; 16], operation };
        self.open_bytes(&proto::net::frame::encode_frame(&open)).await
    }

    pub(crate) async fn open_bytes(&self, bytes: &[u8]) -> (Result<OpenReply, FrameError>, FrameStream) {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
        let reply = stream.read_within(PATIENCE).await;
        (reply, stream)
    }

    /// The agent is on a new line, the one before breaks without a word.
    pub(crate) async fn another_line(&mut self) {
        self.lose_line();
        let (dialed, connection) = self.master.pair().await;
        self.serving = AbortOnDropHandle::new(tokio::spawn(
            self.dispatch.clone().serve(dialed.connection.clone(), dialed.carrier),
        ));
        (self.dialed, self.connection) = (Some(dialed), connection);
    }

    /// The line breaks without a word.
    pub(crate) fn lose_line(&mut self) {
        self.dialed = None;
        self.connection.close(0u32.into(), b"");
    }
}

fn dispatch(folder: &Path, policy: &str, patience: Patience, shutdown: &CancellationToken) -> Dispatch {
    let file = folder.join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    let policy = Arc::new(Policy::load(&PolicyFile::Named(file)));
    assert_eq!(policy.mistakes(), &[] as &[String]);
    let (journal, recovered) = Journal::open(&folder.join("journal")).unwrap();
    let once = Once::new(journal);
    let execs = Execs::new(policy.clone(), once.clone(), patience, shutdown.clone());
    let patience = shell::Patience { unattached: patience.unread, grace: patience.grace, ..shell::Patience::default() };
    let shells = Shells::new(policy.clone(), once.clone(), patience, shutdown.clone());
    let files = Files::new(&policy, Sealed::new(&folder.join("journal")), once.clone());
    let commands = Commands::new(policy.clone(), once, Sampler::default(), folder.join("actions.d"));
    let (logbook, writer) = Logbook::open(folder, 1 << 20).unwrap();
    // It ends with the last handle of the log.
    drop(tokio::spawn(writer.run()));
    Dispatch::new(policy, logbook, Arc::new(Freshness::new(recovered.taken)), commands, execs, shells, files)
}

/// Waits until `done`; fails the test naming `what` after a while.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a process is gone.
pub(crate) async fn until_gone(pid: i32) {
    until(&format!("process {pid} is gone"), || crate::platform::start_time(pid).is_none()).await;
}
