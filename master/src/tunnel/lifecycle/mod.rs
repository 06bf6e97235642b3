//! The life of one tunnel as a pure state machine: events and time in, effects out. Knows no socket, no clock and no
//! store; the actor in `tunnel::actor` feeds it and carries out what it says.
//!
//! Time is Unix milliseconds of a clock that never steps: the actor anchors it once per tunnel.

mod health;
pub mod model;
#[cfg(test)]
mod tests;

pub use health::Health;
use health::Tracker;

use super::reason::{CloseReason, Failure};

/// First pause before a failed probe of a pending tunnel is tried again, milliseconds; it doubles up to
/// [`PROBE_AGAIN_MAX_MS`].
const PROBE_AGAIN_MS: i64 = 100;
const PROBE_AGAIN_MAX_MS: i64 = 2_000;
/// A standing tunnel waits for ever; its probes need not hurry.
const PROBE_AGAIN_STANDING_MAX_MS: i64 = 30_000;

/// The deadlines of one tunnel, milliseconds. A standing tunnel has none of them but the grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub standing: bool,
    /// Pending this long is a timeout.
    pub pending_ms: i64,
    /// The agent may be away this long, counted from suspect or close.
    pub grace_ms: i64,
    /// Without a heartbeat of the caller for this long the tunnel is closed; `None` where none is required.
    pub heartbeat_ms: Option<i64>,
    /// Without an open connection for this long the tunnel is closed.
    pub idle_ms: Option<i64>,
    /// Age at which the tunnel expires.
    pub ttl_ms: i64,
    /// Age beyond which it cannot be extended.
    pub ttl_max_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Pending(Pending),
    Active(Active),
    Disconnected(Ended),
    Timeout(Ended),
    Expired(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// When it becomes a timeout; `None` for a standing tunnel.
    pub until: Option<i64>,
    pub probing: Probing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// The agent is away.
    Waiting,
    Running {
        attempt: u32,
    },
    Again {
        at: i64,
        attempt: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    pub since: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub at: i64,
    pub reason: CloseReason,
}

/// The agent's line as the tunnel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    /// Suspect or down; new connections park.
    Away {
        since: i64,
    },
}

/// What happens to a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed; nothing else happened.
    Wake,
    LinkUp,
    LinkAway {
        since: i64,
    },
    ProbePassed,
    /// The probe could not reach the target. Line failures come as `LinkAway` and `ProbeLost`.
    ProbeFailed(Failure),
    /// The probe's line went away under it; nothing was learned of the target.
    ProbeLost,
    /// A connection was carried to the target.
    DialPassed,
    DialFailed(Failure),
    /// The agent's heartbeat arrived, and nothing dialled the target since the last one.
    AgentBeat,
    /// The caller's sign of life.
    Heartbeat,
    /// Connections were last open at this time.
    Activity {
        at: i64,
    },
    /// Move the expiry to `ttl_ms` from now, as far as the cap lets it.
    Extend {
        ttl_ms: i64,
    },
    Close(CloseReason),
}

/// What the owner of the machine must do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Write the row before anything that follows.
    Persist,
    ReleaseListener,
    KillConnections,
    StartProbe(Depth),
    Publish(Notice),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// As the target's scheme asks.
    Full,
    /// TCP connect only: keeps the target's log free of broken handshakes.
    Connect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    Pending,
    Active,
    Health,
    Extended,
    Closed,
}

impl State {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Active(_) => "active",
            Self::Disconnected(_) => "disconnected",
            Self::Timeout(_) => "timeout",
            Self::Expired(_) => "expired",
        }
    }

    pub fn ended(&self) -> Option<Ended> {
        match self {
            Self::Pending(_) | Self::Active(_) => None,
            Self::Disconnected(ended) | Self::Timeout(ended) | Self::Expired(ended) => Some(*ended),
        }
    }
}

/// One tunnel. Its listener is held from the start until `ReleaseListener`.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    rules: Rules,
    state: State,
    link: Link,
    health: Tracker,
    now: i64,
    created_at: i64,
    started_at: Option<i64>,
    expires_at: Option<i64>,
    last_heartbeat: Option<i64>,
    activity: i64,
}

