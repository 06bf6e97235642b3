//! Whether anybody still looks at a tunnel's pages. Dashboards say which windows are open; requests through the gateway
//! say the rest. While somebody looks, the tunnel's heartbeat is kept; when the last one has gone it is closed.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use proto::id::TunnelId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{By, CloseReason, Tunnels};

/// After a window was let go: a reload opens it again within this time.
const GRACE: Duration = Duration::from_secs(4);
/// Without a request and without a dashboard: nobody looks.
const QUIET: Duration = Duration::from_secs(10);
/// How often it is looked who left; also bounds how late a close comes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the heartbeat of a tunnel with an open window is given.
const BEAT_EVERY: Duration = Duration::from_secs(20);

/// Presence at all tunnels.
pub struct Presence {
    tunnels: Arc<Tunnels>,
    seen: DashMap<TunnelId, Seen>,
    next: AtomicU64,
}

/// One tunnel's watchers.
#[derive(Debug)]
struct Seen {
    holders: HashSet<u64>,
    /// Requests and streams under way.
    active: u64,
    begun: Instant,
    ended: Instant,
    left: Option<Left>,
    beaten: Option<Instant>,
}

/// The last holder has gone.
#[derive(Debug, Clone, Copy)]
struct Left {
    at: Instant,
    /// It let go of the window; otherwise its socket died, and the window may still be there.
    let_go: bool,
}

/// One dashboard's windows. Dropping it says nothing about them: they may be open still.
pub struct Holder {
    presence: Arc<Presence>,
    id: u64,
    /// As rows name it.
    owner: String,
    holds: HashSet<TunnelId>,
}

/// A request through the gateway while it lasts.
pub struct Present {
    presence: Arc<Presence>,
    tunnel: TunnelId,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { holders: HashSet::new(), active: 0, begun: now, ended: now, left: None, beaten: None }
    }

    /// Whether the tunnel shall be closed now.
    fn is_abandoned(&self, now: Instant) -> bool {
        let Some(left) = self.left else { return false };
        if !self.holders.is_empty() || self.active > 0 {
            return false;
        }
        // What only ended since was the closed window's own: it tells of nobody else.
        let unused_since = self.begun <= left.at;
        let quiet = self.is_quiet(now) && now.duration_since(left.at) >= QUIET;
        quiet || (left.let_go && unused_since && now.duration_since(left.at) >= GRACE)
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now.duration_since(self.begun.max(self.ended)) >= QUIET
    }

    /// Whether somebody looks, so that its heartbeat is due.
    fn is_beat_due(&self, now: Instant) -> bool {
        let looks = !self.holders.is_empty() || self.left.is_some();
        looks && self.beaten.is_none_or(|at| now.duration_since(at) >= BEAT_EVERY)
    }

    /// Nothing is to be remembered.
    fn is_idle(&self, now: Instant) -> bool {
        self.holders.is_empty() && self.active == 0 && self.left.is_none() && self.is_quiet(now)
    }
}

impl Presence {
    pub fn new(tunnels: Arc<Tunnels>) -> Arc<Self> {
        Arc::new(Self { tunnels, seen: DashMap::new(), next: AtomicU64::new(1) })
    }

    /// A dashboard that will say which windows it has open; `owner` is whose dashboard, as rows name them.
    pub fn holder(self: &Arc<Self>, owner: String) -> Holder {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Holder { presence: self.clone(), id, owner, holds: HashSet::new() }
    }

    /// A request or stream through the gateway; it counts until it is dropped.
    pub fn request(self: &Arc<Self>, tunnel: TunnelId) -> Present {
        let now = Instant::now();
        let mut seen = self.seen.entry(tunnel).or_insert_with(|| Seen::new(now));
        seen.active += 1;
        seen.begun = now;
        drop(seen);
        Present { presence: self.clone(), tunnel }
    }

