//! Window credit: bytes that a stalled reader pins are given back to its line, so that a paused download never starves
//! the other streams (TRANSPORT §4). Bounded per line and per process; at the bound the longest-stalled stream goes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::VarInt;
use tokio::sync::Notify;

use super::quic::STREAM_RECEIVE_WINDOW;

/// Most credit one line may hold beyond its base window, bytes.
pub const LINE_CREDIT_MAX: u64 = 64 << 20;
/// Most credit all lines of one process may hold together, bytes.
pub const PROCESS_CREDIT_MAX: u64 = 512 << 20;
/// A reader that takes nothing for this long counts as stalled and its line gets credit.
pub const STALLED_AFTER: Duration = Duration::from_millis(100);

/// The process-wide store of credit.
#[derive(Debug)]
pub struct CreditPool {
    free: AtomicU64,
}

impl CreditPool {
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { free: AtomicU64::new(bytes) })
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The credit of one line.
#[derive(Debug)]
pub struct LineCredit {
    connection: Option<quinn::Connection>,
    base: u64,
    pool: Arc<CreditPool>,
    stalls: Mutex<Stalls>,
}

#[derive(Debug, Default)]
struct Stalls {
    next: u64,
    granted: u64,
    /// Oldest first; only streams that hold a grant.
    holders: BTreeMap<u64, Arc<Notify>>,
    /// Stalled streams that wait for the grant of one being evicted.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// One stalled stream. Dropping it says that the stream moves again or is gone.
#[derive(Debug)]
pub struct Stalled {
    credit: Arc<LineCredit>,
    id: u64,
    evict: Arc<Notify>,
}

impl LineCredit {
    /// `base` is the line's receive window without credit, bytes.
    pub fn new(connection: quinn::Connection, base: u64, pool: Arc<CreditPool>) -> Arc<Self> {
        Arc::new(Self { connection: Some(connection), base, pool, stalls: Mutex::default() })
    }

    /// Announces that a stream's reader stalled: one stream window of credit is added, or the longest-stalled stream is
    /// asked to go.
    pub fn stalled(self: &Arc<Self>) -> Stalled {
        let mut stalls = self.lock();
        let id = stalls.next;
        stalls.next += 1;
        let evict = Arc::new(Notify::new());
        let within_line = stalls.granted + STREAM_RECEIVE_WINDOW <= LINE_CREDIT_MAX;
        if within_line && self.pool.take(STREAM_RECEIVE_WINDOW) {
            stalls.holders.insert(id, evict.clone());
            self.set_granted(&mut stalls, |granted| granted + STREAM_RECEIVE_WINDOW);
        } else {
            stalls.waiting.insert(id, evict.clone());
            // With no holder on this line the process is at its bound because of others: this one goes itself.
            let longest = stalls.holders.values().next().unwrap_or(&evict);
            longest.notify_one();
        }
        drop(stalls);
        Stalled { credit: self.clone(), id, evict }
    }

    /// Waits for something that lets a stream's bytes go on, and lends the line a window meanwhile if it takes longer than
    /// a moment. `None` if the line needs the stream's window back: then the stream must be reset.
    pub async fn lend_while<T>(self: &Arc<Self>, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = std::pin::pin!(wait);
        if let Ok(value) = tokio::time::timeout(STALLED_AFTER, &mut wait).await {
            return Some(value);
        }
        let stalled = self.stalled();
        tokio::select! {
            biased;
            value = wait => Some(value),
            () = stalled.evicted() => None,
        }
    }

    fn release(&self, id: u64) {
        let mut stalls = self.lock();
        if stalls.waiting.remove(&id).is_some() || stalls.holders.remove(&id).is_none() {
            return;
        }
        if let Some((next, evict)) = stalls.waiting.pop_first() {
            stalls.holders.insert(next, evict);
            return;
        }
        self.pool.give_back(STREAM_RECEIVE_WINDOW);
        self.set_granted(&mut stalls, |granted| granted - STREAM_RECEIVE_WINDOW);
    }

    fn set_granted(&self, stalls: &mut Stalls, change: impl FnOnce(u64) -> u64) {
        stalls.granted = change(stalls.granted);
        if let Some(connection) = &self.connection {
            let window = VarInt::from_u64(self.base + stalls.granted).unwrap_or(VarInt::MAX);
            connection.set_receive_window(window);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stalls> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stalled {
    /// Resolves when this stream must be reset to free the window.
    pub async fn evicted(&self) {
        self.evict.notified().await;
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.credit.release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pool: &Arc<CreditPool>) -> Arc<LineCredit> {
        Arc::new(LineCredit { connection: None, base: 0, pool: pool.clone(), stalls: Mutex::default() })
    }

    async fn evicted_now(stalled: &Stalled) -> bool {
        tokio::select! { biased; () = stalled.evicted() => true, () = std::future::ready(()) => false }
    }

    #[tokio::test]
    async fn thirty_two_stalled_readers_fit_and_the_next_evicts_the_longest() {
        let pool = CreditPool::new(PROCESS_CREDIT_MAX);
        let line = line(&pool);
        let mut stalled: Vec<_> = (0..32).map(|_| line.stalled()).collect();
        for one in &stalled {
            assert!(!evicted_now(one).await);
        }
        let newest = line.stalled();
        assert!(evicted_now(&stalled[0]).await);
        assert!(!evicted_now(&newest).await);
        stalled.remove(0);
        assert_eq!(line.lock().granted, LINE_CREDIT_MAX);
        assert_eq!(line.lock().waiting.len(), 0);
        drop((stalled, newest));
        assert_eq!(line.lock().granted, 0);
        assert_eq!(pool.free.load(Ordering::Relaxed), PROCESS_CREDIT_MAX);
    }

    #[tokio::test]
    async fn a_line_without_credit_in_an_empty_pool_gives_up_its_own_stream() {
        let pool = CreditPool::new(0);
        let line = line(&pool);
        let stalled = line.stalled();
        assert!(evicted_now(&stalled).await);
    }
}
