//! From the master's name to a QUIC connection: resolve, then dial its addresses one after the other, each a little after
//! the one before, and take the first that answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use proto::net::carrier::{DialError, Dialed, Dialer};
use rustls::ClientConfig;
use tokio::net::lookup_host;

use crate::config::address::MasterAddress;

const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// A head start for each address before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 6;

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
}

/// Every dial has its own deadline, so this ends by itself.
pub(super) async fn connect(
    dialer: &Dialer,
    master: &MasterAddress,
    tls: Arc<ClientConfig>,
) -> Result<Dialed, ConnectError> {
    let addresses = resolve(master).await?;
    let mut dials: FuturesUnordered<_> = addresses
        .into_iter()
        .zip(0_u32..)
        .map(|(address, place)| {
            let tls = tls.clone();
            async move {
                tokio::time::sleep(HEAD_START * place).await;
                dialer.dial(address, tls, certs::tls::SERVER_NAME).await
            }
        })
        .collect();
    let mut first_error = None;
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    Err(first_error.map_or_else(|| ConnectError::NoAddress(master.clone()), ConnectError::Dial))
}

async fn resolve(master: &MasterAddress) -> Result<Vec<SocketAddr>, ConnectError> {
    let looking = lookup_host((master.host.as_str(), master.port));
    match tokio::time::timeout(RESOLVE_WITHIN, looking).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
        Ok(Err(source)) => Err(ConnectError::Resolve { address: master.clone(), source }),
        Err(_) => Err(ConnectError::ResolveTooSlow(master.clone())),
    }
}
