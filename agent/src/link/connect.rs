//! From the master's name to a QUIC connection, over whichever carrier gets through first. Says nothing on it: that is the
//! line's or the enrolment's to do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use proto::net::{
    carrier::{Carrier, DialError, Dialed, Dialer},
    quic::Tuning,
};
use rustls::ClientConfig;
use tokio::{net::lookup_host, sync::Notify, time::sleep};

use super::{
    carriers::{self, Memory},
    websocket::{self, WebSocketError},
};
use crate::config::{address::MasterAddress, carrier::Wanted, proxy::Proxy};

const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// A head start for each address before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 6;
/// Neither carrier connected by then: back off and begin anew.
const BOTH_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the master's name {0} did not resolve within {RESOLVE_WITHIN:?}")]
    ResolveTooSlow(MasterAddress),
    #[error("the master's name {address} does not resolve")]
    Resolve { address: MasterAddress, source: std::io::Error },
    #[error("the master's name {0} has no address")]
    NoAddress(MasterAddress),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error("{udp}; {websocket}")]
    Neither { udp: Box<ConnectError>, websocket: Box<ConnectError> },
    #[error("no connection over any carrier within {BOTH_WITHIN:?}")]
    TooSlow,
}

/// How this agent may reach its master, and what it learnt about that. One per process.
#[derive(Debug)]
pub struct Roads {
    wanted: Wanted,
    dialer: Dialer,
    proxy: Option<Proxy>,
    memory: Mutex<Memory>,
}

impl Roads {
    pub fn new(wanted: Wanted, tuning: Tuning, proxy: Option<Proxy>) -> Self {
        Self { wanted, dialer: Dialer { tuning }, proxy, memory: Mutex::default() }
    }

    /// What dials over UDP.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub fn tuning(&self) -> &Tuning {
        &self.dialer.tuning
    }

    fn memory(&self) -> Memory {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, udp_failed: bool) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).udp_failed = udp_failed;
    }

    /// The first connection that any carrier brings. Ends by itself.
    pub async fn connect(&self, master: &MasterAddress, tls: Arc<ClientConfig>) -> Result<Dialed, ConnectError> {
        let start = carriers::start(self.wanted, self.memory());
        match (start.udp, start.websocket) {
            (Some(_), None) => self.udp(master, tls).await,
            (None, _) => self.websocket(master, tls).await,
            (Some(_), Some(after)) => {
                let racing = self.race(master, tls, after);
                tokio::time::timeout(BOTH_WITHIN, racing).await.unwrap_or(Err(ConnectError::TooSlow))
            }
        }
    }

    /// UDP now, the WebSocket after its wait or as soon as UDP failed; the first to connect wins.
    async fn race(
        &self,
        master: &MasterAddress,
        tls: Arc<ClientConfig>,
        after: Duration,
    ) -> Result<Dialed, ConnectError> {
        let udp_failed = Notify::new();
        let udp = async {
            let dialled = self.udp(master, tls.clone()).await;
            self.remember(dialled.is_err());
            if dialled.is_err() {
                udp_failed.notify_one();
            }
            dialled
        };
        let websocket = async {
            tokio::select! {
                () = sleep(after) => {}
                () = udp_failed.notified() => {}
            }
            self.websocket(master, tls.clone()).await
        };
        tokio::pin!(udp, websocket);
        tokio::select! {
            biased;
            first = &mut udp => match first {
                Ok(dialed) => Ok(dialed),
                Err(udp) => websocket.await.map_err(|error| neither(udp, error)),
            },
            first = &mut websocket => match first {
                Ok(dialed) => {
                    self.remember(true);
                    Ok(dialed)
                }
                Err(websocket) => udp.await.map_err(|error| neither(error, websocket)),
            },
        }
    }

    /// Over UDP alone.
    pub async fn udp(&self, master: &MasterAddress, tls: Arc<ClientConfig>) -> Result<Dialed, ConnectError> {
        first_of(master, |address| {
            let tls = tls.clone();
            async move { Ok(self.dialer.dial(address, tls, certs::tls::SERVER_NAME).await?) }
        })
        .await
    }

    /// Inside a WebSocket alone, through the proxy where there is one for this master.
    pub async fn websocket(&self, master: &MasterAddress, tls: Arc<ClientConfig>) -> Result<Dialed, ConnectError> {
        let socket = match self.proxy.as_ref().and_then(|proxy| proxy.for_master(master)) {
            Some(proxy) => websocket::through(&proxy, master).await?,
            None => first_of(master, |address| async move { Ok(websocket::direct(address).await?) }).await?,
        };
        Ok(websocket::dial(socket, master, tls, self.tuning()).await?)
    }
}

/// The carrier of choice comes first in what is told.
fn neither(udp: ConnectError, websocket: ConnectError) -> ConnectError {
    ConnectError::Neither { udp: Box::new(udp), websocket: Box::new(websocket) }
}

/// Dials the master's addresses one after the other, each a little after the one before, and takes the first that answers.
/// Every dial has its own deadline.
async fn first_of<T, F>(master: &MasterAddress, dial: impl Fn(SocketAddr) -> F) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let addresses = resolve(master).await?;
    let dial = &dial;
    let mut dials: FuturesUnordered<_> = addresses
        .into_iter()
        .zip(0_u32..)
        .map(|(address, place)| async move {
            sleep(HEAD_START * place).await;
            dial(address).await
        })
        .collect();
    let mut first_error = None;
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    Err(first_error.unwrap_or_else(|| ConnectError::NoAddress(master.clone())))
}

async fn resolve(master: &MasterAddress) -> Result<Vec<SocketAddr>, ConnectError> {
    let looking = lookup_host((master.host.as_str(), master.port));
    match tokio::time::timeout(RESOLVE_WITHIN, looking).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
        Ok(Err(source)) => Err(ConnectError::Resolve { address: master.clone(), source }),
        Err(_) => Err(ConnectError::ResolveTooSlow(master.clone())),
    }
}

impl ConnectError {
    /// The QUIC handshake's own failure, if it came to one: over UDP first.
    pub fn dial(&self) -> Option<&DialError> {
        match self {
            Self::Dial(error) | Self::WebSocket(WebSocketError::Dial(error)) => Some(error),
            Self::Neither { udp, websocket } => match (udp.dial(), websocket.dial()) {
                // Silence says less than any answer.
                (Some(DialError::Silent { carrier: Carrier::Udp, .. }), Some(other)) => Some(other),
                (udp, websocket) => udp.or(websocket),
            },
            Self::ResolveTooSlow(_)
            | Self::Resolve { .. }
            | Self::NoAddress(_)
            | Self::WebSocket(_)
            | Self::TooSlow => None,
        }
    }
}
