//! Whole agents in this process against a small master: enrol, connect, be refused, fall silent, come back.

use std::{future::pending, net::SocketAddr, sync::Mutex};

use proto::{
    control::{FromAgent, FromMaster},
    enrol::EnrolRequest,
    net::quic::Congestion,
};
use tokio::{net::UdpSocket, task::JoinHandle};

use super::*;
use crate::{
    app::{self, StartError},
    config::{Config, Join, PolicyFile, Proof, carrier::Wanted},
    state::status_socket,
    testing::{Line, Master, PATIENCE, until},
};

struct Running {
    task: JoinHandle<Result<(), StartError>>,
    shutdown: CancellationToken,
    config: Config,
}

impl Running {
    fn start(config: Config) -> Self {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(app::run(config.clone(), shutdown.clone()));
        Self { task, shutdown, config }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        assert!(!status_socket(&self.config.state_dir).exists(), "nothing is left behind");
    }
}

fn config(master: &Master, address: SocketAddr, state: &str) -> Config {
    Config {
        join: Join {
            master: Some(address.to_string().parse().unwrap()),
            pin: Some(master.pin()),
            agent_id: Some(master.agent()),
            proof: Some(Proof::Secret("a secret of some length".to_owned().into())),
            left_by_installer: None,
        },
        state_dir: master.folder.path().join(state),
        actions_dir: master.folder.path().join("actions.d"),
        policy_file: PolicyFile::Default("/nonexistent/policy.toml".into()),
        on_demand: None,
        carrier: Wanted::Auto,
        proxy: None,
        keep_alive: Duration::from_secs(1),
        congestion: Congestion::Cubic,
        gso: true,
        worker_threads: 1,
        own_log_max: 1 << 20,
        log_level: "info".into(),
        log_json: false,
    }
}

/// The policy comes first, then what went wrong before.
async fn history(line: &mut Line) -> Vec<Code> {
    assert!(matches!(line.hears().await, FromAgent::Policy { text } if text.contains("localhost:*")));
    match line.hears().await {
        FromAgent::History(attempts) => attempts.iter().map(|attempt| attempt.code).collect(),
        FromAgent::Heartbeat(_) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_enrols_once_connects_tells_its_state_and_says_goodbye() {
    let master = Master::start();
    let config = config(&master, master.address(), "state");
    let agent = Running::start(config.clone());
    assert!(matches!(master.enrols().await, EnrolRequest::Enrol { secret, .. } if secret == "a secret of some length"));
    let mut line = master.welcomes().await;
    assert_eq!(line.hello.capabilities, ["forward", "command"]);
    assert_eq!((line.hello.versions.as_slice(), line.hello.keep_alive_ms), (&[1][..], 1_000));
    assert!(history(&mut line).await.is_empty());
    for seq in 2..4 {
        match line.hears().await {
            FromAgent::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.seq, seq);
                assert!(heartbeat.stats.memory_total_bytes > 0);
            }
            other => panic!("{other:?}"),
        }
    }
    let status = read_status(&config).await;
    assert!(status["since"].is_string() && status["master_version"] == "test");
    assert_eq!((status["line"].as_str(), status["epoch"].as_u64()), (Some("online"), Some(1)));
    let instance = line.hello.instance_id;
    agent.shutdown.cancel();
    while !matches!(line.hears().await, FromAgent::Goodbye { code: Code::SHUTDOWN }) {}
    agent.stop().await;
    // The key and the certificate stay: the next start enrols no more, even with nothing configured.
    let agent = Running::start(Config { join: Join::default(), ..config });
    let line = master.welcomes().await;
    assert_ne!(line.hello.instance_id, instance, "another run is another instance");
    agent.stop().await;
}

