//! The invariants of the machine, and a way to drive it from bytes: property tests and the fuzz target share them.
//! Nothing in the service calls this.

use super::{CloseReason, Depth, Effect, Event, Failure, Lifecycle, Link, Notice, Rules, State};

/// Bytes that make one step.
const STEP: usize = 3;

/// Drives one tunnel by `bytes` and checks every invariant after each step. Never panics; the first broken invariant is
/// the error.
pub fn run(bytes: &[u8]) -> Result<Checker, String> {
    let [head, steps @ ..] = bytes else { return Ok(Checker::new(rules(0), 0, Link::Up)) };
    let link = if head & 0x80 == 0 { Link::Up } else { Link::Away { since: 0 } };
    let mut checker = Checker::new(rules(*head), 0, link);
    for step in steps.as_chunks::<STEP>().0 {
        let (elapsed, event) = decode(*step, checker.now);
        checker.step(checker.now + elapsed, event)?;
    }
    Ok(checker)
}

fn rules(head: u8) -> Rules {
    Rules {
        standing: head & 1 != 0,
        pending_ms: 30_000,
        grace_ms: 30_000,
        heartbeat_ms: (head & 2 != 0).then_some(150_000),
        idle_ms: (head & 4 != 0).then_some(60_000),
        ttl_ms: if head & 8 != 0 { 5_000 } else { 1_800_000 },
        ttl_max_ms: 7_200_000,
    }
}

/// One step: how much time passes, and what happens then.
fn decode([scale, kind, detail]: [u8; STEP], now: i64) -> (i64, Event) {
    let detail_ms = i64::from(detail);
    let elapsed = match scale % 4 {
        0 => 0,
        1 => detail_ms,
        2 => detail_ms * 100,
        _ => detail_ms * 2_000,
    };
    let at = now + elapsed - detail_ms * 50;
    let event = match kind % 14 {
        0 => Event::LinkUp,
        1 => Event::LinkAway { since: at },
        2 => Event::ProbePassed,
        3 => Event::ProbeFailed(failure(detail)),
        4 => Event::ProbeLost,
        5 => Event::DialPassed,
        6 => Event::DialFailed(failure(detail)),
        7 => Event::Heartbeat,
        8 => Event::Activity { at },
        9 => Event::Extend { ttl_ms: detail_ms * 60_000 },
        // Rare, or no run would live long enough to be interesting.
        10 if detail < 16 => Event::Close(reason(detail)),
        11 => Event::AgentBeat,
        _ => Event::Wake,
    };
    (elapsed, event)
}

fn failure(detail: u8) -> Failure {
    let word = if detail & 1 == 0 { "target_refused" } else { "target_timeout" };
    Failure { word, message: String::new(), permanent: detail > 250 }
}

fn reason(detail: u8) -> CloseReason {
    match detail % 6 {
        0 => CloseReason::ClosedByUser,
        1 => CloseReason::WindowClosed,
        2 => CloseReason::Suspended,
        3 => CloseReason::Removed,
        4 => CloseReason::LockedDown,
        _ => CloseReason::MasterStopped,
    }
}

/// A machine and what an observer of its effects believes.
#[derive(Debug)]
pub struct Checker {
    pub lifecycle: Lifecycle,
    pub now: i64,
    rules: Rules,
    listener_held: bool,
    /// What the row says.
    persisted: &'static str,
    /// What was told last: a state's word.
    told: &'static str,
}

impl Checker {
    pub fn new(rules: Rules, now: i64, link: Link) -> Self {
        let (lifecycle, _) = Lifecycle::open(rules, now, link);
        Self { lifecycle, now, rules, listener_held: true, persisted: "pending", told: "pending" }
    }

    /// Steps the machine and checks what must always hold.
    pub fn step(&mut self, now: i64, event: Event) -> Result<Vec<Effect>, String> {
        let before = self.lifecycle.clone();
        let effects = self.lifecycle.step(now, event.clone());
        self.now = self.now.max(now);
        self.observe(&effects)?;
        self.check_state(&before, &effects)?;
        self.check_deadlines(&before)?;
        Ok(effects)
    }

    /// Follows the effects as an owner would. Effects of one step may pass through two states; the row written is the
    /// last one's.
    fn observe(&mut self, effects: &[Effect]) -> Result<(), String> {
        let word = self.lifecycle.state().word();
        for effect in effects {
            match effect {
                Effect::Persist => self.persisted = word,
                Effect::ReleaseListener => {
                    ensure(self.listener_held, "a listener is released once")?;
                    self.listener_held = false;
                }
                Effect::KillConnections => ensure(!self.listener_held, "no connection may follow the last one killed")?,
                Effect::StartProbe(Depth::Full | Depth::Connect) => {
                    ensure(self.listener_held, "nothing is probed for a tunnel that ended")?;
                }
                Effect::Publish(Notice::Pending | Notice::Active | Notice::Closed) => {
                    ensure(self.persisted == word, "a state is told before its row says so")?;
                    self.told = word;
                }
                Effect::Publish(Notice::Health | Notice::Extended) => {}
            }
        }
        Ok(())
    }

    fn check_state(&self, before: &Lifecycle, effects: &[Effect]) -> Result<(), String> {
        let state = self.lifecycle.state();
        if before.state().ended().is_some() {
            ensure(before.state() == state && effects.is_empty(), "final states are final")?;
        }
        let open = state.ended().is_none();
        ensure(self.listener_held == open, "the listener is held exactly while pending or active")?;
        ensure(self.persisted == state.word() && self.told == state.word(), "row and events follow the state")?;
        if let Some(ended) = state.ended() {
            ensure(!ended.reason.word().is_empty(), "every final state says why")?;
            ensure(!self.rules.standing || ended.reason.ends_standing(), "a standing tunnel ends by removal only")?;
        }
        match state {
            State::Timeout(_) => ensure(!self.rules.standing, "a standing tunnel does not time out"),
            State::Expired(ended) => ensure(ended.reason == CloseReason::Expired, "expired says expired"),
            State::Active(_) => ensure(self.lifecycle.started_at().is_some(), "active since when"),
            State::Pending(_) | State::Disconnected(_) => Ok(()),
        }
    }

    fn check_deadlines(&self, before: &Lifecycle) -> Result<(), String> {
        let (old, new) = (before.expires_at(), self.lifecycle.expires_at());
        ensure(old <= new, "an expiry only moves away")?;
        let most = self.lifecycle.created_at() + self.rules.ttl_max_ms;
        ensure(new.is_none_or(|at| at <= most), "the cap holds")?;
        ensure(new.is_none() == self.rules.standing, "only standing tunnels never expire")?;
        ensure(self.lifecycle.next_wake().is_none_or(|at| at > self.now), "no deadline is left in the past")?;
        if self.lifecycle.state().ended().is_none() {
            let lives = new.is_none_or(|at| at > self.now);
            ensure(lives, "nothing outlives its expiry")?;
            ensure(self.rules.standing || self.lifecycle.next_wake().is_some(), "a timed tunnel always has an end")?;
        } else {
            ensure(self.lifecycle.next_wake().is_none(), "what ended needs no waking")?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}
