//! The event bus: what happened, in order, under ids that only grow. It keeps the last [`RING`] events in memory and
//! knows no store: the app pumps events to disk, and whoever fell behind the ring resumes from there.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::id::{AgentId, TunnelId};
use serde_json::Value;
use tokio::sync::watch;

/// Events kept in memory. At 200 events a second (a whole fleet returning) this is 50 s, far more than a store batch.
pub const RING: usize = 10_000;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Grows with every event, across restarts too. Below 2^53, so that JavaScript reads it exactly.
    pub id: u64,
    pub at_ms: i64,
    /// A dotted word: `agent.online`, `agent.suspect`, `tunnel.closed`, …
    pub kind: String,
    pub agent_id: Option<AgentId>,
    pub tunnel_id: Option<TunnelId>,
    /// The stable word of a code, where there is one.
    pub reason: Option<String>,
    /// Further facts: an object, or null.
    pub detail: Value,
}

/// An event before it has an id and a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub kind: &'static str,
    pub agent_id: Option<AgentId>,
    pub tunnel_id: Option<TunnelId>,
    pub reason: Option<String>,
    pub detail: Value,
}

impl Draft {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, agent_id: None, tunnel_id: None, reason: None, detail: Value::Null }
    }

    pub fn agent(mut self, id: &AgentId) -> Self {
        self.agent_id = Some(id.clone());
        self
    }

    pub fn tunnel(mut self, id: TunnelId) -> Self {
        self.tunnel_id = Some(id);
        self
    }

    pub fn reason(mut self, word: impl ToString) -> Self {
        self.reason = Some(word.to_string());
        self
    }

    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

/// The bus. Clones share it. Dropping the last one ends every subscription.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Arc<Mutex<Ring>>,
    latest: watch::Sender<u64>,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    next_id: u64,
}

/// The subscriber fell behind the ring, or its cursor is older than it: read the store up to `oldest` and subscribe again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events before {oldest} are no longer in memory")]
pub struct Lagged {
    /// The oldest id the bus still holds.
    pub oldest: u64,
}

/// Why a subscription gave no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NextError {
    #[error(transparent)]
    Lagged(#[from] Lagged),
    #[error("the event bus was closed")]
    Closed,
}

/// One reader's place in the stream. Holding one costs nothing; a slow one delays nobody.
pub struct Subscription {
    ring: Arc<Mutex<Ring>>,
    latest: watch::Receiver<u64>,
    /// The id of the last event handed out.
    cursor: u64,
}

impl Events {
    /// A bus whose ids start above `last_id`, the highest the store holds, and above anything a crash may have lost:
    /// ids grow from the clock in microseconds, which no bus outruns.
    pub fn new(last_id: u64, now_ms: i64) -> Self {
        let clock = u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000);
        let next_id = clock.max(last_id + 1);
        let ring = Arc::new(Mutex::new(Ring { events: VecDeque::new(), next_id }));
        Self { shared: Arc::new(Shared { ring, latest: watch::Sender::new(next_id - 1) }) }
    }

    /// Publishes at the wall clock's time. Never blocks, never fails.
    pub fn publish(&self, draft: Draft) -> u64 {
        self.publish_at(draft, crate::clock::unix_ms())
    }

    /// Publishes with a given time.
    pub fn publish_at(&self, draft: Draft, at_ms: i64) -> u64 {
        let Draft { kind, agent_id, tunnel_id, reason, detail } = draft;
        let mut ring = lock(&self.shared.ring);
        let id = ring.next_id;
        ring.next_id += 1;
        if ring.events.len() == RING {
            ring.events.pop_front();
        }
        let event = Event { id, at_ms, kind: kind.to_owned(), agent_id, tunnel_id, reason, detail };
        ring.events.push_back(Arc::new(event));
        // Under the lock, so that the watch never goes backwards.
        self.shared.latest.send_replace(id);
        id
    }

    /// The id of the newest event; before the first, the id just below it.
    pub fn last_id(&self) -> u64 {
        *self.shared.latest.borrow()
    }

    /// Everything published from now on.
    pub fn subscribe(&self) -> Subscription {
        self.subscription(self.last_id())
    }

    /// Everything after `cursor`. Fails when some of it may have left the memory (or was published by an earlier run).
    pub fn subscribe_from(&self, cursor: u64) -> Result<Subscription, Lagged> {
        let oldest = lock(&self.shared.ring).oldest();
        if cursor + 1 < oldest { Err(Lagged { oldest }) } else { Ok(self.subscription(cursor.min(self.last_id()))) }
    }

    fn subscription(&self, cursor: u64) -> Subscription {
        Subscription { ring: self.shared.ring.clone(), latest: self.shared.latest.subscribe(), cursor }
    }
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.events.front().map_or(self.next_id, |event| event.id)
    }

    /// Ids in the ring are contiguous, so a place in it is a subtraction.
    fn after(&self, cursor: u64, max: usize) -> Result<Vec<Arc<Event>>, Lagged> {
        let oldest = self.oldest();
        let skip = (cursor + 1).checked_sub(oldest).ok_or(Lagged { oldest })?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(self.events.iter().skip(skip).take(max).cloned().collect())
    }
}