async fn read_status(config: &Config) -> serde_json::Value {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    let mut socket = tokio::net::UnixStream::connect(status_socket(&config.state_dir)).await.unwrap();
    socket.read_to_string(&mut text).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn refusals_are_obeyed_and_told_with_the_next_line() {
    let master = Master::start();
    let agent = Running::start(config(&master, master.address(), "state"));
    master.enrols().await;
    master.refuses(Code::BUSY, 1).await;
    master.refuses(Code::SUSPENDED, 1).await;
    let mut line = master.welcomes().await;
    assert_eq!(history(&mut line).await, [Code::BUSY, Code::SUSPENDED]);
    line.connection.close(Code::HEARTBEAT_LOST.0.into(), b"");
    let mut line = master.welcomes().await;
    assert_eq!(history(&mut line).await, [Code::HEARTBEAT_LOST], "what was told is not told again");
    agent.stop().await;
}

#[tokio::test]
async fn what_it_can_put_right_it_does_at_once() {
    let master = Master::start();
    let agent = Running::start(config(&master, master.address(), "state"));
    master.enrols().await;
    master.refuses(Code::CERTIFICATE_EXPIRED, 0).await;
    assert!(matches!(master.enrols().await, EnrolRequest::Renew { .. }));
    master.refuses(Code::UNKNOWN_IDENTITY, 0).await;
    assert!(matches!(master.enrols().await, EnrolRequest::Enrol { .. }));
    master.welcomes().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_by_the_masters_time() {
    let mut master = Master::start();
    master.clock_ms += 25 * 86_400_000;
    let agent = Running::start(config(&master, master.address(), "state"));
    master.enrols().await;
    // Welcome says that two thirds of the certificate's life are over; the renewal goes beside the line.
    let mut line = master.welcomes().await;
    assert!(matches!(master.enrols().await, EnrolRequest::Renew { .. }));
    assert!(matches!(line.hears().await, FromAgent::Policy { .. }));
    assert!(line.connection.close_reason().is_none());
    agent.stop().await;
}

#[tokio::test]
async fn a_drain_sends_it_away_and_back_when_it_was_told() {
    let master = Master::start();
    let agent = Running::start(config(&master, master.address(), "state"));
    master.enrols().await;
    let mut line = master.welcomes().await;
    let drain = FromMaster::Drain { code: Code::SHUTDOWN, grace_ms: 0, retry_after_ms: 100 };
    line.control.send.write_frame(&drain).await.unwrap();
    assert_eq!(stream_code(&line.connection.closed().await), Code::SHUTDOWN);
    master.welcomes().await;
    agent.stop().await;
}

fn stream_code(reason: &quinn::ConnectionError) -> Code {
    proto::net::stream::close_code(reason)
}

/// Forwards datagrams of many clients to the master until it is told to be deaf to those that came before.
struct Relay {
    address: SocketAddr,
    deaf_to: Arc<Mutex<Vec<SocketAddr>>>,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    async fn start(master: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let (deaf_to, clients) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<SocketAddr>>>::default());
        let (deaf, known) = (deaf_to.clone(), clients.clone());
        let task = tokio::spawn(async move {
            let mut backs: Vec<(SocketAddr, Arc<UdpSocket>, AbortOnDropHandle<()>)> = Vec::new();
            let mut buffer = vec![0; 65_536];
            loop {
                let (length, from) = front.recv_from(&mut buffer).await.unwrap();
                if deaf.lock().unwrap().contains(&from) {
                    continue;
                }
                if !backs.iter().any(|(client, _, _)| *client == from) {
                    known.lock().unwrap().push(from);
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    let returning = tokio::spawn(give_back(back.clone(), front.clone(), from, deaf.clone()));
                    backs.push((from, back, AbortOnDropHandle::new(returning)));
                }
                let back = backs.iter().find(|(client, _, _)| *client == from).unwrap();
                back.1.send_to(&buffer[..length], master).await.unwrap();
            }
        });
        Self { address, deaf_to, clients, _task: AbortOnDropHandle::new(task) }
    }

    fn deafen(&self) {
        *self.deaf_to.lock().unwrap() = self.clients.lock().unwrap().clone();
    }
}

async fn give_back(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, deaf: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let length = back.recv(&mut buffer).await.unwrap();
        if !deaf.lock().unwrap().contains(&to) {
            front.send_to(&buffer[..length], to).await.unwrap();
        }
    }
}

