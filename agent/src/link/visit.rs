//! On-demand: an agent that holds no standing line looks in now and then, leaves at once when nothing waits for it, and
//! stays for work and a while longer. Owns when to come and when to go; what the work is stays with the line.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use proto::{
    code::Code,
    control::{FromAgent, FromMaster},
    net::stream,
};
use tokio::time::{Instant, timeout};

use super::{
    Context, chain,
    enrol::{Purpose, enrol},
    greet::Up,
    line::{CLOSE_WITHIN, Ended},
    renewal::Renewal,
};
use crate::config::mode::OnDemand;

/// Time for the master to say whether there is work. One that does not know of visits says nothing.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Time for the master to take note of what the agent tells on its first visit.
const NOTED_WITHIN: Duration = Duration::from_secs(2);
/// Time for the master to let an agent go, or to keep it.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
/// Share by which the interval varies either way: a fleet that was started at once does not come at once.
const JITTER: f64 = 0.1;
/// A renewal that failed is tried again after this long: days are left when it is first due.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The owner's wish, and what an agent remembers from visit to visit.
#[derive(Debug)]
pub struct Visits {
    pub wanted: OnDemand,
    /// The master knows the policy of this process.
    introduced: AtomicBool,
    renewal_tried: std::sync::Mutex<Option<Instant>>,
}

impl Visits {
    pub fn new(wanted: OnDemand) -> Self {
        Self { wanted, introduced: AtomicBool::new(false), renewal_tried: std::sync::Mutex::default() }
    }

    /// Until the next visit. `random` is uniform in [0, 1).
    pub(super) fn next(&self, random: f64) -> Duration {
        self.wanted.every.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
    }

    pub(super) fn introduced(&self) {
        self.introduced.store(true, Ordering::Relaxed);
    }

    /// Whether a renewal may be tried now; counts as a try.
    fn may_renew(&self) -> bool {
        let mut tried = self.renewal_tried.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let may = tried.is_none_or(|at| at.elapsed() >= RENEW_AGAIN_AFTER);
        if may {
            *tried = Some(Instant::now());
        }
        may
    }
}

/// Whether there is work on a line that was just welcomed. A master that does not say so keeps its agent.
pub(super) async fn is_needed(up: &mut Up) -> bool {
    !matches!(timeout(TOLD_WITHIN, up.control.recv.next()).await, Ok(Ok(FromMaster::Work { pending: false })))
}

/// Ends a visit on which nothing was to be done.
pub(super) async fn leave(context: &Context, visits: &Visits, mut up: Up) -> Ended {
    context.dispatch.freshness.learn(up.welcome.master_time_ms);
    tell(context, visits, &mut up).await;
    stream::close(&up.dialed.connection, Code::VISIT_OVER);
    up.dialed.finish(CLOSE_WITHIN).await;
    renew(context, visits, up.welcome.master_time_ms).await;
    over()
}

/// What the master does not know yet. A visit that fails here is made up for by the next.
async fn tell(context: &Context, visits: &Visits, up: &mut Up) {
    let attempts = context.history().attempts();
    if visits.introduced.load(Ordering::Relaxed) && attempts.is_empty() {
        return;
    }
    let text = context.dispatch.policy.text();
    let telling = async {
        up.control.send.write_frame(&FromAgent::Policy { text }).await?;
        if !attempts.is_empty() {
            up.control.send.write_frame(&FromAgent::History(attempts)).await?;
        }
        up.control.send.finish();
        up.control.send.stopped().await;
        Ok::<_, std::io::Error>(())
    };
    if matches!(timeout(NOTED_WITHIN, telling).await, Ok(Ok(()))) {
        context.history().clear();
        visits.introduced();
    }
}

/// A certificate that is only used for a moment at a time ages all the same.
async fn renew(context: &Context, visits: &Visits, master_ms: i64) {
    let Some(enrolment) = context.member.enrolment() else { return };
    // The middle of the spread: visits are spread already.
    let renewal = Renewal::of(enrolment.not_before_ms, enrolment.not_after_ms, 0.5);
    if !renewal.is_due(master_ms) || !visits.may_renew() {
        return;
    }
    match enrol(&context.member, &context.roads, Purpose::Renew).await {
        Ok(()) => tracing::info!("the certificate was renewed"),
        Err(error) => tracing::warn!(error = chain(&error), "the certificate was not renewed"),
    }
}

/// How a visit ends that went well.
pub(super) fn over() -> Ended {
    Ended::network(Code::VISIT_OVER, "nothing needs the agent; it looks in again soon")
}

/// Whether an agent that visits may leave a line that had work.
#[derive(Debug)]
pub(super) struct Stay {
    linger: Duration,
    pending: bool,
    /// When something last needed the agent.
    needed: Instant,
    asked: Option<Instant>,
}

/// What is to be done about leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Stay,
    /// Ask the master to let the agent go.
    Ask,
    /// It neither did so nor kept the agent.
    Go,
}

impl Stay {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, pending: true, needed: Instant::now(), asked: None }
    }

    /// What the master says.
    pub(super) fn told(&mut self, pending: bool) {
        // Whatever it was needed for until now ended at this moment, or begins.
        self.needed = Instant::now();
        self.pending = pending;
        self.asked = None;
    }

    /// Looks, with the number of streams that run.
    pub(super) fn look(&mut self, streams: usize) -> Leave {
        if self.pending || streams > 0 {
            self.needed = Instant::now();
        }
        match self.asked {
            Some(asked) if asked.elapsed() >= LET_GO_WITHIN => Leave::Go,
            Some(_) => Leave::Stay,
            None if self.needed.elapsed() >= self.linger && !self.pending && streams == 0 => {
                self.asked = Some(Instant::now());
                Leave::Ask
            }
            None => Leave::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(60);

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_stays_for_work_and_lingers_behind_the_last_of_it() {
        let mut stay = Stay::new(LINGER);
        pass(600).await;
        assert_eq!(stay.look(0), Leave::Stay, "the master needs it");
        stay.told(false);
        pass(59).await;
        assert_eq!(stay.look(1), Leave::Stay, "a stream runs");
        pass(59).await;
        assert_eq!(stay.look(0), Leave::Stay);
        pass(1).await;
        assert_eq!(stay.look(0), Leave::Ask);
    }

    #[tokio::test(start_paused = true)]
    async fn the_master_keeps_it_lets_it_go_or_says_nothing() {
        let mut stay = Stay::new(Duration::ZERO);
        stay.told(false);
        assert_eq!(stay.look(0), Leave::Ask);
        stay.told(true);
        pass(10).await;
        assert_eq!(stay.look(0), Leave::Stay, "it was kept");
        stay.told(false);
        assert_eq!(stay.look(0), Leave::Ask);
        pass(1).await;
        assert_eq!(stay.look(0), Leave::Stay);
        pass(1).await;
        assert_eq!(stay.look(0), Leave::Go);
    }

    #[test]
    fn visits_are_spread() {
        let visits = Visits::new(OnDemand { every: Duration::from_secs(15), linger: LINGER });
        assert_eq!(visits.next(0.0), Duration::from_millis(13_500));
        assert_eq!(visits.next(0.5), Duration::from_secs(15));
        assert!(visits.next(0.999_999) < Duration::from_millis(16_500));
    }
}
