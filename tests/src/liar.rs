//! A hostile master: speaks the real protocol under its own CA, and sends what no honest one would. Agents enrol with it
//! like with any other.

use std::{path::Path, time::Duration};

use certs::{
    authority::Authority,
    join::{JoinToken, generate_secret},
    tls,
};
use proto::{
    ALPN_ENROL,
    control::{FromAgent, Hello, HelloReply, Welcome},
    enrol::{EnrolReply, EnrolRequest, Issued},
    id::{AgentId, LineEpoch, RequestId},
    limits::FRAME_MAX,
    net::{
        frame::{FrameError, encode_frame},
        quic::{self, EndpointKeys, Tuning},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
    open::{Open, OpenReply, Operation},
    wire::Message,
};
use tokio::io::AsyncWriteExt;

const PATIENCE: Duration = Duration::from_secs(15);
const DAY_MS: i64 = 24 * 3_600_000;

/// The liar and its one agent.
pub struct Liar {
    authority: Authority,
    endpoint: quinn::Endpoint,
    agent: AgentId,
}

/// A line to the real agent, as its master holds it.
pub struct LiarLine {
    connection: quinn::Connection,
    control: FrameStream,
    pub hello: Hello,
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

impl Liar {
    /// Listens on a free port of loopback.
    pub fn start(folder: &Path, agent: &str) -> Self {
        let authority = Authority::load_or_create(&folder.join("ca")).expect("a CA");
        let identity = authority.server_identity(&folder.join("ca")).expect("an identity");
        let config = tls::server_config(&authority, &identity).expect("a TLS configuration");
        let keys = EndpointKeys::from_bytes(&[7; EndpointKeys::LENGTH]);
        let endpoint = quic::server_endpoint(([127, 0, 0, 1], 0).into(), config, &keys, &Tuning::default());
        Self { authority, endpoint: endpoint.expect("an endpoint"), agent: agent.parse().expect("an agent id") }
    }

    /// What `POST /agents` of an honest master would answer, as far as the harness needs it.
    pub fn created(&self) -> serde_json::Value {
        let token = JoinToken {
            address: self.endpoint.local_addr().expect("an address").to_string(),
            pin: self.authority.pin(),
            agent_id: self.agent.clone(),
            secret: generate_secret(),
        };
        serde_json::json!({ "id": self.agent, "join_token": token.expose() })
    }

    /// Waits for the agent's line, enrolling it on the way. The clock it claims is `master_time_ms`.
    pub async fn line(&self, master_time_ms: i64) -> LiarLine {
        tokio::time::timeout(PATIENCE, self.try_line(master_time_ms)).await.expect("the agent connects")
    }

    async fn try_line(&self, master_time_ms: i64) -> LiarLine {
        loop {
            let incoming = self.endpoint.accept().await.expect("the endpoint lives");
            let Ok(connection) = incoming.await else { continue };
            let Ok((send, recv)) = connection.accept_bi().await else { continue };
            let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
            let data = connection.handshake_data().expect("a handshake");
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().expect("rustls");
            if data.protocol.as_deref() == Some(ALPN_ENROL) {
                self.enrol(&connection, &mut stream).await;
                continue;
            }
            let Ok(hello) = stream.read_within::<Hello>(PATIENCE).await else { continue };
            let welcome = Welcome {
                version: 1,
                line_epoch: LineEpoch(1),
                master_time_ms,
                heartbeat_interval_ms: 15_000,
                master_version: "liar".to_owned(),
            };
            stream.send.write_frame(&HelloReply::Welcome(welcome)).await.expect("the agent reads");
            return LiarLine { connection, control: stream, hello };
        }
    }

    async fn enrol(&self, connection: &quinn::Connection, stream: &mut FrameStream) {
        let request = stream.read_within::<EnrolRequest>(PATIENCE).await.expect("an enrolment");
        let (EnrolRequest::Enrol { csr_der, .. }
        | EnrolRequest::Renew { csr_der }
        | EnrolRequest::EnrolWithKey { csr_der, .. }) = request;
        let issued = self.authority.issue_agent(&csr_der, &self.agent, now_ms() + DAY_MS).expect("a certificate");
        let reply =
            Issued { certificate_der: issued.der, ca_der: self.authority.ca_der().to_vec(), master_time_ms: now_ms() };
        stream.send.write_frame(&EnrolReply::Issued(reply)).await.expect("the agent reads");
        stream.send.finish();
        connection.closed().await;
    }
}

impl LiarLine {
    /// A header under the given id and time.
    pub fn header(request_id: RequestId, issued_at_ms: i64, operation: Operation) -> Open {
        Open { request_id, issued_at_ms, trace_id: [0; 16], operation }
    }

    /// Sends a header and gives the agent's answer and the stream behind it.
    pub async fn open(&self, open: &Open) -> (Result<OpenReply, FrameError>, FrameStream) {
        self.open_bytes(&encode_frame(open)).await
    }

    /// The same with bytes of the liar's choice.
    pub async fn open_bytes(&self, bytes: &[u8]) -> (Result<OpenReply, FrameError>, FrameStream) {
        let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
        send.write_all(bytes).await.expect("the agent reads");
        send.flush().await.expect("the agent reads");
        let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
        let reply = stream.read_within::<OpenReply>(PATIENCE).await;
        (reply, stream)
    }

    /// Sends any message on the control stream.
    pub async fn tell(&mut self, message: &impl Message) {
        self.control.send.write_frame(message).await.expect("the agent reads");
    }

    /// The next control message of the agent.
    pub async fn hear(&mut self) -> FromAgent {
        self.control.read_within::<FromAgent>(Duration::from_secs(30)).await.expect("the agent speaks")
    }

    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }
}
