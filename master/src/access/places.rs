//! Places for strangers: how many may be under way at once, in all and from one network, so that no address alone can
//! fill them. Counts; what a place is for is the caller's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

/// A bounded number of places. Memory grows with the places taken, never with the addresses seen.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    networks: DashMap<IpAddr, usize>,
    most: usize,
    most_per_network: usize,
    freed: Notify,
    unsettled: Mutex<Unsettled>,
}

/// Who has a place and has not shown yet that it is worth one, oldest first.
#[derive(Debug, Default)]
struct Unsettled {
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

/// One place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
    number: u64,
    pushed_out: CancellationToken,
}

impl Place {
    /// Cancelled when a newer one needs the place; whoever holds it then leaves.
    pub fn pushed_out(&self) -> &CancellationToken {
        &self.pushed_out
    }

    /// From now on nobody is put in this one's place. False where somebody already was.
    pub fn settle(&self) -> bool {
        self.places.unsettled().waiting.remove(&self.number);
        !self.pushed_out.is_cancelled()
    }
}

impl Places {
    pub fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            networks: DashMap::new(),
            most,
            most_per_network,
            freed: Notify::new(),
            unsettled: Mutex::default(),
        })
    }

    /// `None` when all places are taken, or all that one network may have.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        self.enter_or(address, || false)
    }

    /// The same, but where all are taken the one that has been unsettled for longest has to go: whoever means it settles
    /// long before that, however many do not. What was pushed out still counts until it has left.
    pub fn push_in(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        self.enter_or(address, || self.push_out_oldest())
    }

    fn enter_or(self: &Arc<Self>, address: IpAddr, make_room: impl FnOnce() -> bool) -> Option<Place> {
        let network = network(address);
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let beside = {
            let mut taken = self.networks.entry(network).or_insert(0);
            *taken += 1;
            *taken
        };
        if beside <= self.most_per_network && (before < self.most || make_room()) {
            return Some(self.place(network));
        }
        self.leave(network);
        None
    }

    fn place(self: &Arc<Self>, network: IpAddr) -> Place {
        let pushed_out = CancellationToken::new();
        let mut unsettled = self.unsettled();
        let number = unsettled.next;
        unsettled.next += 1;
        unsettled.waiting.insert(number, pushed_out.clone());
        Place { places: self.clone(), network, number, pushed_out }
    }

    fn push_out_oldest(&self) -> bool {
        // Cancelled under the lock, so that settling says rightly who was first.
        let mut unsettled = self.unsettled();
        let oldest = unsettled.waiting.pop_first();
        if let Some((_, oldest)) = &oldest {
            oldest.cancel();
        }
        oldest.is_some()
    }

    fn unsettled(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes in, and waits while one network has all it may, for at most `within`. Whoever waits must itself be bounded.
    pub async fn wait(self: &Arc<Self>, address: IpAddr, within: Duration) -> Option<Place> {
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // A place that is freed between the look and the wait is heard of.
                freed.as_mut().enable();
                match self.push_in(address) {
                    Some(place) => return place,
                    None => freed.await,
                }
            }
        };
        timeout(within, waiting).await.ok()
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn leave(&self, network: IpAddr) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.networks.remove_if_mut(&network, |_, taken| {
            *taken -= 1;
            *taken == 0
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.unsettled().waiting.remove(&self.number);
        self.places.leave(self.network);
        self.places.freed.notify_waiters();
    }
}

/// What one customer usually gets: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_network_alone_fills_the_places() {
        let places = Places::new(100, 10);
        let greedy: Vec<_> =
            (0..20_u128).filter_map(|host| places.enter(IpAddr::V6((0x2001_0db8_u128 << 96 | host).into()))).collect();
        assert_eq!(greedy.len(), 10);
        let others: Vec<_> = (0..200_u8).filter_map(|host| places.enter(IpAddr::from([192, 0, 2, host]))).collect();
        assert_eq!(others.len(), 90);
        drop((greedy, others));
        assert_eq!(places.taken(), 0);
        assert!(places.networks.is_empty());
    }

    #[test]
    fn who_pushes_in_takes_the_place_of_the_oldest_that_has_not_settled() {
        let places = Places::new(3, 2);
        let address = |host: u8| IpAddr::from([192, 0, 2, host]);
        let held: Vec<_> = (0..3).map(|host| places.push_in(address(host)).unwrap()).collect();
        assert!(held[0].settle());
        assert!(places.enter(address(3)).is_none(), "entering pushes nobody");
        let newer = places.push_in(address(3)).unwrap();
        let out: Vec<_> = held.iter().map(|place| place.pushed_out().is_cancelled()).collect();
        assert_eq!(out, [false, true, false], "the oldest of those that did not settle");
        assert!(!held[1].settle(), "too late");
        // A network at its own bound pushes nobody.
        let _second = places.push_in(address(3)).unwrap();
        assert!(places.push_in(address(3)).is_none());
        assert!(newer.settle());
        drop(held);
        drop(newer);
        assert_eq!(places.taken(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_place_of_its_own_network() {
        let places = Places::new(100, 1);
        let (ours, theirs) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let held = places.enter(ours).unwrap();
        let other = places.enter(theirs).unwrap();
        assert!(places.wait(ours, Duration::from_secs(1)).await.is_none());
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.wait(ours, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        drop(other);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.await.unwrap().is_some());
        assert_eq!(places.taken(), 0);
    }
}