impl Subscription {
    /// The next event, waiting for it. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Result<Arc<Event>, NextError> {
        let mut batch = self.next_batch(1).await?;
        batch.pop().ok_or(NextError::Closed)
    }

    /// One to `max` events, waiting for the first. Safe to cancel. After the bus closed, what is left comes first.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Arc<Event>>, NextError> {
        loop {
            self.latest.borrow_and_update();
            let batch = lock(&self.ring).after(self.cursor, max.max(1))?;
            if let Some(last) = batch.last() {
                self.cursor = last.id;
                return Ok(batch);
            }
            self.latest.changed().await.map_err(|_| NextError::Closed)?;
        }
    }

    /// The id of the last event handed out: where to resume.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// After [`Lagged`]: continue with the oldest event still held.
    pub fn skip_to(&mut self, lagged: Lagged) {
        self.cursor = lagged.oldest - 1;
    }
}

/// A panic elsewhere cannot leave the ring half-changed, so a poisoned lock is still good.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_arrive_in_order_and_resume_by_cursor() {
        let events = Events::new(7, 0);
        let mut live = events.subscribe();
        let first = events.publish_at(Draft::new("a"), 1);
        events.publish_at(Draft::new("b").reason("done"), 2);
        assert_eq!(first, 8);
        assert_eq!(live.next().await.unwrap().kind, "a");
        let mut resumed = events.subscribe_from(first).unwrap();
        assert_eq!(resumed.next().await.unwrap().kind, "b");
        assert_eq!(live.next().await.unwrap().id, 9);
        assert_eq!(live.cursor(), events.last_id());
    }

    #[tokio::test]
    async fn ids_start_above_the_store_and_the_clock() {
        assert_eq!(Events::new(5_000_000, 1_000).publish(Draft::new("a")), 5_000_001);
        assert_eq!(Events::new(3, 1_000).publish(Draft::new("a")), 1_000_000);
        // A cursor of an earlier run must be answered from the store.
        assert_eq!(Events::new(3, 1_000).subscribe_from(2).err(), Some(Lagged { oldest: 1_000_000 }));
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_goes_on() {
        let events = Events::new(0, 0);
        let mut slow = events.subscribe();
        for _ in 0..RING + 5 {
            events.publish_at(Draft::new("a"), 0);
        }
        let NextError::Lagged(lagged) = slow.next().await.unwrap_err() else { panic!("not lagged") };
        assert_eq!(lagged.oldest, 6);
        assert!(events.subscribe_from(4).is_err());
        assert!(events.subscribe_from(5).is_ok());
        slow.skip_to(lagged);
        assert_eq!(slow.next_batch(usize::MAX).await.unwrap().len(), RING);
    }

    #[tokio::test]
    async fn the_end_of_the_bus_is_told_after_what_is_left() {
        let events = Events::new(0, 0);
        let mut reader = events.subscribe();
        events.publish(Draft::new("a"));
        drop(events);
        assert!(reader.next().await.is_ok());
        assert_eq!(reader.next().await.unwrap_err(), NextError::Closed);
    }

    #[tokio::test]
    async fn a_cursor_from_the_future_waits_for_new_events() {
        let events = Events::new(0, 0);
        let mut reader = events.subscribe_from(999).unwrap();
        events.publish(Draft::new("a"));
        assert_eq!(reader.next().await.unwrap().id, 1);
    }
}
