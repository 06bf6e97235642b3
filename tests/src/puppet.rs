//! An agent played by the test: speaks the real codec with real keys and says whatever it is told to.

use std::{path::Path, sync::Arc, time::Duration};

use certs::{
    identity::AgentKey,
    join::{JoinToken, Pin},
    tls,
};
use proto::{
    control::{Carrier, FromAgent, FromMaster, Hello, HelloReply},
    enrol::{EnrolReply, EnrolRequest},
    id::InstanceId,
    limits::FRAME_MAX,
    net::{
        carrier::{DialError, Dialed, Dialer},
        frame::FrameError,
        quic::Tuning,
        stream::{FrameStream, RecvHalf, SendHalf},
    },
};
use secrecy::ExposeSecret;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// What an agent has once it is enrolled.
pub struct Puppet {
    pub token: JoinToken,
    pub key: AgentKey,
    pub certificate_der: Vec<u8>,
}

/// A puppet's line; the endpoint lives as long as it does.
pub struct PuppetLine {
    pub connection: quinn::Connection,
    pub control: FrameStream,
    _endpoint: quinn::Endpoint,
}

/// The join token that the API gave out.
pub fn token(created: &Value) -> JoinToken {
    created["join_token"].as_str().expect("a join token").parse().expect("a good join token")
}

pub fn hello() -> Hello {
    Hello {
        versions: vec![1],
        agent_version: "puppet".to_owned(),
        instance_id: InstanceId::random(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: "puppet".to_owned(),
        capabilities: vec!["forward".to_owned()],
        carrier: Carrier::Udp,
        keep_alive_ms: 5_000,
    }
}

async fn dial(address: &str, config: Arc<rustls::ClientConfig>) -> Result<Dialed, DialError> {
    let dialer = Dialer { carrier: Carrier::Udp, tuning: Tuning::default() };
    dialer.dial(address.parse().expect("an address"), config, tls::SERVER_NAME).await
}

async fn open(dialed: &Dialed) -> FrameStream {
    let (send, recv) = dialed.connection.open_bi().await.expect("a stream");
    FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX)
}

/// One enrolment with `secret`, which need not be the token's.
pub async fn enrol(token: &JoinToken, key: &AgentKey, secret: &str) -> Result<EnrolReply, FrameError> {
    let csr_der = key.csr_der().expect("a request");
    let request = EnrolRequest::Enrol { agent_id: token.agent_id.clone(), secret: secret.to_owned(), csr_der };
    ask(token, None, &request).await
}

/// A renewal under the given certificate.
pub async fn renew(token: &JoinToken, key: &AgentKey, certificate_der: &[u8]) -> Result<EnrolReply, FrameError> {
    let request = EnrolRequest::Renew { csr_der: key.csr_der().expect("a request") };
    ask(token, Some((key, certificate_der)), &request).await
}

async fn ask(
    token: &JoinToken,
    client: Option<(&AgentKey, &[u8])>,
    request: &EnrolRequest,
) -> Result<EnrolReply, FrameError> {
    let config = tls::agent_enrol_config(&token.pin, client, 0).expect("a TLS configuration");
    let dialed = dial(&token.address, config).await.map_err(|error| FrameError::Io(std::io::Error::other(error)))?;
    let mut stream = open(&dialed).await;
    stream.send.write_frame(request).await?;
    stream.read_within(PATIENCE).await
}

/// A fresh key in a folder of its own.
pub fn new_key(folder: &Path, name: &str) -> AgentKey {
    AgentKey::load_or_create(&folder.join(name)).expect("a key")
}

impl Puppet {
    /// Enrols with what the API gave out.
    pub async fn enrolled(created: &Value, folder: &Path) -> Self {
        let token = token(created);
        let key = new_key(folder, &format!("{}.key", token.agent_id));
        match enrol(&token, &key, token.secret.expose_secret()).await {
            Ok(EnrolReply::Issued(issued)) => Self { token, key, certificate_der: issued.certificate_der },
            other => panic!("not enrolled: {other:?}"),
        }
    }

    /// Says `hello` and gives the master's answer with the line.
    pub async fn hello(&self, hello: &Hello) -> Result<(HelloReply, PuppetLine), FrameError> {
        let config = tls::agent_line_config(&self.token.pin, &self.key, &self.certificate_der, 0).expect("TLS");
        let dialed =
            dial(&self.token.address, config).await.map_err(|error| FrameError::Io(std::io::Error::other(error)))?;
        let mut control = open(&dialed).await;
        control.send.write_frame(hello).await?;
        let reply = control.read_within(PATIENCE).await?;
        Ok((reply, PuppetLine { connection: dialed.connection, control, _endpoint: dialed.endpoint }))
    }

    /// A line, or a panic with the refusal.
    pub async fn line(&self) -> PuppetLine {
        match self.hello(&hello()).await {
            Ok((HelloReply::Welcome(_), line)) => line,
            Ok((HelloReply::Refused(refusal), _)) => panic!("refused: {refusal:?}"),
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

impl PuppetLine {
    pub async fn tell(&mut self, message: &FromAgent) {
        self.control.send.write_frame(message).await.expect("the master reads");
    }

    pub async fn hear(&mut self) -> Result<FromMaster, FrameError> {
        self.control.read_within(PATIENCE).await
    }
}

/// The pin of another CA: what an attacker's master would have.
pub fn foreign_pin(folder: &Path) -> Pin {
    certs::authority::Authority::load_or_create(&folder.join("foreign-ca")).expect("a CA").pin()
}