    /// Keeps heartbeats and closes what nobody looks at, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = every.tick() => self.look().await,
            }
        }
    }

    async fn look(&self) {
        let now = Instant::now();
        let (mut beats, mut closes) = (Vec::new(), Vec::new());
        self.seen.retain(|tunnel, seen| {
            if seen.is_abandoned(now) {
                closes.push(*tunnel);
                return false;
            }
            if seen.is_beat_due(now) {
                seen.beaten = Some(now);
                beats.push(*tunnel);
            }
            !seen.is_idle(now)
        });
        for tunnel in beats {
            if !matches!(self.tunnels.heartbeat(tunnel).await, Ok(Some(true))) {
                self.seen.remove(&tunnel);
            }
        }
        for tunnel in closes {
            let by = By { actor: "master".to_owned(), source: None };
            if let Err(error) = self.tunnels.close(tunnel, CloseReason::WindowClosed, by).await {
                tracing::warn!(%tunnel, %error, "a tunnel whose window was closed did not close");
            }
        }
    }

    fn hold(&self, tunnel: TunnelId, holder: u64) {
        let mut seen = self.seen.entry(tunnel).or_insert_with(|| Seen::new(Instant::now()));
        seen.holders.insert(holder);
        seen.left = None;
    }

    fn leave(&self, tunnel: TunnelId, holder: u64, owner: &str, let_go: bool) {
        let Some(mut seen) = self.seen.get_mut(&tunnel) else { return };
        if seen.holders.remove(&holder) && seen.holders.is_empty() {
            // One that lives by no heartbeat was meant to outlive its window; one of somebody else's is theirs to end.
            let lives_by_us = self.tunnels.open_row(tunnel).is_some_and(|row| row.heartbeat && row.owner == owner);
            seen.left = lives_by_us.then(|| Left { at: Instant::now(), let_go });
        }
    }
}

impl Holder {
    /// The windows that are open now: what is missing was let go of.
    pub fn set(&mut self, open: HashSet<TunnelId>) {
        for tunnel in self.holds.difference(&open) {
            self.presence.leave(*tunnel, self.id, &self.owner, true);
        }
        for tunnel in open.difference(&self.holds) {
            self.presence.hold(*tunnel, self.id);
        }
        self.holds = open;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        for tunnel in &self.holds {
            self.presence.leave(*tunnel, self.id, &self.owner, false);
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if let Some(mut seen) = self.presence.seen.get_mut(&self.tunnel) {
            seen.active = seen.active.saturating_sub(1);
            seen.ended = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a tunnel is closed whose holder left at a second, and whose last request began and ended at others.
    fn abandoned_at(left: Option<(u64, bool)>, (begun, ended): (u64, u64), active: u64) -> Option<u64> {
        let base = Instant::now();
        let at = |s: u64| base + Duration::from_secs(s);
        let left = left.map(|(s, let_go)| Left { at: at(s), let_go });
        let seen = Seen { active, left, begun: at(begun), ended: at(ended), ..Seen::new(base) };
        (0..100).find(|s| seen.is_abandoned(at(*s)))
    }

    #[test]
    fn a_window_let_go_ends_it_after_the_grace_and_a_reload_does_not() {
        assert_eq!(abandoned_at(Some((20, true)), (19, 19), 0), Some(24));
        // A stream of the closed window ended with it, a little late.
        assert_eq!(abandoned_at(Some((20, true)), (5, 22), 0), Some(24));
        // A request came after: somebody reloaded, or another window is open.
        assert_eq!(abandoned_at(Some((20, true)), (22, 22), 0), Some(32));
        assert_eq!(abandoned_at(Some((20, true)), (19, 19), 1), None);
    }

    #[test]
    fn a_dashboard_that_died_leaves_it_to_the_requests() {
        assert_eq!(abandoned_at(Some((20, false)), (5, 5), 0), Some(30));
        assert_eq!(abandoned_at(Some((20, false)), (5, 25), 0), Some(35));
        assert_eq!(abandoned_at(None, (5, 5), 0), None);
    }
}
