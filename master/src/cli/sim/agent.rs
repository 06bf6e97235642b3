//! One simulated agent: enrols, keeps a line, beats, and comes back when it is lost. Knows nothing of the others.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::bail;
use certs::{
    identity::AgentKey,
    join::{JoinToken, Pin},
    tls,
};
use proto::{
    code::Code,
    control::{FromAgent, FromMaster, Heartbeat, Hello, HelloReply},
    enrol::{EnrolReply, EnrolRequest},
    id::{AgentId, InstanceId},
    limits::{FRAME_MAX, FRAME_MAX_UNAUTHENTICATED, HEADER_WITHIN, KEEP_ALIVE, SILENT_KEEP_ALIVES},
    net::{
        carrier::Dialed,
        heard::Heard,
        stream::{FrameStream, RecvHalf, SendHalf, close},
    },
    open::{Open, OpenReply, Refused},
    stats::Stats,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    carrier::{SimCarrier, SimDialer},
    report::Counters,
};
use crate::{api::dto::agent::Credentials, cli::output};

const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
const LOOK_FOR_SILENCE: Duration = Duration::from_secs(1);

/// What one agent starts from.
pub(super) struct Setup {
    id: AgentId,
    secret: SecretString,
    pin: Pin,
    dialer: SimDialer,
    key: AgentKey,
}

impl Setup {
    pub(super) async fn new(credentials: &Credentials, key_path: PathBuf, carrier: SimCarrier) -> anyhow::Result<Self> {
        let token: JoinToken = credentials.join_token.parse()?;
        let dialer = SimDialer::new(&token.address, carrier).await?;
        let key = AgentKey::load_or_create(&key_path)?;
        Ok(Self { id: token.agent_id, secret: token.secret, pin: token.pin, dialer, key })
    }
}

pub(super) struct SimAgent {
    setup: Setup,
    instance: InstanceId,
    certificate: Option<Vec<u8>>,
    counters: Arc<Counters>,
    handshakes: Arc<Semaphore>,
    ending: CancellationToken,
}

impl SimAgent {
    pub(super) fn new(
        setup: Setup,
        counters: Arc<Counters>,
        handshakes: Arc<Semaphore>,
        ending: CancellationToken,
    ) -> Self {
        Self { setup, instance: InstanceId::random(), certificate: None, counters, handshakes, ending }
    }

    /// Until told to end.
    pub(super) async fn run(mut self) {
        let ending = self.ending.clone();
        let mut failures = 0_u32;
        let mut lost: Option<Instant> = None;
        while !ending.is_cancelled() {
            let result = tokio::select! {
                biased;
                () = ending.cancelled() => return,
                line = self.connect() => line,
            };
            match result {
                Ok(line) => {
                    if let Some(lost) = lost {
                        self.counters.returned(lost.elapsed(), failures + 1);
                    }
                    failures = 0;
                    self.counters.up();
                    let code = line.serve(&self).await;
                    self.counters.down(code);
                    lost = Some(Instant::now());
                }
                Err(error) => {
                    self.counters.failed(&error);
                    failures += 1;
                }
            }
            let ceiling = BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(BACK_OFF_MAX);
            tokio::select! {
                biased;
                () = ending.cancelled() => {}
                () = tokio::time::sleep(ceiling.mul_f64(rand::random())) => {}
            }
        }
    }

    async fn connect(&mut self) -> anyhow::Result<Line> {
        let _permit = self.handshakes.clone().acquire_owned().await?;
        let started = Instant::now();
        let certificate = match &self.certificate {
            Some(certificate) => certificate.clone(),
            None => {
                let certificate = self.enrol().await?;
                self.counters.enrolled(started.elapsed());
                self.certificate.insert(certificate).clone()
            }
        };
        let started = Instant::now();
        let config = tls::agent_line_config(&self.setup.pin, &self.setup.key, &certificate, output::now_ms())?;
        let dialed = self.setup.dialer.dial(config).await?;
        let line = self.hello(dialed).await?;
        self.counters.connected(started.elapsed());
        Ok(line)
    }

    async fn enrol(&self) -> anyhow::Result<Vec<u8>> {
        let config = tls::agent_enrol_config(&self.setup.pin, None, output::now_ms())?;
        let dialed = self.setup.dialer.dial(config).await?;
        let (send, recv) = dialed.connection.open_bi().await?;
        let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
        let request = EnrolRequest::Enrol {
            agent_id: self.setup.id.clone(),
            secret: self.setup.secret.expose_secret().to_owned(),
            csr_der: self.setup.key.csr_der()?,
        };
        stream.send.write_frame(&request).await?;
        stream.send.finish();
        let reply = stream.read_within::<EnrolReply>(HEADER_WITHIN).await?;
        close(&dialed.connection, Code::DONE);
        match reply {
            EnrolReply::Issued(issued) => Ok(issued.certificate_der),
            EnrolReply::Refused(refusal) => bail!("enrolment refused: {}", refusal.code),
            EnrolReply::Waits { .. } => bail!("the master waits for approval"),
        }
    }

