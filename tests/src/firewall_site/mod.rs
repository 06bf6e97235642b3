//! A site that behaves as firewalls' own web interfaces do: HTTPS under a certificate nobody knows, a login form with a
//! hidden token, absolute redirects, and checks of Host, Origin and Referer. And one that misbehaves on request.

mod answers;
mod live;
mod login;
mod odd;

use std::{
    collections::HashSet,
    io::Cursor,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{Method, Request, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use self::answers::{Answer, Body, full, html, redirect, text, with_type};
use crate::wait::eventually;

pub use login::{PASSWORD, USER};

/// A running site; dropping it closes its listener and every connection.
#[derive(Debug)]
pub struct FirewallSite {
    pub port: u16,
    /// Of its certificate, hex; empty where it speaks plain HTTP.
    pub sha256: String,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

/// What all its connections share.
#[derive(Debug)]
struct State {
    name: String,
    origin: String,
    authorities: Vec<String>,
    csrf: String,
    sessions: Mutex<HashSet<String>>,
    requests: AtomicU64,
}

impl FirewallSite {
    /// On a free loopback port; its pages bear `name`.
    pub async fn start(name: &str) -> Self {
        Self::start_on(name, 0).await
    }

    /// On this port, under a new certificate.
    pub async fn start_on(name: &str, port: u16) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["firewall.test".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .expect("a TLS configuration");
        let sha256 = hex::encode(Sha256::digest(made.cert.der()));
        Self::run(name, port, Some(TlsAcceptor::from(Arc::new(config))), sha256).await
    }

    /// Without TLS.
    pub async fn start_plain(name: &str) -> Self {
        Self::run(name, 0, None, String::new()).await
    }

    async fn run(name: &str, port: u16, tls: Option<TlsAcceptor>, sha256: String) -> Self {
        // A site that was dropped a moment ago still has it.
        let listener = eventually(Duration::from_secs(5), "a port for the site", || async {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.ok()
        })
        .await;
        let port = listener.local_addr().expect("its port").port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State {
            name: name.to_owned(),
            origin: format!("{scheme}://127.0.0.1:{port}"),
            authorities: vec![format!("127.0.0.1:{port}"), format!("localhost:{port}")],
            csrf: hex::encode(rand::random::<[u8; 16]>()),
            sessions: Mutex::default(),
            requests: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Self { port, sha256, state, _task: AbortOnDropHandle::new(task) }
    }

    /// Requests that reached it.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let socket = tokio::select! {
            Ok((socket, _)) = listener.accept() => socket,
            Some(_) = connections.join_next() => continue,
            else => continue,
        };
        let _ = socket.set_nodelay(true);
        connections.spawn(connection(socket, tls.clone(), state.clone()));
    }
}

async fn connection(socket: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    match tls {
        None => serve(socket, state).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(socket).await {
                serve(stream, state).await;
            }
        }
    }
}

/// The first request of a connection is looked at as bytes: some answers no HTTP library would write.
async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, state: Arc<State>) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 64 * 1024 {
        let mut piece = [0; 8192];
        match read.read(&mut piece).await {
            Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
    if odd::raw(&head, &mut write).await {
        return;
    }
    let stream = tokio::io::join(Cursor::new(head).chain(read), write);
    let service = service_fn(move |request| answer(request, state.clone()));
    let server = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // How it ends is for the tests to judge.
    let _ = server.with_upgrades().await;
}

/// `Err` drops the connection without a word.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, std::io::Error> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    if let Some(refusal) = state.refuses(&request) {
        return Ok(refusal);
    }
    let path = request.uri().path().to_owned();
    if let Some(answer) = odd::answer(&path, &request, &state).await? {
        return Ok(answer);
    }
    Ok(match path.as_str() {
        "/" | "/index.php" | "/login.php" | "/logout.php" | "/api/status" => login::answer(request, &state).await,
        "/ws" | "/deaf" | "/events" | "/upload" | "/download" | "/trailers" => live::answer(request, &state).await,
        _ => text(StatusCode::NOT_FOUND, "no such page"),
    })
}

impl State {
    /// What firewalls do against DNS rebinding and forged requests.
    fn refuses(&self, request: &Request<Incoming>) -> Option<Answer> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let host = header(header::HOST).unwrap_or_default();
        if !self.authorities.iter().any(|own| own == host) {
            return Some(text(StatusCode::FORBIDDEN, "Potential DNS Rebind attack detected"));
        }
        let foreign = |url: &str| !(url == self.origin || url.starts_with(&format!("{}/", self.origin)));
        let unsafe_method = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if header(header::ORIGIN).is_some_and(foreign)
            || (unsafe_method && header(header::REFERER).is_some_and(foreign))
        {
            return Some(text(StatusCode::FORBIDDEN, "An HTTP_REFERER was detected other than what is defined"));
        }
        None
    }

    fn is_logged_in(&self, request: &Request<Incoming>) -> bool {
        cookie(request, "PHPSESSID").is_some_and(|id| self.sessions().contains(&id))
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cookie(request: &Request<Incoming>, name: &str) -> Option<String> {
    let values = request.headers().get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}
