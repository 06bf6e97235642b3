//! Places for strangers: how many may be under way at once, in all and from one network, so that no address alone can
//! fill them. Counts; what a place is for is the caller's.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{sync::Notify, time::timeout};

/// A bounded number of places. Memory grows with the places taken, never with the addresses seen.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    networks: DashMap<IpAddr, usize>,
    most: usize,
    most_per_network: usize,
    freed: Notify,
}

/// One place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Places {
    pub fn new(most: usize, most_per_network: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            networks: DashMap::new(),
            most,
            most_per_network,
            freed: Notify::new(),
        })
    }

    /// `None` when all places are taken, or all that one network may have.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let beside = {
            let mut taken = self.networks.entry(network).or_insert(0);
            *taken += 1;
            *taken
        };
        if before < self.most && beside <= self.most_per_network {
            return Some(Place { places: self.clone(), network });
        }
        self.leave(network);
        None
    }

    /// The same, and waits for a place to become free, for at most `within`. Whoever waits must itself be bounded.
    pub async fn wait(self: &Arc<Self>, address: IpAddr, within: Duration) -> Option<Place> {
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // A place that is freed between the look and the wait is heard of.
                freed.as_mut().enable();
                match self.enter(address) {
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