    async fn hello(&self, dialed: Dialed) -> anyhow::Result<Line> {
        let (send, recv) = dialed.connection.open_bi().await?;
        let mut control = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX_UNAUTHENTICATED);
        let hello = Hello {
            versions: proto::VERSIONS.to_vec(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: self.instance,
            os: "sim".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            hostname: self.setup.id.to_string(),
            capabilities: Vec::new(),
            carrier: dialed.carrier,
            keep_alive_ms: u32::try_from(KEEP_ALIVE.as_millis()).unwrap_or(u32::MAX),
        };
        control.send.write_frame(&hello).await?;
        match control.read_within::<HelloReply>(HEADER_WITHIN).await? {
            HelloReply::Welcome(welcome) => {
                let every = Duration::from_millis(welcome.heartbeat_interval_ms.into());
                Ok(Line { dialed, control, every })
            }
            HelloReply::Refused(refusal) => bail!("line refused: {}", refusal.code),
        }
    }
}

struct Line {
    dialed: Dialed,
    control: FrameStream,
    every: Duration,
}

impl Line {
    /// Beats and refuses work until the line or the run ends; the code says which.
    async fn serve(mut self, agent: &SimAgent) -> Code {
        // Spread over the interval, as a real fleet is.
        let first = Instant::now() + self.every.mul_f64(rand::random());
        let mut beats = interval_at(first, self.every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut look, mut heard) = (interval(LOOK_FOR_SILENCE), Heard::new(&self.dialed.connection));
        let mut seq = 0;
        let code = loop {
            tokio::select! {
                biased;
                () = agent.ending.cancelled() => {
                    let _ = self.control.send.write_frame(&FromAgent::Goodbye { code: Code::DONE }).await;
                    break Code::DONE;
                }
                error = self.dialed.connection.closed() => break proto::net::stream::close_code(&error),
                message = self.control.recv.next::<FromMaster>() => match message {
                    Ok(FromMaster::HeartbeatAck { .. }) => agent.counters.acknowledged(),
                    Ok(FromMaster::Drain { code, .. }) => break code,
                    // A simulated agent has one key, and visits nobody.
                    Ok(FromMaster::RotateKey | FromMaster::Work { .. }) => {}
                    Err(error) => break error.code(),
                },
                stream = self.dialed.connection.accept_bi() => match stream {
                    Ok((send, recv)) => refuse(SendHalf::new(send), RecvHalf::new(recv)).await,
                    Err(error) => break proto::net::stream::close_code(&error),
                },
                _ = look.tick() => if heard.silent_for(&self.dialed.connection) >= KEEP_ALIVE * SILENT_KEEP_ALIVES {
                    break Code::SILENT;
                },
                _ = beats.tick() => {
                    seq += 1;
                    let beat = Heartbeat { seq, stats: sample(), rtt_us: rtt_us(&self.dialed.connection) };
                    if self.control.send.write_frame(&FromAgent::Heartbeat(beat)).await.is_err() {
                        break Code::LINE_LOST;
                    }
                    agent.counters.beat();
                }
            }
        };
        close(&self.dialed.connection, code);
        self.dialed.finish(HEADER_WITHIN).await;
        code
    }
}

/// A simulated agent has no machine to work on.
async fn refuse(send: SendHalf, recv: RecvHalf) {
    let mut stream = FrameStream::new(send, recv, FRAME_MAX);
    if stream.read_within::<Open>(HEADER_WITHIN).await.is_ok() {
        let refused = Refused { code: Code::POLICY, message: "a simulated agent does no work".to_owned() };
        let _ = stream.send.write_frame(&OpenReply::Refused(refused)).await;
        stream.send.finish();
    }
}

fn rtt_us(connection: &quinn::Connection) -> u32 {
    u32::try_from(connection.rtt().as_micros()).unwrap_or(u32::MAX)
}

/// As large as a small server's.
fn sample() -> Stats {
    Stats {
        cpu_percent: rand::random_range(0.0..100.0),
        memory_used_bytes: 2 << 30,
        memory_total_bytes: 8 << 30,
        load: [0.3, 0.2, 0.1],
        uptime_s: 86_400,
        processes: 120,
        disks: vec![proto::stats::Disk { mount: "/".to_owned(), used_bytes: 20 << 30, total_bytes: 100 << 30 }],
        networks: vec![proto::stats::Network {
            interface: "eth0".to_owned(),
            received_bytes: 1 << 30,
            sent_bytes: 1 << 29,
        }],
        ..Stats::default()
    }
}