impl Lifecycle {
    /// A requested tunnel, its port bound and its row written; what is left to do comes as effects.
    pub fn open(rules: Rules, now: i64, link: Link) -> (Self, Vec<Effect>) {
        let timed = !rules.standing;
        let mut this = Self {
            rules,
            state: State::Pending(Pending {
                until: timed.then_some(now + rules.pending_ms),
                probing: Probing::Waiting,
            }),
            link,
            health: Tracker::new(),
            now,
            created_at: now,
            started_at: None,
            expires_at: timed.then_some(now + rules.ttl_ms.min(rules.ttl_max_ms)),
            last_heartbeat: None,
            activity: now,
        };
        let mut effects = vec![Effect::Publish(Notice::Pending)];
        if matches!(link, Link::Up) {
            this.link_up(&mut effects);
        }
        (this, effects)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn health(&self) -> &Health {
        self.health.current()
    }

    pub fn created_at(&self) -> i64 {
        self.created_at
    }

    /// When it first became active.
    pub fn started_at(&self) -> Option<i64> {
        self.started_at
    }

    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    pub fn last_heartbeat(&self) -> Option<i64> {
        self.last_heartbeat
    }

    /// The latest expiry that extending may reach; `None` for a standing tunnel.
    pub fn expires_at_most(&self) -> Option<i64> {
        self.expires_at.map(|_| self.created_at + self.rules.ttl_max_ms)
    }

    /// Takes one event. A deadline that passed before it wins over it; afterwards no deadline lies in the past.
    pub fn step(&mut self, now: i64, event: Event) -> Vec<Effect> {
        let now = now.max(self.now);
        self.now = now;
        let mut effects = Vec::new();
        // Activity is news of the past: it must be known before idleness is judged.
        if let Event::Activity { at } = event {
            self.activity = self.activity.max(at.min(now));
        }
        self.pass_time(now, &mut effects);
        self.apply(now, event, &mut effects);
        self.pass_time(now, &mut effects);
        effects
    }

    /// When to call `step` with `Wake` if nothing happens before; `None` when final or waiting for events alone.
    pub fn next_wake(&self) -> Option<i64> {
        let own = match &self.state {
            State::Pending(pending) => {
                let again = match pending.probing {
                    Probing::Again { at, .. } => Some(at),
                    Probing::Waiting | Probing::Running { .. } => None,
                };
                earliest([pending.until, self.expires_at, again])
            }
            State::Active(active) => {
                let end = self.active_deadlines(active).into_iter().flatten().map(|(at, _)| at).min();
                earliest([end, self.standing_grace_end(), None])
            }
            State::Disconnected(_) | State::Timeout(_) | State::Expired(_) => return None,
        };
        earliest([own, self.health.notice_at(), None])
    }

    /// Every deadline that ends an active tunnel, with its reason. A standing tunnel has none.
    fn active_deadlines(&self, active: &Active) -> [Option<(i64, CloseReason)>; 4] {
        if self.rules.standing {
            return [None; 4];
        }
        let beat = self.last_heartbeat.unwrap_or(active.since).max(active.since);
        let away = match self.link {
            Link::Up => None,
            Link::Away { since } => Some((since + self.rules.grace_ms, CloseReason::AgentLost)),
        };
        let idle_from = self.activity.max(active.since);
        [
            self.expires_at.map(|at| (at, CloseReason::Expired)),
            self.rules.heartbeat_ms.map(|within| (beat + within, CloseReason::HeartbeatLost)),
            away,
            self.rules.idle_ms.map(|within| (idle_from + within, CloseReason::Idle)),
        ]
    }

    fn standing_grace_end(&self) -> Option<i64> {
        match self.link {
            Link::Away { since } if self.rules.standing => Some(since + self.rules.grace_ms),
            Link::Away { .. } | Link::Up => None,
        }
    }

    /// Acts on every deadline up to `now`.
    fn pass_time(&mut self, now: i64, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Pending(pending) => {
                let (until, probing) = (pending.until, pending.probing);
                if until.is_some_and(|at| at <= now) {
                    let reason = self.why_not_established();
                    self.end(now, reason, effects);
                } else if self.expires_at.is_some_and(|at| at <= now) {
                    self.end(now, CloseReason::Expired, effects);
                } else if let Probing::Again { at, attempt } = probing
                    && at <= now
                {
                    self.probe_pending(attempt, effects);
                }
            }
            State::Active(active) => {
                let due = self.active_deadlines(active).into_iter().flatten().filter(|(at, _)| *at <= now);
                if let Some((_, reason)) = due.min_by_key(|(at, _)| *at) {
                    self.end(now, reason, effects);
                } else if self.standing_grace_end().is_some_and(|at| at <= now) {
                    self.state = State::Pending(Pending { until: None, probing: Probing::Waiting });
                    effects.extend([Effect::Persist, Effect::Publish(Notice::Pending)]);
                }
            }
            State::Disconnected(_) | State::Timeout(_) | State::Expired(_) => return,
        }
        if self.state.ended().is_none() && self.health.take_notice(now) {
            effects.push(Effect::Publish(Notice::Health));
        }
    }

