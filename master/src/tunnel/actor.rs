//! The owner of one tunnel: feeds its lifecycle, carries out what that says, and holds its listener and its probe. One
//! function performs and logs every transition. A row is written before anybody is told what it says.

use std::{sync::Arc, time::Duration};

use proto::{code::Code, failpoint};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    clock::Clock,
    lifecycle::{Depth, Effect, Event, Lifecycle, Link, Notice, State},
    listener::Listener,
    path::{Dial, Path},
    probe::{self, Outcome},
    reason::CloseReason,
    row::{self, Row},
    service::By,
};
use crate::{
    events::{Draft, Events},
    fleet::{Demand, LinkState},
    metrics::{GaugeGuard, Metrics},
    store::{Store, StoreError, audit::AuditEntry, tunnels::Scheme},
};

/// Pause before a row that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_millis(500);

/// What others ask of a tunnel. A reply that nobody waits for is dropped.
#[derive(Debug)]
pub(super) enum Request {
    Close { reason: CloseReason, by: By, reply: oneshot::Sender<Result<(), Arc<StoreError>>> },
    Heartbeat { reply: oneshot::Sender<bool> },
    Extend { ttl_ms: i64, reply: oneshot::Sender<Extended> },
    Report { pid: Option<i64>, port: Option<i64>, reply: oneshot::Sender<Result<(), Arc<StoreError>>> },
}

/// What came of extending.
#[derive(Debug)]
pub(super) enum Extended {
    Done,
    /// It lives as long as it may already, or longer than was asked for.
    Unchanged {
        most_ms: i64,
    },
    Standing,
    Ended,
    NotSaved(Arc<StoreError>),
}

/// One tunnel and all it needs. Runs until the tunnel is final and its row says so, or the master stops.
pub(super) struct Actor {
    pub(super) lifecycle: Lifecycle,
    pub(super) row: Row,
    pub(super) path: Arc<Path>,
    pub(super) clock: Clock,
    /// `Some` while the tunnel is open.
    pub(super) listener: Option<Listener>,
    pub(super) store: Store,
    pub(super) events: Events,
    pub(super) metrics: Arc<Metrics>,
    /// What others see: never ahead of the row.
    pub(super) view: watch::Sender<Row>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) dials: mpsc::Receiver<Dial>,
    /// Marked as seen in the state that the lifecycle was opened with.
    pub(super) link: watch::Receiver<LinkState>,
    pub(super) stop: CancellationToken,
    pub(super) probing: Option<Probing>,
    /// Counts it in its state; `None` once final.
    pub(super) gauge: Option<GaugeGuard>,
    pub(super) unsaved: Unsaved,
    /// An agent that visits comes for the tunnel, and stays as long as it is open.
    pub(super) _demand: Demand,
}

/// A probe that is under way. Dropping it resets its stream.
pub(super) struct Probing(AbortOnDropHandle<Outcome>);

/// What waits for the row to be written.
#[derive(Default)]
pub(super) struct Unsaved {
    dirty: bool,
    again: Option<Instant>,
    notices: Vec<Notice>,
    audit: Option<AuditEntry>,
}

enum Happened {
    Event(Event),
    Request(Request),
    Probed(Outcome),
    Save,
    Stop,
}

impl Actor {
    /// `effects` are what opening the lifecycle left to do.
    pub(super) async fn run(mut self, effects: Vec<Effect>) {
        let mut beats = self.path.fleet.heartbeats(&self.path.agent);
        beats.mark_unchanged();
        drop(self.carry_out(effects, None).await);
        while !self.is_over() {
            let happened = self.next(&mut beats).await;
            match happened {
                Happened::Event(event) => drop(self.step(event, None).await),
                Happened::Request(request) => self.answer(request).await,
                Happened::Probed(outcome) => self.probed(outcome).await,
                Happened::Save => drop(self.save().await),
                Happened::Stop => return self.stop().await,
            }
        }
    }

    /// Final, and the row says so.
    fn is_over(&self) -> bool {
        self.lifecycle.state().ended().is_some() && !self.unsaved.dirty
    }

