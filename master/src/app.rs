//! The composition root: builds every room from the configuration, binds the sockets, supervises, and drains. It reads
//! like an operator's checklist; what each step means is in the room it calls.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use certs::{
    authority::{Authority, ServerIdentity},
    state, tls,
};
use proto::net::quic::{self, EndpointKeys, ServerParts, Tuning};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{Access, Limiter, People, ensure_admin_token},
    api::{
        self,
        server::{Listening, Stopping},
        state::{Api, ApiParts, ApiSettings},
    },
    clock::unix_ms,
    command::Commands,
    config::Config,
    events::Events,
    fleet::{Fleet, FleetParts, SteadyClock},
    gateway::{Gateway, GatewayParts},
    metrics::Metrics,
    session::{
        exec::Execs,
        shell::{ShellSettings, Shells},
    },
    store::Store,
    transfer::Transfers,
    tunnel::{Parts as TunnelParts, Tunnels, direct::Direct, pins::Pins, presence::Presence, visits::Visits},
};

mod background;
mod front;
mod outside;

use outside::Outside;

/// Where the CA lives below the data folder.
const CA_DIR: &str = "ca";
/// Where the tunnels' unix sockets live below the data folder.
const SOCKET_DIR: &str = "tunnels";
/// Where the recordings of shells live below the data folder.
const RECORDINGS: &str = "recordings";
/// Keys of the QUIC endpoint below the data folder.
const QUIC_KEYS: &str = "quic.keys";
/// When agents of a master that shuts down may come back.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Time for tunnels to write their last rows.
const TUNNELS_STOP_WITHIN: Duration = Duration::from_secs(2);
/// Time for the last scrape.
const METRICS_STOP_WITHIN: Duration = Duration::from_secs(1);