#[tokio::test]
async fn silence_is_noticed_and_a_fresh_line_dialled() {
    let master = Master::start();
    let relay = Relay::start(master.address()).await;
    let agent = Running::start(config(&master, relay.address, "state"));
    master.enrols().await;
    let mut line = master.welcomes().await;
    assert!(matches!(line.hears().await, FromAgent::Policy { .. }));
    relay.deafen();
    let started = std::time::Instant::now();
    let mut line = master.welcomes().await;
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    assert_eq!(history(&mut line).await, [Code::SILENT]);
    agent.stop().await;
}

#[tokio::test]
async fn a_master_that_answers_no_heartbeat_is_left() {
    let master = Master::start();
    let agent = Running::start(config(&master, master.address(), "state"));
    master.enrols().await;
    // Acknowledged by QUIC, never by the master: a process that hangs looks like this.
    let line = master.welcomes().await;
    assert_eq!(stream_code(&line.connection.closed().await), Code::HEARTBEAT_LOST);
    master.welcomes().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_wrong_pin_gets_no_secret_and_says_so() {
    let (master, stranger) = (Master::start(), Master::start());
    let config = Config {
        join: Join { pin: Some(stranger.pin()), ..config(&master, master.address(), "state").join },
        ..config(&master, master.address(), "state")
    };
    let agent = Running::start(config.clone());
    let waiting = async {
        loop {
            if let Ok(true) = tokio::fs::try_exists(status_socket(&config.state_dir)).await {
                let status = read_status(&config).await;
                if status["line"] == "waiting" {
                    return status["reason"].as_str().unwrap().to_owned();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reason = tokio::select! {
        reason = tokio::time::timeout(PATIENCE, waiting) => reason.unwrap(),
        _ = async { master.accept().await } => panic!("a connection came up"),
    };
    assert!(reason.contains("pinned master"), "{reason}");
    agent.stop().await;
}

#[tokio::test]
async fn without_what_it_needs_it_does_not_start() {
    let master = Master::start();
    let empty = Config { join: Join::default(), ..config(&master, master.address(), "state") };
    let error = app::run(empty, CancellationToken::new()).await.unwrap_err().to_string();
    for missing in ["master", "master_pin", "agent_id", "agent_secret"] {
        assert!(error.contains(missing), "{error}");
    }
}

#[tokio::test]
async fn two_agents_live_in_one_process() {
    let (one, other) = (Master::start(), Master::start());
    let agents = [
        Running::start(config(&one, one.address(), "state")),
        Running::start(config(&other, other.address(), "state")),
    ];
    for master in [&one, &other] {
        master.enrols().await;
    }
    let lines = (one.welcomes().await, other.welcomes().await);
    assert_ne!(lines.0.hello.instance_id, lines.1.hello.instance_id);
    for agent in agents {
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_and_one_that_panics_counts() {
    let (connected, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let (ended, up) = supervised(pending(), &connected, &shutdown, CONNECT_WITHIN).await;
    assert_eq!((ended.code, up), (Code::TOO_SLOW, None));
    let (ended, _) = supervised(async { panic!("planted") }, &connected, &shutdown, CONNECT_WITHIN).await;
    assert_eq!(ended.code, Code::INTERNAL);
    connected.cancel();
    let long = async {
        tokio::time::sleep(CONNECT_WITHIN * 9).await;
        Ended::network(Code::SILENT, "")
    };
    let (ended, up) = supervised(long, &connected, &shutdown, CONNECT_WITHIN).await;
    assert_eq!((ended.code, up), (Code::SILENT, Some(CONNECT_WITHIN * 9)), "a line that is up is left alone");
}

#[tokio::test]
async fn the_masters_time_is_kept_for_the_next_start() {
    let master = Master::start();
    let config = config(&master, master.address(), "state");
    let agent = Running::start(config.clone());
    master.enrols().await;
    let _line = master.welcomes().await;
    let file = config.state_dir.join("master-time");
    until("the time is stored", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text == master.clock_ms.to_string())
    })
    .await;
    agent.stop().await;
}
