//! The public TCP port: which certificate, which host names, and what answers under each. Puts together what `public` and
//! others bring; serves nothing itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use base64::{Engine, engine::general_purpose::STANDARD};
use certs::{
    authority::ServerIdentity,
    web::{self, OwnFiles, WebCertificates},
};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{StartError, front, listen};
use crate::{
    api::{
        dto,
        install::{Ask, Facts},
    },
    config::Config,
    fleet::Fleet,
    gateway::Gateway,
    http::hosts::{Hosts, without_port},
    public::{
        self,
        binaries::{Binaries, PLATFORMS, Platform},
        listener,
    },
};

/// Where an operator puts agents' binaries, below the data folder.
const AGENTS_DIR: &str = "agents";

/// The bound port, not yet served.
pub(super) struct Outside {
    pub(super) address: SocketAddr,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    certificates: Arc<WebCertificates>,
    binaries: Binaries,
    router: Router,
}

impl Outside {
    /// Binds the port that QUIC has on udp, unless another is configured for tcp.
    pub(super) async fn open(config: &Config, identity: &ServerIdentity, quic: SocketAddr) -> Result<Self, StartError> {
        let certificates = WebCertificates::new(identity, own_files(config))?;
        let (key, wanted) = match config.public.tcp_listen {
            Some(address) => ("public.tcp_listen", address),
            None => ("public.listen", quic),
        };
        let listener = listen(key, wanted).await?;
        let binaries = Binaries::new(config.data_dir.join(AGENTS_DIR));
        let hosts = Hosts::only(names(config, wanted));
        Ok(Self {
            address: listener.local_addr().unwrap_or(wanted),
            listener,
            tls: web::server_config(certificates.clone())?,
            certificates,
            router: public::router(binaries.clone(), hosts),
            binaries,
        })
    }

    /// What the commands for new machines are made from.
    pub(super) fn facts(&self, config: &Config, master_address: &str) -> Ask {
        let host = without_port(master_address).to_owned();
        let url = format!("https://{}", master_address.strip_suffix(":443").unwrap_or(master_address));
        // A proxy before this port shows a certificate of its own, which its visitors must be able to verify.
        let proxied = config.public.tcp_listen.is_some() && config.public.cert_file.is_none();
        let (certificates, binaries) = (self.certificates.clone(), self.binaries.clone());
        Arc::new(move || {
            let known = proxied || certificates.is_own(&host);
            let pin = || format!("sha256//{}", STANDARD.encode(certificates.pin_for(&host).as_bytes()));
            Ok(Facts {
                url: url.clone(),
                pin: (!known).then(pin),
                script_sha256: hex::encode(Sha256::digest(public::SCRIPT)),
                sums_sha256: hex::encode(Sha256::digest(binaries.sums()?)),
                platforms: PLATFORMS.iter().map(|platform| shown(&binaries, *platform)).collect(),
            })
        })
    }

    /// Takes lines inside WebSockets as well.
    pub(super) fn with_lines(self, fleet: Arc<Fleet>) -> Self {
        Self { router: public::with_lines(self.router, fleet), ..self }
    }

    /// Serves the dashboard as well, under its name.
    pub(super) fn with_dashboard(self, dashboard: Router, host: &str) -> Self {
        Self { router: front::public(self.router, dashboard, host.to_owned()), ..self }
    }

    /// Serves machines' own pages as well, under the gateway's names.
    pub(super) fn with(self, gateway: &Gateway) -> Self {
        Self { router: front::router(self.router, gateway.clone()), ..self }
    }

    pub(super) fn start(self, tasks: &TaskTracker, stop: &CancellationToken, grace: Duration) {
        tasks.spawn(public::watch_certificates(self.certificates, stop.clone()));
        tasks.spawn(listener::serve(self.listener, self.tls, self.router, stop.clone(), grace));
    }
}

fn shown(binaries: &Binaries, platform: Platform) -> dto::enrol::Platform {
    let available = binaries.has(platform);
    dto::enrol::Platform {
        os: platform.os.to_owned(),
        arch: platform.arch.to_owned(),
        available,
        how: (!available).then(|| platform.how(binaries.dir())),
    }
}

fn own_files(config: &Config) -> Option<OwnFiles> {
    let cert = config.public.cert_file.clone()?;
    let key = config.public.key_file.clone().unwrap_or_else(|| cert.clone());
    Some(OwnFiles { cert, key })
}

/// How agents' owners reach this host: the public name, what is configured beside it, and the address itself if it is one.
fn names(config: &Config, bound: SocketAddr) -> Vec<String> {
    let mut names = config.public.hosts.clone();
    names.extend(config.dashboard.host.clone());
    names.extend(config.public.address.as_deref().map(|address| without_port(address).to_owned()));
    if !bound.ip().is_unspecified() {
        names.push(without_port(&bound.to_string()).to_owned());
    }
    names
}
