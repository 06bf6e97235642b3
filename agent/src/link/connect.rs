//! From the master's name to a QUIC connection, over whichever carrier gets through first. Says nothing on it: that is the
//! line's or the enrolment's to do.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use proto::net::{
    carrier::{Carrier, DialError, Dialed, Dialer},
    quic::Tuning,
};
use rustls::ClientConfig;
use tokio::{
    net::lookup_host,
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    carriers::{self, Course, Memory, Try, Udp},
    chain,
    surroundings::Way,
    websocket::{self, WebSocketError},
};
use crate::config::{address::MasterAddress, carrier::Wanted, proxy::Proxy};

const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// A head start for each address before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 6;
/// Before UDP is tried again within an attempt: some failures are immediate.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Stands for a master that was never found: an address of nobody's (RFC 5737), which only the default route leads to.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
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

/// A connection, and why it is not over UDP where that was tried.
#[derive(Debug)]
pub struct Connected {
    pub dialed: Dialed,
    pub not_udp: Option<String>,
}

impl From<Dialed> for Connected {
    fn from(dialed: Dialed) -> Self {
        Self { dialed, not_udp: None }
    }
}

/// How this agent may reach its master, and what it learnt about that. One per process.
#[derive(Debug)]
pub struct Roads {
    wanted: Wanted,
    dialer: Dialer,
    proxy: Option<Proxy>,
    memory: Mutex<Memory>,
    /// Where the master was last.
    last: Mutex<SocketAddr>,
}

impl Roads {
    pub fn new(wanted: Wanted, tuning: Tuning, proxy: Option<Proxy>) -> Self {
        Self { wanted, dialer: Dialer { tuning }, proxy, memory: Mutex::default(), last: Mutex::new(NOBODY) }
    }

    /// A line came up to this address of the master, or of the proxy before it.
    pub(super) fn reached(&self, address: SocketAddr) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// This machine's way towards where the master was last.
    pub(super) fn way(&self) -> Way {
        Way::to(*self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was learnt of the network is of no use in another one.
    pub(super) fn forget_network(&self) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Memory::default();
    }

    /// What dials over UDP.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub fn tuning(&self) -> &Tuning {
        &self.dialer.tuning
    }

    /// How a line on `carrier` goes on from here.
    pub(super) fn course(&self, carrier: Carrier) -> Course {
        Course::new(self.wanted, carrier, self.memory(), Duration::ZERO)
    }

    /// A line moved.
    pub(super) fn moved(&self, by: Try) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match by {
            Try::Udp => memory.udp = Udp::Worked,
            Try::WebSocket { .. } => memory.udp_broke = memory.udp_broke.saturating_add(1),
        }
    }

    /// A line over UDP heard nothing any more: the next attempt gives it no head start.
    pub(super) fn udp_fell_silent(&self) {
        self.remember(Udp::Failed);
    }

    /// One carrier alone.
    pub(super) async fn over(
        &self,
        carrier: Carrier,
        master: &MasterAddress,
        tls: Arc<ClientConfig>,
    ) -> Result<Dialed, ConnectError> {
        match carrier {
            Carrier::Udp => self.udp(master, tls).await,
            Carrier::WebSocket => self.websocket(master, tls).await,
        }
    }

    fn memory(&self) -> Memory {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, udp: Udp) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).udp = udp;
    }

    /// The first connection that any carrier brings. Ends by itself.
    pub async fn connect(&self, master: &MasterAddress, tls: Arc<ClientConfig>) -> Result<Connected, ConnectError> {
        let start = carriers::start(self.wanted, self.memory());
        match (start.udp, start.websocket) {
            (Some(_), None) => Ok(self.udp(master, tls).await?.into()),
            (None, _) => Ok(self.websocket(master, tls).await?.into()),
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
    ) -> Result<Connected, ConnectError> {
        let begun = Instant::now();
        let udp_failed = Notify::new();
        let udp = async {
            let dialled = self.udp(master, tls.clone()).await;
            self.remember(if dialled.is_ok() { Udp::Worked } else { Udp::Failed });
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
                Ok(dialed) => Ok(dialed.into()),
                Err(failed) => tokio::select! {
                    dialled = websocket => match dialled {
                        Ok(dialed) => Ok(Connected { dialed, not_udp: Some(chain(&failed)) }),
                        Err(error) => Err(neither(failed, error)),
                    },
                    // The network may come back while the WebSocket waits for an answer.
                    dialed = self.udp_until_it_works(master, tls.clone()) => Ok(dialed.into()),
                },
            },
            first = &mut websocket => match first {
                Ok(dialed) => {
                    self.remember(Udp::Failed);
                    let told = format!("no answer over UDP within {:.1} s", begun.elapsed().as_secs_f64());
                    Ok(Connected { dialed, not_udp: Some(told) })
                }
                Err(websocket) => match udp.await {
                    Ok(dialed) => Ok(dialed.into()),
                    Err(error) => Err(neither(error, websocket)),
                },
            },
        }
    }

    async fn udp_until_it_works(&self, master: &MasterAddress, tls: Arc<ClientConfig>) -> Dialed {
        loop {
            sleep(AGAIN_AFTER).await;
            if let Ok(dialed) = self.udp(master, tls.clone()).await {
                self.remember(Udp::Worked);
                return dialed;
            }
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
