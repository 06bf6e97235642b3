//! A small HTTPS site with a certificate of its own making: what stands behind a demo agent.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const CONNECTION_WITHIN: Duration = Duration::from_secs(3600);
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// A running site; dropping it closes its listener.
pub(super) struct Site {
    agent: String,
    port: u16,
    _task: AbortOnDropHandle<()>,
}

impl Site {
    /// On a free loopback port. Its page names the agent it stands behind.
    pub(super) async fn start(agent: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for a demo site")?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(Arc::new(tls_config()?));
        let task = tokio::spawn(serve(listener, acceptor, page(agent)));
        Ok(Self { agent: agent.to_owned(), port, _task: AbortOnDropHandle::new(task) })
    }

    pub(super) fn agent(&self) -> &str {
        &self.agent
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

fn tls_config() -> anyhow::Result<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let mut config = rustls::ServerConfig::builder_with_provider(certs::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, page: Bytes) {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let (acceptor, page) = (acceptor.clone(), page.clone());
        connections.spawn(async move {
            let _permit = permit;
            // A demo site has nobody to tell.
            let _ = timeout(CONNECTION_WITHIN, connection(socket, acceptor, page)).await;
        });
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, page: Bytes) -> anyhow::Result<()> {
    let stream = timeout(HANDSHAKE_WITHIN, acceptor.accept(socket)).await??;
    let answer = service_fn(move |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(page.clone()));
        let html = header::HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_WITHIN);
    Ok(server.serve_connection(TokioIo::new(stream), answer).await?)
}

/// `agent` is one of our own names: nothing in it needs escaping.
fn page(agent: &str) -> Bytes {
    let html = format!(
        "<!doctype html>\n<title>{agent}</title>\n<h1>This is {agent}</h1>\n<p>A site behind a Landline agent.</p>\n"
    );
    Bytes::from(html)
}