    fn apply(&mut self, now: i64, event: Event, effects: &mut Vec<Effect>) {
        if self.state.ended().is_some() {
            return;
        }
        match event {
            Event::Wake | Event::Activity { .. } => {}
            Event::LinkUp => {
                self.link = Link::Up;
                self.link_up(effects);
            }
            Event::LinkAway { since } => self.link_away(since.min(now)),
            Event::ProbePassed => self.probe_passed(now, effects),
            Event::ProbeFailed(failure) => self.probe_failed(now, failure, effects),
            Event::ProbeLost => self.probe_lost(now),
            Event::DialPassed => self.health.passed(now),
            Event::DialFailed(failure) => self.health.failed(now, failure),
            Event::AgentBeat => {
                if matches!((&self.state, self.link), (State::Active(_), Link::Up)) {
                    effects.push(Effect::StartProbe(Depth::Connect));
                }
            }
            Event::Heartbeat => self.last_heartbeat = Some(now),
            Event::Extend { ttl_ms } => self.extend(now, ttl_ms, effects),
            Event::Close(reason) => {
                if !self.rules.standing || reason.ends_standing() {
                    self.end(now, reason, effects);
                }
            }
        }
    }

    fn link_up(&mut self, effects: &mut Vec<Effect>) {
        if let State::Pending(Pending { probing: Probing::Waiting, .. }) = &self.state {
            self.probe_pending(0, effects);
        }
    }

    /// Counted from the first sign: a suspect line that then closes does not start the grace anew.
    fn link_away(&mut self, since: i64) {
        self.link = match self.link {
            Link::Up => Link::Away { since },
            Link::Away { since: first } => Link::Away { since: first.min(since) },
        };
        if let State::Pending(Pending { probing: probing @ Probing::Again { .. }, .. }) = &mut self.state {
            *probing = Probing::Waiting;
        }
    }

    fn probe_pending(&mut self, attempt: u32, effects: &mut Vec<Effect>) {
        if let State::Pending(pending) = &mut self.state {
            pending.probing = Probing::Running { attempt };
            effects.push(Effect::StartProbe(Depth::Full));
        }
    }

    fn probe_passed(&mut self, now: i64, effects: &mut Vec<Effect>) {
        self.health.passed(now);
        match &self.state {
            State::Pending(_) => {
                self.started_at.get_or_insert(now);
                self.state = State::Active(Active { since: now });
                self.health.mark_told(now);
                effects.extend([Effect::Persist, Effect::Publish(Notice::Active)]);
            }
            State::Active(_) | State::Disconnected(_) | State::Timeout(_) | State::Expired(_) => {}
        }
    }

    fn probe_failed(&mut self, now: i64, failure: Failure, effects: &mut Vec<Effect>) {
        let (word, permanent) = (failure.word, failure.permanent && !self.rules.standing);
        self.health.failed(now, failure);
        if let State::Pending(pending) = &mut self.state {
            if permanent {
                self.end(now, CloseReason::NotEstablished(word), effects);
            } else {
                pending.probing = again(pending.probing, now, self.rules.standing);
            }
        }
    }

    fn probe_lost(&mut self, now: i64) {
        if let State::Pending(pending) = &mut self.state {
            pending.probing = match self.link {
                Link::Up => again(pending.probing, now, self.rules.standing),
                Link::Away { .. } => Probing::Waiting,
            };
        }
    }

    fn extend(&mut self, now: i64, ttl_ms: i64, effects: &mut Vec<Effect>) {
        let (Some(expires_at), Some(most)) = (self.expires_at, self.expires_at_most()) else { return };
        let wanted = now.saturating_add(ttl_ms).min(most);
        if wanted > expires_at {
            self.expires_at = Some(wanted);
            effects.extend([Effect::Persist, Effect::Publish(Notice::Extended)]);
        }
    }

    fn why_not_established(&self) -> CloseReason {
        match (self.link, self.health.current().failure()) {
            (Link::Away { .. }, _) => CloseReason::AgentOffline,
            (Link::Up, Some(failure)) => CloseReason::NotEstablished(failure.word),
            (Link::Up, None) => CloseReason::NotEstablished("no_answer"),
        }
    }

    /// The only way into a final state.
    fn end(&mut self, now: i64, reason: CloseReason, effects: &mut Vec<Effect>) {
        let ended = Ended { at: now, reason };
        let timed_out = matches!(&self.state, State::Pending(Pending { until: Some(until), .. }) if *until <= now);
        self.state = if timed_out {
            State::Timeout(ended)
        } else if reason == CloseReason::Expired {
            State::Expired(ended)
        } else {
            State::Disconnected(ended)
        };
        effects.extend([
            Effect::Persist,
            Effect::ReleaseListener,
            Effect::KillConnections,
            Effect::Publish(Notice::Closed),
        ]);
    }
}

/// The pause after a failed probe.
fn again(probing: Probing, now: i64, standing: bool) -> Probing {
    let attempt = match probing {
        Probing::Waiting => 0,
        Probing::Running { attempt } => attempt,
        Probing::Again { .. } => return probing,
    };
    let most = if standing { PROBE_AGAIN_STANDING_MAX_MS } else { PROBE_AGAIN_MAX_MS };
    let pause = (PROBE_AGAIN_MS << attempt.min(16)).min(most);
    Probing::Again { at: now + pause, attempt: attempt.saturating_add(1) }
}

fn earliest(times: [Option<i64>; 3]) -> Option<i64> {
    times.into_iter().flatten().min()
}
