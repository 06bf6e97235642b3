//! The public QUIC endpoint: takes connections, bounds what strangers can cost, and hands each to its own task. The loop
//! never waits for a peer (SECURITY R32).

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use proto::{
    ALPN_ENROL, ALPN_LINE,
    code::Code,
    limits::AUTHENTICATE_WITHIN,
    net::{carrier::Carrier, stream::close},
};
use quinn::crypto::rustls::HandshakeData;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Fleet, enrol, hello};
use crate::access::{Place, Places};

/// Handshakes that may be pending before unvalidated addresses are asked to prove themselves.
const PENDING_BEFORE_RETRY: usize = 256;
/// Handshakes in flight at most; beyond it new ones are dropped and tried again by their senders.
const PENDING_MAX: usize = 1024;
/// Handshakes in flight at most from one network, so that no address alone can fill the places. A whole office behind one
/// address still comes in, a few at a time.
const PENDING_PER_NETWORK: usize = 64;
/// Connections an address may start per second before it is asked to prove itself.
const PER_ADDRESS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Time for the TLS handshake alone.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);
/// How often addresses that went quiet are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// What the accept loop counts.
struct Gate {
    places: Arc<Places>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
}

impl Gate {
    /// Whether an unvalidated address must prove itself first.
    fn doubtful(&self, address: IpAddr) -> bool {
        let crowded = self.places.taken() > PENDING_BEFORE_RETRY;
        crowded || self.addresses.check_key(&address).is_err()
    }
}

/// Accepts until `stop`; connections already taken go on.
pub(super) async fn run(fleet: Arc<Fleet>, endpoint: quinn::Endpoint, stop: CancellationToken) {
    let addresses = RateLimiter::keyed(Quota::per_second(PER_ADDRESS));
    let gate = Gate { places: Places::new(PENDING_MAX, PENDING_PER_NETWORK), addresses };
    let mut forget = tokio::time::interval(FORGET_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = forget.tick() => gate.addresses.retain_recent(),
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&fleet, &gate, incoming),
                None => return,
            },
        }
    }
}

fn admit(fleet: &Arc<Fleet>, gate: &Gate, incoming: quinn::Incoming) {
    let address = incoming.remote_address().ip();
    if !incoming.remote_address_validated() && gate.doubtful(address) {
        // Only an address that was validated already cannot be asked again; the check above excludes it.
        if let Err(error) = incoming.retry() {
            error.into_incoming().ignore();
        }
        return;
    }
    let Some(place) = gate.places.enter(address) else {
        incoming.ignore();
        return;
    };
    let fleet = fleet.clone();
    let tracker = fleet.tasks.clone();
    let arrival = Arrival { carrier: Carrier::Udp, place, handshake_by: Instant::now() + HANDSHAKE_WITHIN };
    tracker.spawn(async move { connection(fleet, incoming, arrival).await });
}

/// How a connection came, and what it may cost before it has shown who it is.
pub(super) struct Arrival {
    pub(super) carrier: Carrier,
    pub(super) place: Place,
    pub(super) handshake_by: Instant,
}

/// The one road of every connection, whatever carries it, from its first packet to its end.
pub(super) async fn connection(fleet: Arc<Fleet>, incoming: quinn::Incoming, arrival: Arrival) {
    let Arrival { carrier, place, handshake_by } = arrival;
    let started = Instant::now();
    let address = incoming.remote_address();
    let Ok(connecting) = incoming.accept() else { return };
    let connection = match tokio::time::timeout_at(handshake_by, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "handshake failed");
            fleet.metrics.auth_failure("handshake");
            return;
        }
        Err(_) => return,
    };
    fleet.metrics.handshake(started.elapsed().as_secs_f64());
    match alpn(&connection).as_deref() {
        Some(ALPN_LINE) => {
            let authenticated =
                tokio::time::timeout(AUTHENTICATE_WITHIN, hello::authenticate(&fleet, &connection, carrier)).await;
            let stays = place.settle();
            drop(place);
            match authenticated {
                Ok(Some(_)) if !stays => close(&connection, Code::BUSY),
                Ok(Some(admitted)) => fleet.serve(connection, admitted).await,
                Ok(None) => {}
                Err(_) => close(&connection, Code::TOO_SLOW),
            }
        }
        Some(ALPN_ENROL) => {
            let answered = tokio::time::timeout(AUTHENTICATE_WITHIN, enrol::answer(&fleet, &connection)).await;
            let code = answered.unwrap_or(Code::TOO_SLOW);
            close(&connection, code);
        }
        _ => close(&connection, Code::UNEXPECTED),
    }
}

fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The certificate the peer proved to hold, if any.
pub(super) fn peer_certificate(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let chain = connection.peer_identity()?.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
    chain.first().map(|certificate| certificate.to_vec())
}
