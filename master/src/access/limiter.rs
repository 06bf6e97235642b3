//! Failed attempts: limited by identity, slowed by address, in bounded memory (SECURITY R12). A success is never slowed,
//! so that neighbours behind one NAT do not pay for each other.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Identities and addresses remembered, each; 32 bytes an entry, allocated once and never more.
const SETS: usize = 1 << 13;
const WAYS: usize = 8;
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
    identities: Table,
    addresses: Table,
}

/// A set-associative table. A full set gives up its entry with the fewest failures: a flood of made-up ids pushes out
/// its own, not the one under attack, and which ids share a set is the process's secret.
struct Table(Mutex<Box<[[Option<Failures>; WAYS]]>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    key: u64,
    count: u32,
    last: Instant,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { hasher: RandomState::new(), identities: Table::new(), addresses: Table::new() }
    }
}

impl Limiter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Before the proof is checked. Refuses an identity that failed too often of late, whoever asks: no answer then
    /// tells whether this proof was right.
    pub fn check(&self, identity: &str, now: Instant) -> Result<(), TooMany> {
        let Some(failures) = self.identities.find(self.hasher.hash_one(identity)) else { return Ok(()) };
        let since = now.saturating_duration_since(failures.last);
        if failures.count < FREE || since >= IDENTITY_EVERY {
            return Ok(());
        }
        Err(TooMany { retry_after: IDENTITY_EVERY - since })
    }

    /// After a proof failed. Returns how long to wait before saying so.
    pub fn failed(&self, identity: Option<&str>, address: IpAddr, now: Instant) -> Duration {
        if let Some(identity) = identity {
            self.identities.count(self.hasher.hash_one(identity), now);
        }
        let count = self.addresses.count(self.hasher.hash_one(network(address)), now);
        match count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => DELAY_FIRST.saturating_mul(1 << doublings.min(10)).min(DELAY_LONGEST),
        }
    }

    /// After a proof held: the identity starts afresh.
    pub fn succeeded(&self, identity: &str) {
        self.identities.forget(self.hasher.hash_one(identity));
    }
}

impl Table {
    fn new() -> Self {
        Self(Mutex::new(vec![[None; WAYS]; SETS].into_boxed_slice()))
    }

    fn find(&self, key: u64) -> Option<Failures> {
        self.in_set(key, |set| set.iter().flatten().find(|failures| failures.key == key).copied())
    }

    fn forget(&self, key: u64) {
        self.in_set(key, |set| {
            for slot in set.iter_mut().filter(|slot| slot.is_some_and(|failures| failures.key == key)) {
                *slot = None;
            }
        });
    }

    /// Adds one failure and returns how many there are now.
    fn count(&self, key: u64, now: Instant) -> u32 {
        let forgotten = |failures: &Failures| now.saturating_duration_since(failures.last) >= FORGET_AFTER;
        self.in_set(key, |set| {
            for slot in set.iter_mut() {
                *slot = slot.filter(|failures| !forgotten(failures));
            }
            let known = set.iter().position(|slot| slot.is_some_and(|failures| failures.key == key));
            // An empty slot counts 0, so it goes first.
            let rank = |slot: &Option<Failures>| slot.map(|failures| (failures.count, failures.last));
            let weakest = || (0..WAYS).min_by_key(|way| rank(&set[*way]));
            let way = known.or_else(weakest).unwrap_or(0);
            let before = set[way].filter(|failures| failures.key == key).map_or(0, |failures| failures.count);
            let count = before.saturating_add(1);
            set[way] = Some(Failures { key, count, last: now });
            count
        })
    }

    fn in_set<T>(&self, key: u64, work: impl FnOnce(&mut [Option<Failures>; WAYS]) -> T) -> T {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = table.len() as u64;
        // Below SETS, so it fits.
        work(&mut table[(key % sets) as usize])
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_identity_is_limited_wherever_it_comes_from() {
        let (limiter, start) = (Limiter::new(), Instant::now());
        for number in 0..FREE {
            assert_eq!(limiter.check("a", start), Ok(()));
            limiter.failed(Some("a"), address(&format!("192.0.2.{number}")), start);
        }
        assert_eq!(limiter.check("a", start), Err(TooMany { retry_after: IDENTITY_EVERY }));
        assert_eq!(limiter.check("b", start), Ok(()));
        assert_eq!(limiter.check("a", start + IDENTITY_EVERY), Ok(()));
        limiter.failed(Some("a"), HOME, start + IDENTITY_EVERY);
        assert!(limiter.check("a", start + IDENTITY_EVERY).is_err());
        limiter.succeeded("a");
        assert_eq!(limiter.check("a", start + IDENTITY_EVERY), Ok(()));
    }

    #[test]
    fn an_address_is_slowed_more_and_more_but_never_shut_out() {
        let (limiter, now) = (Limiter::new(), Instant::now());
        let delays: Vec<_> = (0..20).map(|number| limiter.failed(Some(&number.to_string()), HOME, now)).collect();
        assert!(delays[..5].iter().all(Duration::is_zero));
        assert_eq!((delays[5], delays[6], delays[19]), (DELAY_FIRST, DELAY_FIRST * 2, DELAY_LONGEST));
        assert_eq!(limiter.failed(None, address("192.0.2.2"), now), Duration::ZERO);
        assert_eq!(limiter.failed(None, address("::ffff:192.0.2.1"), now), DELAY_LONGEST);
        assert_eq!(limiter.failed(None, HOME, now + FORGET_AFTER), Duration::ZERO);
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let (limiter, now) = (Limiter::new(), Instant::now());
        let last = (0..=FREE).map(|host| limiter.failed(None, address(&format!("2001:db8::{host:x}")), now)).last();
        assert_eq!(last, Some(DELAY_FIRST));
        assert_eq!(limiter.failed(None, address("2001:db8:0:1::1"), now), Duration::ZERO);
    }

    /// SECURITY R12: a million made-up ids cost nothing more, and do not free the identity under attack.
    #[test]
    fn memory_is_bounded() {
        let (limiter, now) = (Limiter::new(), Instant::now());
        let bytes = || {
            [&limiter.identities, &limiter.addresses].map(|table| size_of_val(&**table.0.lock().unwrap())).iter().sum()
        };
        let before: usize = bytes();
        for _ in 0..FREE {
            limiter.failed(Some("victim"), HOME, now);
        }
        for number in 0..1_000_000_u32 {
            limiter.failed(Some(&format!("made-up-{number}")), IpAddr::V4(number.into()), now);
        }
        assert!(before <= 32 << 20 && bytes() == before, "{before} bytes, then {}", bytes());
        assert!(limiter.check("victim", now).is_err(), "the flood freed the identity under attack");
    }
}
