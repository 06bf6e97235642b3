//! Failed attempts: limited by identity, slowed by address, in bounded memory (SECURITY R12). A success is never slowed,
//! so that neighbours behind one NAT do not pay for each other.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

/// Identities and addresses remembered, each. At about 150 bytes an entry both stay below 20 MB. When full, the ones
/// seen least often go first: a flood of made-up ids does not push out the one under attack.
const REMEMBERED: u64 = 50_000;
/// Failures of one identity that pass before it must wait, and of one address before it is slowed.
const FREE: u32 = 5;
/// After that one attempt per identity is checked in this time.
const IDENTITY_EVERY: Duration = Duration::from_secs(60);
/// First delay of an address's refusals; doubles with each further failure up to the longest.
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_LONGEST: Duration = Duration::from_secs(4);
/// Without a failure for this long, all is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Too many failed attempts under this identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts; try again in {} s", retry_after.as_secs().max(1))]
pub struct TooMany {
    pub retry_after: Duration,
}

/// Counts failures of one kind of proof (enrolment, API, …).
pub struct Limiter {
    hasher: RandomState,
    identities: Cache<u64, Failures>,
    addresses: Cache<u64, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Default for Limiter {
    fn default() -> Self {
        let cache = || Cache::builder().max_capacity(REMEMBERED).time_to_idle(FORGET_AFTER).build();
        Self { hasher: RandomState::new(), identities: cache(), addresses: cache() }
    }
}

impl Limiter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Before the proof is checked. Refuses an identity that failed too often of late, whoever asks: no answer then
    /// tells whether this proof was right.
    pub fn check(&self, identity: &str, now: Instant) -> Result<(), TooMany> {
        let Some(failures) = self.identities.get(&self.hasher.hash_one(identity)) else { return Ok(()) };
        let since = now.saturating_duration_since(failures.last);
        if failures.count < FREE || since >= IDENTITY_EVERY {
            return Ok(());
        }
        Err(TooMany { retry_after: IDENTITY_EVERY - since })
    }

    /// After a proof failed. Returns how long to wait before saying so.
    pub fn failed(&self, identity: Option<&str>, address: IpAddr, now: Instant) -> Duration {
        if let Some(identity) = identity {
            self.count(&self.identities, self.hasher.hash_one(identity), now);
        }
        let count = self.count(&self.addresses, self.hasher.hash_one(network(address)), now);
        match count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => DELAY_FIRST.saturating_mul(1 << doublings.min(10)).min(DELAY_LONGEST),
        }
    }

    /// After a proof held: the identity starts afresh.
    pub fn succeeded(&self, identity: &str) {
        self.identities.invalidate(&self.hasher.hash_one(identity));
    }

    fn count(&self, cache: &Cache<u64, Failures>, key: u64, now: Instant) -> u32 {
        let entry = cache.entry(key).and_upsert_with(|old| match old {
            Some(old) if now.saturating_duration_since(old.value().last) < FORGET_AFTER => {
                Failures { count: old.value().count.saturating_add(1), last: now }
            }
            _ => Failures { count: 1, last: now },
        });
        entry.value().count
    }
}

/// An IPv6 caller owns at least a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}