    async fn next(&mut self, beats: &mut watch::Receiver<u64>) -> Happened {
        let wake = self.lifecycle.next_wake().map(|ms| self.clock.instant(ms));
        let again = self.unsaved.again;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Happened::Stop,
            () = until(wake) => self.woken(),
            () = until(again) => Happened::Save,
            Ok(()) = self.link.changed() => Happened::Event(self.link_event()),
            Some(request) = self.requests.recv() => Happened::Request(request),
            outcome = probed(&mut self.probing) => Happened::Probed(outcome),
            Ok(()) = beats.changed() => Happened::Event(self.beat()),
            Some(dial) = self.dials.recv() => Happened::Event(match dial {
                Dial::Passed => Event::DialPassed,
                Dial::Failed(failure) => Event::DialFailed(failure),
            }),
        }
    }

    /// Whether it was idle is known by the counters; they are told first.
    fn woken(&self) -> Happened {
        Happened::Event(match self.path.traffic.last_ms() {
            Some(at) => Event::Activity { at },
            None => Event::Wake,
        })
    }

    fn link_event(&mut self) -> Event {
        let state = self.link.borrow_and_update().clone();
        match state {
            LinkState::Up { .. } => Event::LinkUp,
            LinkState::Suspect { since, .. } => Event::LinkAway { since: self.clock.ms(since) },
            LinkState::Down { code: Code::SUSPENDED, .. } => Event::Close(CloseReason::Suspended),
            LinkState::Down { code: Code::REMOVED, .. } => Event::Close(CloseReason::Removed),
            // A standing one waits for the day on which the owner lifts it.
            LinkState::Down { code: Code::OWNER_LOCKDOWN, .. } if !self.row.stored().standing => {
                Event::Close(CloseReason::LockedDown)
            }
            LinkState::Down { since, .. } => Event::LinkAway { since: self.clock.ms(since) },
        }
    }

    /// Real connections say more than a probe: it is left out where there were some.
    fn beat(&self) -> Event {
        if self.path.traffic.take_dialled() || self.probing.is_some() { Event::Wake } else { Event::AgentBeat }
    }

    async fn probed(&mut self, outcome: Outcome) {
        let event = match outcome {
            Outcome::Passed(report) => {
                self.row.set_probe(&report);
                Event::ProbePassed
            }
            Outcome::Failed(report, failure) => {
                self.row.set_probe(&report);
                Event::ProbeFailed(failure)
            }
            Outcome::Lost => Event::ProbeLost,
        };
        drop(self.step(event, None).await);
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Close { reason, by, reply } => {
                let _ = reply.send(self.step(Event::Close(reason), Some(by)).await);
            }
            Request::Heartbeat { reply } => {
                drop(self.step(Event::Heartbeat, None).await);
                let _ = reply.send(self.lifecycle.state().ended().is_none());
            }
            Request::Extend { ttl_ms, reply } => {
                let _ = reply.send(self.extend(ttl_ms).await);
            }
            Request::Report { pid, port, reply } => {
                self.row.report(pid, port);
                self.unsaved.dirty = true;
                let _ = reply.send(self.save().await);
            }
        }
    }

    async fn extend(&mut self, ttl_ms: i64) -> Extended {
        let before = self.lifecycle.expires_at();
        let saved = self.step(Event::Extend { ttl_ms }, None).await;
        match (saved, self.lifecycle.expires_at_most()) {
            _ if self.lifecycle.state().ended().is_some() => Extended::Ended,
            (_, None) => Extended::Standing,
            (_, Some(most_ms)) if self.lifecycle.expires_at() == before => Extended::Unchanged { most_ms },
            (Ok(()), Some(_)) => Extended::Done,
            (Err(error), Some(_)) => Extended::NotSaved(error),
        }
    }

    /// The only place where the tunnel's state changes.
    async fn step(&mut self, event: Event, by: Option<By>) -> Result<(), Arc<StoreError>> {
        let before = self.lifecycle.state().word();
        let cause = format!("{event:?}");
        let effects = self.lifecycle.step(self.clock.now_ms(), event);
        let known_good = self.lifecycle.health().is_ok();
        self.path.traffic.known_good.store(known_good, std::sync::atomic::Ordering::Relaxed);
        let state = self.lifecycle.state();
        if state.word() != before {
            let reason = state.ended().map(|ended| ended.reason.word());
            let (id, agent) = (self.row.id(), &self.path.agent);
            tracing::info!(tunnel = %id, %agent, from = before, to = state.word(), reason, %cause, "tunnel");
            self.count();
        }
        self.carry_out(effects, by).await
    }

    fn count(&mut self) {
        let state = self.lifecycle.state();
        self.gauge = state.ended().is_none().then(|| self.metrics.tunnel(state.word()));
        let reason = state.ended().map_or("", |ended| ended.reason.word());
        self.metrics.tunnel_transition(state.word(), reason);
        if let State::Active(active) = state
            && self.lifecycle.started_at() == Some(active.since)
        {
            self.metrics.tunnel_ready(self.clock.elapsed().as_secs_f64());
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>, by: Option<By>) -> Result<(), Arc<StoreError>> {
        let mut closing = None;
        for effect in effects {
            match effect {
                Effect::Persist => self.unsaved.dirty = true,
                Effect::ReleaseListener | Effect::KillConnections => closing = closing.or(self.listener.take()),
                Effect::StartProbe(depth) => self.start_probe(depth),
                Effect::Publish(notice) => self.unsaved.notices.push(notice),
            }
        }
        if self.lifecycle.state().ended().is_some() {
            self.probing = None;
            self.unsaved.audit.get_or_insert_with(|| row::closed(&self.row, &self.lifecycle, by));
        }
        // Closing waits for no database: with the one away, connections still end at once.
        let close = async {
            if let Some(listener) = closing {
                failpoint::here("tunnel.before_close");
                listener.close().await;
                failpoint::here("tunnel.closed");
            }
        };
        let ((), saved) = tokio::join!(close, self.save());
        saved
    }

    /// Writes the row if it changed, then tells what waited for it. A row that cannot be written is tried again later.
    async fn save(&mut self) -> Result<(), Arc<StoreError>> {
        self.row.refresh(&self.lifecycle, &self.path);
        if self.unsaved.dirty {
            if self.unsaved.again.is_some_and(|at| at > Instant::now()) {
                return Err(Arc::new(StoreError::Busy));
            }
            if let Err(error) = self.store.tunnels().update(self.row.stored(), self.unsaved.audit.as_ref()).await {
                tracing::warn!(tunnel = %self.row.id(), error = %error, "a tunnel's row could not be written; trying again");
                self.unsaved.again = Some(Instant::now() + SAVE_AGAIN);
                return Err(Arc::new(error));
            }
            self.unsaved.dirty = false;
        }
        self.unsaved.again = None;
        self.view.send_replace(self.row.clone());
        for notice in std::mem::take(&mut self.unsaved.notices) {
            self.tell(notice);
        }
        Ok(())
    }

    fn tell(&self, notice: Notice) {
        let stored = self.row.stored();
        let draft = Draft::new(match notice {
            Notice::Pending => "tunnel.pending",
            Notice::Active => "tunnel.active",
            Notice::Health => "tunnel.health",
            Notice::Extended => "tunnel.extended",
            Notice::Closed => "tunnel.closed",
        });
        let draft = draft.agent(&stored.agent_id).tunnel(stored.id).detail(json!({
            "status": stored.status,
            "health": stored.health,
            "listen": stored.listen,
            "target": format!("{}", self.path.target),
        }));
        let reason = stored.closed_reason.as_deref().or(stored.health_reason.as_deref());
        self.events.publish(match reason {
            Some(word) => draft.reason(word),
            None => draft,
        });
    }

    fn start_probe(&mut self, depth: Depth) {
        let (path, scheme, at_ms) = (self.path.clone(), self.row.stored().target.scheme, self.clock.now_ms());
        let task = tokio::spawn(probe_once(path, scheme, depth, at_ms));
        self.probing = Some(Probing(AbortOnDropHandle::new(task)));
    }

    /// The master stops: what stands is pending until it is back, all else is over.
    async fn stop(mut self) {
        drop(self.step(Event::Close(CloseReason::MasterStopped), None).await);
        if let Some(listener) = self.listener.take() {
            listener.close().await;
        }
        if self.lifecycle.state().ended().is_none() {
            self.row.rest();
            self.unsaved.dirty = true;
            if let Err(error) = self.store.tunnels().update(self.row.stored(), None).await {
                tracing::warn!(tunnel = %self.row.id(), error = %error, "a standing tunnel's row could not be written");
            }
        }
    }
}

async fn probe_once(path: Arc<Path>, scheme: Scheme, depth: Depth, at_ms: i64) -> Outcome {
    match path.fleet.line(&path.agent) {
        Some(line) => probe::probe(&line, &path.target, scheme, depth, at_ms).await,
        None => Outcome::Lost,
    }
}

/// The outcome of the probe under way; never without one.
async fn probed(probing: &mut Option<Probing>) -> Outcome {
    let Some(Probing(task)) = probing else { return std::future::pending().await };
    let outcome = task.await.unwrap_or(Outcome::Lost);
    *probing = None;
    outcome
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The agent's link as a lifecycle starts with it.
pub(super) fn link_at_start(state: &LinkState, clock: Clock) -> Link {
    match state {
        LinkState::Up { .. } => Link::Up,
        LinkState::Suspect { since, .. } | LinkState::Down { since, .. } => Link::Away { since: clock.ms(*since) },
    }
}
