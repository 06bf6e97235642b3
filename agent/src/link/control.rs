//! The control stream of a line that is up: heartbeats, the master's time, drain, renewal, and the watch for silence. The
//! work streams run beside it.

use std::{sync::Arc, time::Duration};

use proto::{
    code::Code,
    control::{FromAgent, FromMaster, Heartbeat},
    limits::{HEARTBEATS_MISSED_MAX, SILENT_KEEP_ALIVES},
    net::{
        carrier::Carrier,
        heard::Heard,
        stream::{self, FrameStream},
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Context,
    backoff::Failure,
    chain,
    enrol::{EnrolError, Purpose, enrol},
    greet::Up,
    line::{CLOSE_WITHIN, Ended, sent_away},
    mover::{Moved, Mover},
    renewal::Renewal,
};

/// Time for one message of ours to leave. The control stream is never full unless the master stopped reading.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Time for the master to acknowledge a goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_millis(300);
const LOOK_FOR_SILENCE: Duration = Duration::from_secs(1);
/// The master's time is stored this often; each time costs a write to the disk.
const STORE_TIME_EVERY: Duration = Duration::from_secs(3600);
/// A renewal that failed is tried again after this long: days are left when it is first due.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(600);

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
    let connection = &dialed.connection;
    let serving_streams = context.dispatch.clone().serve(connection.clone(), dialed.carrier);
    let streams = AbortOnDropHandle::new(tokio::spawn(serving_streams));
    let mut heartbeat = interval(Duration::from_millis(welcome.heartbeat_interval_ms.into()));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deaf_after = heartbeat.period() * (HEARTBEATS_MISSED_MAX + 1);
    let mut serving = Serving {
        context: context.clone(),
        connection: connection.clone(),
        control,
        heard: Heard::new(connection),
        renewal: Renewing::new(context),
        drain: None,
        seq: 0,
        stored: Instant::now(),
        answered: Instant::now(),
        deaf_after,
        mover,
    };
    let left = serving.run(heartbeat, shutdown).await;
    match &left {
        Left::Moved(_) => context.behind.keep(dialed, serving.control, streams),
        Left::Ended(ended) => {
            stream::close(connection, ended.code);
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
                _ = heartbeat.tick() => self.beat().await,
                _ = look.tick() => self.look(),
                Some(renewed) = self.renewal.running.join_next(), if !self.renewal.running.is_empty() => {
                    self.renewal.ended(renewed);
                    Ok(())
                }
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

    /// Once a second: silence, a master that hears and does not answer, an overdue drain, a due renewal.
    fn look(&mut self) -> Result<(), Ended> {
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
        Ok(())
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

/// Renews beside the line; the new certificate serves from the next line on.
#[derive(Debug)]
struct Renewing {
    renewal: Option<Renewal>,
    not_before: Instant,
    /// The master asked for a new key.
    rotate: bool,
    running: JoinSet<Result<(), EnrolError>>,
    context: Arc<Context>,
}

impl Renewing {
    fn new(context: &Arc<Context>) -> Self {
        let context = context.clone();
        let (renewal, not_before) = (next_renewal(&context), Instant::now());
        Self { renewal, not_before, rotate: false, running: JoinSet::new(), context }
    }

    /// At once, or after what is under way. One that fails is the master's to ask for again: the old key is still good.
    fn rotate(&mut self) {
        self.rotate = true;
        self.look(&self.context.clone());
    }

    fn look(&mut self, context: &Arc<Context>) {
        if !self.running.is_empty() {
            return;
        }
        if std::mem::take(&mut self.rotate) {
            let context = context.clone();
            self.running.spawn(async move { rotate(&context).await });
            return;
        }
        let Some(master_ms) = context.dispatch.freshness.master_ms() else { return };
        let due = self.renewal.is_some_and(|renewal| renewal.is_due(master_ms));
        if due && Instant::now() >= self.not_before {
            let context = context.clone();
            self.running.spawn(async move { enrol(&context.member, &context.roads, Purpose::Renew).await });
        }
    }

    fn ended(&mut self, result: Result<Result<(), EnrolError>, tokio::task::JoinError>) {
        self.not_before = Instant::now() + RENEW_AGAIN_AFTER;
        match result {
            Ok(Ok(())) => {
                self.renewal = next_renewal(&self.context);
                tracing::info!("the certificate was renewed");
            }
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the certificate was not renewed"),
            Err(error) => tracing::error!(%error, "the renewal failed"),
        }
    }
}

/// A new key, and its first use, from which on the old one is worth nothing. Where only the use fails, the next line's
/// makes up for it.
async fn rotate(context: &Context) -> Result<(), EnrolError> {
    enrol(&context.member, &context.roads, Purpose::Rotate).await?;
    enrol(&context.member, &context.roads, Purpose::Renew).await
}

fn next_renewal(context: &Context) -> Option<Renewal> {
    let enrolment = context.member.enrolment()?;
    Some(Renewal::of(enrolment.not_before_ms, enrolment.not_after_ms, rand::random()))
}
