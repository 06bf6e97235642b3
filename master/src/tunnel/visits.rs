//! Who may see a tunnel's pages in a browser: one-time tickets, and the visits they are exchanged for. Both are secrets
//! known by their hash alone, in memory: a restarted master knows no visitor. Knows nothing of cookies.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use proto::id::{AgentId, TunnelId};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Principal;

/// Time to follow a ticket's link.
pub const TICKET_TTL: Duration = Duration::from_secs(60);
/// A visit ends with its tunnel, its principal's rights, or after this long without a request.
const VISIT_IDLE: Duration = Duration::from_secs(12 * 3600);
const VISIT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Tickets and visits kept; the least used go first.
const TICKETS_MAX: u64 = 10_000;
const VISITS_MAX: u64 = 10_000;
/// Random bytes of a ticket and of a visit's secret.
const SECRET_BYTES: usize = 32;

/// All tickets and visits of one master.
pub struct Visits {
    tickets: Cache<[u8; 32], Ticket>,
    visits: Cache<[u8; 32], Arc<Visit>>,
    next: AtomicU64,
}

#[derive(Clone)]
struct Ticket {
    tunnel: TunnelId,
    agent: AgentId,
    principal: Principal,
}

/// One browser's access to one tunnel, on behalf of a principal.
pub struct Visit {
    /// Tells visits apart, among ourselves.
    pub number: u64,
    pub tunnel: TunnelId,
    pub agent: AgentId,
    pub principal: Principal,
    /// Cancelled when the principal may not any more: whatever is under way ends.
    pub ended: CancellationToken,
    /// When its principal was last found to be in order.
    checked: Mutex<Instant>,
    /// Redirects of pages in a row.
    pub redirects: AtomicU32,
}

impl Visits {
    pub fn new() -> Arc<Self> {
        let tickets = Cache::builder().max_capacity(TICKETS_MAX).time_to_live(TICKET_TTL).build();
        let visits = Cache::builder().max_capacity(VISITS_MAX).time_to_idle(VISIT_IDLE).time_to_live(VISIT_TTL);
        // One that was displaced or ran out must not go on in the streams it opened.
        let visits = visits.eviction_listener(|_, visit: Arc<Visit>, _| visit.ended.cancel()).build();
        Arc::new(Self { tickets, visits, next: AtomicU64::new(1) })
    }

    /// A ticket to the tunnel's pages, good once and for [`TICKET_TTL`].
    pub fn ticket(&self, tunnel: TunnelId, agent: AgentId, principal: Principal) -> SecretString {
        let secret = secret();
        self.tickets.insert(hash(secret.expose_secret()), Ticket { tunnel, agent, principal });
        secret
    }

    /// Exchanges a ticket for the secret of a new visit. A ticket is spent by any try, also at the wrong tunnel.
    pub fn enter(&self, tunnel: TunnelId, ticket: &str) -> Option<SecretString> {
        let ticket = self.tickets.remove(&hash(ticket)).filter(|ticket| ticket.tunnel == tunnel)?;
        let secret = secret();
        let visit = Visit {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            tunnel,
            agent: ticket.agent,
            principal: ticket.principal,
            ended: CancellationToken::new(),
            checked: Mutex::new(Instant::now()),
            redirects: AtomicU32::new(0),
        };
        self.visits.insert(hash(secret.expose_secret()), Arc::new(visit));
        Some(secret)
    }

    /// The visit of this secret, if it is one of this tunnel's.
    pub fn find(&self, tunnel: TunnelId, secret: &str) -> Option<Arc<Visit>> {
        let visit = self.visits.get(&hash(secret))?;
        (visit.tunnel == tunnel && !visit.ended.is_cancelled()).then_some(visit)
    }
}

impl Visit {
    /// Whether its principal was asked about within `age`.
    pub fn is_fresh(&self, age: Duration) -> bool {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < age
    }

    /// Its principal was just found to be in order.
    pub fn confirm(&self) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

fn secret() -> SecretString {
    SecretString::from(URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>()))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal::for_tests("tunnels:write".parse().unwrap(), "".parse().unwrap())
    }

    #[test]
    fn a_ticket_is_good_once_and_for_its_own_tunnel() {
        let visits = Visits::new();
        let (here, there) = (TunnelId::random(), TunnelId::random());
        let agent: AgentId = "home-1".parse().unwrap();
        let ticket = visits.ticket(here, agent.clone(), principal());
        let secret = visits.enter(here, ticket.expose_secret()).unwrap();
        assert!(visits.enter(here, ticket.expose_secret()).is_none());
        assert!(visits.find(here, secret.expose_secret()).is_some());
        assert!(visits.find(there, secret.expose_secret()).is_none());
        assert!(visits.find(here, ticket.expose_secret()).is_none());

        let wrong = visits.ticket(here, agent, principal());
        assert!(visits.enter(there, wrong.expose_secret()).is_none());
        assert!(visits.enter(here, wrong.expose_secret()).is_none(), "spent by the first try");
    }

    #[test]
    fn an_ended_visit_is_found_no_more() {
        let visits = Visits::new();
        let tunnel = TunnelId::random();
        let ticket = visits.ticket(tunnel, "home-1".parse().unwrap(), principal());
        let secret = visits.enter(tunnel, ticket.expose_secret()).unwrap();
        visits.find(tunnel, secret.expose_secret()).unwrap().ended.cancel();
        assert!(visits.find(tunnel, secret.expose_secret()).is_none());
    }
}