/// Why the master did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder cannot be used")]
    State(#[from] state::StateError),
    #[error("another master runs on {}; end it, or set another data_dir", .0.display())]
    InUse(std::path::PathBuf),
    #[error("cannot open the database")]
    Database(#[from] crate::store::OpenError),
    #[error("the database failed")]
    Store(#[from] crate::store::StoreError),
    #[error("cannot set up the metrics")]
    Metrics(#[from] crate::metrics::MetricsError),
    #[error("the CA cannot be used")]
    Authority(#[from] certs::authority::AuthorityError),
    #[error("TLS cannot be set up")]
    Tls(#[from] tls::TlsError),
    #[error("the certificate of public.cert_file cannot be used")]
    OwnCertificate(#[from] certs::web::OwnError),
    #[error("TLS towards targets cannot be set up")]
    Targets(#[from] rustls::Error),
    #[error("the public endpoint cannot be opened")]
    Endpoint(#[from] quic::EndpointError),
    #[error("cannot listen on {address} ({key}); is another program on it?")]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("cannot listen on {} (internal.unix_socket)", path.display())]
    ListenUnix { path: std::path::PathBuf, source: std::io::Error },
    #[error("the tunnels of the last run could not be reconciled")]
    Tunnels(#[from] crate::tunnel::StartError),
    #[error("the admin token cannot be made")]
    AdminToken(#[from] crate::access::AdminTokenError),
}

/// A running master. Dropping it without [`stop`](Self::stop) ends its tasks with the runtime, undrained.
pub struct App {
    pub public: SocketAddr,
    pub public_tcp: SocketAddr,
    pub internal: SocketAddr,
    pub metrics: SocketAddr,
    setup: Option<SecretString>,
    drain: Duration,
    fleet: Arc<Fleet>,
    tunnels: Arc<Tunnels>,
    store: Store,
    tasks: TaskTracker,
    /// Stops new work.
    closing: CancellationToken,
    /// Stops what serves the drain itself: metrics, the event pump, and the refusal of new calls.
    ended: CancellationToken,
    _lock: std::fs::File,
}

impl App {
    /// Starts everything. When this returns, every row is reconciled and every socket bound.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        state::open_dir(&config.data_dir)?;
        let lock = lock(&config.data_dir)?;
        let metrics = Arc::new(Metrics::new()?);
        let store = Store::open(&config.database, metrics.clone()).await?;
        let events = Events::new(store.events().last_id().await?, unix_ms());
        let to_disk = events.subscribe();
        ensure_admin_token(&store, &config.data_dir, unix_ms()).await?;
        let authority = Arc::new(Authority::load_or_create(&config.data_dir.join(CA_DIR))?);
        let identity = authority.server_identity(&config.data_dir.join(CA_DIR))?;
        let (endpoint, websockets) = endpoint(&config, &authority, &identity)?;
        let internal = listen("internal.listen", config.internal.listen).await?;
        let internal_unix = config.internal.unix_socket.as_deref().map(listen_unix).transpose()?;
        let metrics_socket = listen("metrics.listen", config.metrics.listen).await?;
        let public_at = endpoint.local_addr().unwrap_or(config.public.listen);
        let master_address = master_address(&config, public_at);
        let outside = Outside::open(&config, &identity, public_at).await?;

        let limiter = Arc::new(Limiter::new());
        let clock = SteadyClock::start();
        let fleet = Fleet::new(FleetParts {
            store: store.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            authority: authority.clone(),
            limiter: limiter.clone(),
            clock: clock.clone(),
            heartbeat_interval: config.line.heartbeat,
            certificate_validity: config.enrolment.certificate,
            enrol_again_within: config.enrolment.idempotent,
            websockets,
        });
        let tunnels = Tunnels::start(TunnelParts {
            config: config.tunnel.clone(),
            socket_dir: config.data_dir.join(SOCKET_DIR),
            fleet: fleet.clone(),
            store: store.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
        })
        .await?;
        let mut app = Self {
            public: public_at,
            public_tcp: outside.address,
            internal: internal.local_addr().unwrap_or(config.internal.listen),
            metrics: metrics_socket.local_addr().unwrap_or(config.metrics.listen),
            setup: None,
            drain: config.drain,
            fleet: fleet.clone(),
            tunnels: tunnels.clone(),
            store: store.clone(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            _lock: lock,
        };
        fleet.start(endpoint);
        let install = outside.facts(&config, &master_address);
        app.tasks.spawn(background::pump_events(store.clone(), to_disk, app.ended.clone()));
        app.tasks.spawn(background::prune(store.clone(), config.retention.clone(), clock.clone(), app.ended.clone()));
        let settings = ShellSettings { recordings: config.data_dir.join(RECORDINGS), strict: config.recording.strict };
        let shells =
            Shells::new(fleet.clone(), store.clone(), events.clone(), metrics.clone(), settings, app.closing.clone());
        shells.resume().await?;
        let recordings = (shells.recordings(), config.recording.clone());
        app.tasks.spawn(background::prune_recordings(recordings, clock, app.ended.clone()));
        let execs = Execs::new(fleet.clone(), store.clone(), events.clone(), metrics.clone(), app.closing.clone());
        execs.resume().await?;
        let following = (shells.clone(), execs.clone());
        let closing = app.closing.clone();
        app.tasks.spawn(async move {
            closing.cancelled().await;
            following.0.finished().await;
            following.1.finished().await;
        });
        let access = Access::new(store.clone(), config.access.clone());
        let (people, setup) = People::start(access.clone(), store.clone(), limiter.clone()).await?;
        app.setup = setup;
        let (visits, pins) = (Visits::new(), Pins::new(store.clone()));
        let presence = Presence::new(tunnels.clone());
        app.tasks.spawn(presence.clone().keep(app.closing.clone()));
        let origin = front::origin(&config.gateway, app.internal.port());
        let gateway = Gateway::new(GatewayParts {
            origin: origin.clone(),
            first_byte: config.gateway.first_byte,
            access: access.clone(),
            fleet: fleet.clone(),
            tunnels: tunnels.clone(),
            visits: visits.clone(),
            pins: pins.clone(),
            presence: presence.clone(),
            store: store.clone(),
            metrics: metrics.clone(),
            stop: app.closing.clone(),
        })?;
        let api = Api::new(ApiParts {
            visits,
            pins,
            presence,
            commands: Commands::new(fleet.clone(), store.clone(), metrics.clone()),
            shells: shells.clone(),
            transfers: Transfers::new(fleet.clone(), store.clone(), metrics.clone()),
            direct: Direct::new(fleet.clone(), store.clone(), metrics.clone()),
            execs,
            access,
            people,
            settings: ApiSettings {
                hosts: config.internal.hosts.clone(),
                master_address,
                pin: authority.pin(),
                secret_ttl: config.enrolment.secret_ttl,
                install,
                gateway: origin,
            },
            stop: app.closing.clone(),
            metrics: metrics.clone(),
            limiter,
            fleet,
            tunnels,
            store,
            events,
        });
        let outside = match &config.dashboard.host {
            Some(host) => outside.with_dashboard(api::public_router(api.clone(), std::slice::from_ref(host)), host),
            None => outside,
        };
        let outside = outside.with_lines(app.fleet.clone());
        let outside = if config.gateway.https { outside.with(&gateway) } else { outside };
        outside.start(&app.tasks, &app.closing, config.drain);
        let router = front::refusing(front::router(api::router(api), gateway), app.closing.clone());
        let stopping = Stopping { drain: app.closing.clone(), ended: app.ended.clone(), grace: config.drain };
        if let Some(socket) = internal_unix {
            app.tasks.spawn(api::server::serve(socket, router.clone(), stopping.clone()));
        }
        app.tasks.spawn(api::server::serve(Listening::Tcp(internal), router, stopping));
        let scrape = api::metrics_router(metrics, &config.internal.hosts);
        let metrics_socket = Listening::Tcp(metrics_socket);
        let at_the_end = Stopping { drain: app.ended.clone(), ended: app.ended.clone(), grace: METRICS_STOP_WITHIN };
        app.tasks.spawn(api::server::serve(metrics_socket, scrape, at_the_end));
        Ok(app)
    }

    /// The one-time link that makes the first admin, while there never was one. Whoever reads it may follow it.
    pub fn setup_link(&self) -> Option<String> {
        self.setup.as_ref().map(|secret| format!("http://{}/setup#{}", self.internal, secret.expose_secret()))
    }

    /// Refuses new work, tells the agents, lets what runs end within the drain time, and closes the rest with a code.
    pub async fn stop(self) {
        self.closing.cancel();
        self.fleet.drain(self.drain, RETRY_AFTER).await;
        self.tunnels.stop(TUNNELS_STOP_WITHIN).await;
        self.ended.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.drain + Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.store.close().await;
    }
}

/// QUIC on the public UDP port, and what endpoints in WebSockets are made from: the same TLS on both.
fn endpoint(
    config: &Config,
    authority: &Authority,
    identity: &ServerIdentity,
) -> Result<(quinn::Endpoint, ServerParts), StartError> {
    let tls = tls::server_config(authority, identity)?;
    let stored = state::load_or_create_random(&config.data_dir.join(QUIC_KEYS), EndpointKeys::LENGTH)?;
    let mut bytes = [0; EndpointKeys::LENGTH];
    bytes.copy_from_slice(&stored);
    let tuning = Tuning { congestion: config.line.congestion, gso: config.line.gso, ..Tuning::default() };
    let websockets = ServerParts::new(tls.clone(), tuning.clone())?;
    let endpoint = quic::server_endpoint(config.public.listen, tls, &EndpointKeys::from_bytes(&bytes), &tuning)?;
    Ok((endpoint, websockets))
}

fn listen_unix(path: &std::path::Path) -> Result<Listening, StartError> {
    Listening::unix(path).map_err(|source| StartError::ListenUnix { path: path.to_owned(), source })
}

/// What join tokens name. Where nobody said how agents reach this host, its own name is the best guess there is.
fn master_address(config: &Config, bound: SocketAddr) -> String {
    if let Some(address) = &config.public.address {
        return address.clone();
    }
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let guess = format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), bound.port());
    tracing::warn!(
        guess,
        "public.address is not set: join tokens name this host by its own name; set it to the host:port that agents reach"
    );
    guess
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { key, address, source })
}

/// Two masters on one folder would each believe the other's rows stale. The kernel drops the lock with the process.
fn lock(data_dir: &std::path::Path) -> Result<std::fs::File, StartError> {
    let path = data_dir.join("lock");
    let in_use = || StartError::InUse(data_dir.to_owned());
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).map_err(|_| in_use())?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| in_use())?;
    Ok(file)
}
