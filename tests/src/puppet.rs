//! An agent played by the test: speaks the real codec with real keys and says whatever it is told to.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use certs::{
    identity::AgentKey,
    join::{JoinToken, Pin},
    tls,
};
use proto::{
    ALPN_LINE,
    code::Code,
    control::{Carrier, FromAgent, FromMaster, Hello, HelloReply},
    enrol::{EnrolReply, EnrolRequest},
    id::InstanceId,
    limits::FRAME_MAX,
    net::{
        carrier::{DialError, Dialed, Dialer},
        frame::FrameError,
        quic::{self, Tuning},
        stream::{FrameStream, RecvHalf, SendHalf, close_code},
    },
    open::Open,
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

/// A puppet's line; what drives it lives as long as it does.
pub struct PuppetLine {
    pub connection: quinn::Connection,
    pub control: FrameStream,
    _dialed: Dialed,
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
    let dialer = Dialer { tuning: Tuning::default() };
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

/// One enrolment with a key that stands for many, under the name of `token`.
pub async fn enrol_with_key(token: &JoinToken, key: &AgentKey, secret: &str) -> Result<EnrolReply, FrameError> {
    let csr_der = key.csr_der().expect("a request");
    let request = EnrolRequest::EnrolWithKey { name: token.agent_id.clone(), key: secret.to_owned(), csr_der };
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

/// Dials under the ALPN of lines without any certificate.
pub async fn knock_without_certificate(token: &JoinToken) -> Result<Dialed, DialError> {
    let config = tls::agent_enrol_config(&token.pin, None, 0).expect("a TLS configuration");
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![ALPN_LINE.to_vec()];
    dial(&token.address, Arc::new(config)).await
}

/// First packets of `count` handshakes, each of a connection of its own, caught before anybody answers.
pub async fn first_packets(token: &JoinToken, count: usize) -> Vec<Vec<u8>> {
    let catcher = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = catcher.local_addr().expect("an address");
    let config = tls::agent_enrol_config(&token.pin, None, 0).expect("a TLS configuration");
    let endpoint = quic::client_endpoint(address, config, &Tuning::default()).expect("an endpoint");
    // One that is dropped says goodbye, and one that waits says hello again: the catch is told apart by connection id.
    let (mut attempts, mut packets) = (Vec::with_capacity(count), BTreeMap::new());
    let mut packet = [0; 2048];
    while packets.len() < count {
        attempts.push(endpoint.connect(address, tls::SERVER_NAME).expect("a handshake"));
        while packets.len() < attempts.len() {
            let length = tokio::time::timeout(PATIENCE, catcher.recv(&mut packet)).await;
            let caught = packet[..length.expect("a packet leaves").expect("it is caught")].to_vec();
            // Flags, version, then the destination's connection id behind its length.
            let id = caught[6..6 + usize::from(caught[5])].to_vec();
            packets.entry(id).or_insert(caught);
        }
    }
    packets.into_values().collect()
}

/// Waits until the other end closes, and gives its code.
pub async fn closed(connection: &quinn::Connection, within: Duration) -> Code {
    let error = tokio::time::timeout(within, connection.closed()).await;
    close_code(&error.unwrap_or_else(|_| panic!("the connection still stands after {within:?}")))
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

    /// Connects under its certificate and says nothing.
    pub async fn knock(&self) -> Result<Dialed, DialError> {
        let config = tls::agent_line_config(&self.token.pin, &self.key, &self.certificate_der, 0).expect("TLS");
        dial(&self.token.address, config).await
    }

    /// Says `hello` and gives the master's answer with the line.
    pub async fn hello(&self, hello: &Hello) -> Result<(HelloReply, PuppetLine), FrameError> {
        let dialed = self.knock().await.map_err(|error| FrameError::Io(std::io::Error::other(error)))?;
        Self::hello_over(dialed, hello).await
    }

    /// The same over whatever was dialled.
    pub async fn hello_over(dialed: Dialed, hello: &Hello) -> Result<(HelloReply, PuppetLine), FrameError> {
        let mut control = open(&dialed).await;
        control.send.write_frame(hello).await?;
        let reply = control.read_within(PATIENCE).await?;
        Ok((reply, PuppetLine { connection: dialed.connection.clone(), control, _dialed: dialed }))
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

    /// The next stream that the master opens, with its header; `None` once the line is gone.
    pub async fn work(connection: &quinn::Connection) -> Option<(Open, FrameStream)> {
        let (send, recv) = connection.accept_bi().await.ok()?;
        let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
        let open = stream.read_within(PATIENCE).await.ok()?;
        Some((open, stream))
    }
}

/// The pin of another CA: what an attacker's master would have.
pub fn foreign_pin(folder: &Path) -> Pin {
    certs::authority::Authority::load_or_create(&folder.join("foreign-ca")).expect("a CA").pin()
}
