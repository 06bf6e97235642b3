//! The control stream of a line that is up: heartbeats, the master's time, drain, renewal, and the watch for silence. The
//! work streams run beside it.

use std::{sync::Arc, time::Duration};

use proto::{
    code::Code,
    control::{FromAgent, FromMaster, Heartbeat},
    limits::{HEARTBEATS_MISSED_MAX, SILENT_KEEP_ALIVES},
    net::{
        carrier::{Carrier, Dialed},
        heard::Heard,
        stream::{self, FrameStream},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Context,
    backoff::Failure,
    chain,
    greet::Up,
    line::{CLOSE_WITHIN, Ended, sent_away},
    mover::{Moved, Mover},
    renewing::Renewing,
    visit::{self, Leave, Stay},
};
use crate::logbook::{Entry, Kind};

/// Time for one message of ours to leave. The control stream is never full unless the master stopped reading.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Time for the master to acknowledge a goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_millis(300);
const LOOK_FOR_SILENCE: Duration = Duration::from_secs(1);
/// The master's time is stored this often; each time costs a write to the disk.
const STORE_TIME_EVERY: Duration = Duration::from_secs(3600);

/// How a line was left.
#[derive(Debug)]
pub(super) enum Left {
    Ended(Ended),
    /// For a new one. What runs on the old one is kept.
    Moved(Box<Moved>),
}

/// Serves a welcomed line until it ends, or until there is a better one.
pub(super) async fn serve(context: &Arc<Context>, up: Up, shutdown: &CancellationToken) -> Left {
    let mover = Mover::new(context, &up, shutdown);
    let Up { dialed, control, welcome } = up;
    let connection = dialed.connection.clone();
    let serving_streams = context.dispatch.clone().serve(connection.clone(), dialed.carrier);
    let streams = AbortOnDropHandle::new(tokio::spawn(serving_streams));
    let mut heartbeat = interval(Duration::from_millis(welcome.heartbeat_interval_ms.into()));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deaf_after = heartbeat.period() * (HEARTBEATS_MISSED_MAX + 1);
    let mut serving = Serving {
        context: context.clone(),
        control,
        heard: Heard::new(&connection),
        renewal: Renewing::new(context),
        drain: None,
        seq: 0,
        stored: Instant::now(),
        answered: Instant::now(),
        deaf_after,
        mover,
        surroundings: context.surroundings.subscribe(),
        dialed,
        connection,
        stay: context.visits.as_ref().map(|visits| Stay::new(visits.wanted.linger)),
    };
    let left = serving.run(heartbeat, shutdown).await;
    let Serving { dialed, control, .. } = serving;
    match &left {
        Left::Moved(_) => context.behind.keep(dialed, control, streams),
        Left::Ended(ended) => {
            stream::close(&dialed.connection, ended.code);
            sent_away(context, ended);
            if ended.code == Code::SILENT && dialed.carrier == Carrier::Udp {
                context.roads.udp_fell_silent();
            }
            // The close frame goes out before the socket does; nobody waits for it longer than this.
            dialed.finish(CLOSE_WITHIN).await;
        }
    }
    left
}

struct Serving {
    context: Arc<Context>,
    dialed: Dialed,
    connection: quinn::Connection,
    control: FrameStream,
    heard: Heard,
    renewal: Renewing,
    drain: Option<Draining>,
    seq: u64,
    stored: Instant,
    /// When the master last answered a heartbeat, and for how long it may not.
    answered: Instant,
    deaf_after: Duration,
    mover: Mover,
    surroundings: watch::Receiver<String>,
    /// Of an agent that leaves when nothing needs it.
    stay: Option<Stay>,
}

/// The master asked us to leave.
#[derive(Debug, Clone, Copy)]
struct Draining {
    code: Code,
    /// Past this the line is closed from here.
    until: Instant,
    retry_after: Duration,
}

impl Serving {
    async fn run(&mut self, mut heartbeat: Interval, shutdown: &CancellationToken) -> Left {
        if let Err(ended) = self.introduce().await {
            return Left::Ended(ended);
        }
        let mut look = interval(LOOK_FOR_SILENCE);
        loop {
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Left::Ended(self.goodbye().await),
                moved = self.mover.moved() => return Left::Moved(Box::new(moved)),
                message = self.control.recv.next::<FromMaster>() => match message {
                    Ok(message) => self.on_message(message),
                    Err(error) => Err(self.lost(error.code(), &error)),
                },
                Ok(()) = self.surroundings.changed() => self.move_over().await,
                _ = heartbeat.tick() => self.beat().await,
                _ = look.tick() => self.look().await,
                () = self.renewal.step() => Ok(()),
            };
            if let Err(ended) = step {
                return Left::Ended(self.after_drain(ended));
            }
        }
    }

    /// What the master is told once per line: the policy, and what went wrong before.
    async fn introduce(&mut self) -> Result<(), Ended> {
        let text = self.context.dispatch.policy.text();
        self.send(&FromAgent::Policy { text }).await?;
        let attempts = self.context.history().attempts();
        if !attempts.is_empty() {
            self.send(&FromAgent::History(attempts)).await?;
            self.context.history().clear();
        }
        if let Some(visits) = &self.context.visits {
            visits.introduced();
        }
        Ok(())
    }

    fn on_message(&mut self, message: FromMaster) -> Result<(), Ended> {
        match message {
            FromMaster::HeartbeatAck { master_time_ms, .. } => {
                self.answered = Instant::now();
                self.context.dispatch.freshness.learn(master_time_ms);
                self.store_time(master_time_ms);
            }
            FromMaster::Drain { code, grace_ms, retry_after_ms } => {
                tracing::info!(code = code.word(), grace_ms, retry_after_ms, "the master drains this line");
                let until = Instant::now() + Duration::from_millis(grace_ms.into()) + LOOK_FOR_SILENCE;
                let retry_after = Duration::from_millis(retry_after_ms.into());
                self.drain = Some(Draining { code, until, retry_after });
            }
            FromMaster::Work { pending } => {
                if let Some(stay) = &mut self.stay {
                    stay.told(pending);
                }
            }
            FromMaster::RotateKey => {
                tracing::info!("the master asks for a new key");
                self.renewal.rotate();
            }
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), Ended> {
        self.seq += 1;
        let stats = self.context.sampler.sample().await;
        let rtt_us = u32::try_from(self.connection.rtt().as_micros()).unwrap_or(u32::MAX);
        self.send(&FromAgent::Heartbeat(Heartbeat { seq: self.seq, stats, rtt_us })).await
    }

    /// The network under the line is another one: leaves by a new port, and is heard at once, so that the master does not
    /// go on sending to where this machine was.
    async fn move_over(&mut self) -> Result<(), Ended> {
        let what = self.surroundings.borrow_and_update().clone();
        self.context.roads.forget_network();
        self.mover.in_another_network();
        match self.dialed.rebind() {
            Ok(()) => tracing::info!(what, "the line moved over"),
            Err(error) => tracing::warn!(what, error = chain(&error), "the line has no new socket"),
        }
        let target = self.context.member.master.to_string();
        self.context.dispatch.logbook.note(Kind::Traffic, Entry::new("line.moved").target(target).detail(what));
        self.beat().await
    }

    /// Once a second: silence, a master that hears and does not answer, an overdue drain, a due renewal.
    async fn look(&mut self) -> Result<(), Ended> {
        let silent_after = self.context.roads.tuning().keep_alive * SILENT_KEEP_ALIVES;
        if self.heard.silent_for(&self.connection) >= silent_after {
            return Err(Ended::network(Code::SILENT, format!("nothing was heard for {silent_after:?}")));
        }
        if self.answered.elapsed() >= self.deaf_after {
            let message = "packets arrive, but the master answers no heartbeat";
            return Err(Ended::network(Code::HEARTBEAT_LOST, message));
        }
        if let Some(drain) = self.drain.filter(|drain| Instant::now() >= drain.until) {
            return Err(Ended::network(drain.code, "the drain is over"));
        }
        self.renewal.look(&self.context);
        if self.drain.is_none() {
            self.mover.look(&self.context, &self.connection);
        }
        self.think_of_leaving().await
    }

    async fn think_of_leaving(&mut self) -> Result<(), Ended> {
        let Some(stay) = &mut self.stay else { return Ok(()) };
        match stay.look(self.context.dispatch.running()) {
            Leave::Stay => Ok(()),
            Leave::Ask => self.send(&FromAgent::Goodbye { code: Code::VISIT_OVER }).await,
            Leave::Go => Err(visit::over()),
        }
    }

    async fn goodbye(&mut self) -> Ended {
        let leaving = self.context.leaving();
        self.context.behind.close(leaving.code);
        if leaving.code == Code::OWNER_LOCKDOWN {
            // An owner who stops everything waits for nobody: the close itself says why.
            return leaving;
        }
        // The line goes whether or not this is heard; closing it at once would overtake the message.
        if self.send(&FromAgent::Goodbye { code: leaving.code }).await.is_ok() {
            self.control.send.finish();
            let _ = tokio::time::timeout(GOODBYE_WITHIN, self.control.send.stopped()).await;
        }
        leaving
    }

    async fn send(&mut self, message: &FromAgent) -> Result<(), Ended> {
        match tokio::time::timeout(WRITE_WITHIN, self.control.send.write_frame(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(Code::LINE_LOST, &error)),
            Err(_) => Err(Ended::network(Code::TOO_SLOW, "the master does not read its control stream")),
        }
    }

    fn lost(&self, code: Code, error: &dyn std::error::Error) -> Ended {
        match self.connection.close_reason() {
            Some(reason) => Ended::closed(&reason),
            None => Ended::network(code, format!("the control stream failed: {}", chain(error))),
        }
    }

    /// A line that was being drained ends as announced, whatever its last packet said.
    fn after_drain(&self, ended: Ended) -> Ended {
        match self.drain {
            Some(drain) if !drain.retry_after.is_zero() => Ended {
                failure: Failure::Refused { code: drain.code, retry_after: drain.retry_after },
                code: drain.code,
                ..ended
            },
            _ => ended,
        }
    }

    fn store_time(&mut self, master_ms: i64) {
        if self.stored.elapsed() >= STORE_TIME_EVERY {
            self.stored = Instant::now();
            let member = self.context.member.clone();
            // Detached on purpose: one small write that ends by itself.
            drop(tokio::task::spawn_blocking(move || member.keep_time(master_ms)));
        }
    }
}
