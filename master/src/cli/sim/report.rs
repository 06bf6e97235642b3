//! What a simulation counted, and how it reads.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::code::Code;
use serde::Serialize;
use tokio::sync::watch;

/// Kinds of errors kept apart; the rest is counted as one.
const KINDS_MAX: usize = 20;

#[derive(Default)]
pub(super) struct Counters {
    inner: Mutex<Inner>,
    online: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    enrolments: Vec<Duration>,
    handshakes: Vec<Duration>,
    returns: Vec<Duration>,
    return_attempts: u64,
    first: u64,
    beats: u64,
    acknowledged: u64,
    losses: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

/// The summary.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) agents: u32,
    /// Most agents that were online at the same time.
    pub(super) connected_once: u64,
    pub(super) seconds: f64,
    pub(super) enrolments: Times,
    pub(super) handshakes: Times,
    /// From the loss of a line, as its agent noticed it, to the next Welcome.
    pub(super) returns: Times,
    /// Tries of one return, the good one included; 0 without a return.
    pub(super) attempts_per_return: f64,
    /// Agents that had a line and have none.
    pub(super) still_away: u64,
    pub(super) heartbeats_sent: u64,
    pub(super) heartbeats_acknowledged: u64,
    /// Lines that ended before the run did, by code.
    pub(super) lines_lost: BTreeMap<String, u64>,
    pub(super) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Times {
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Counters {
    pub(super) fn enrolled(&self, took: Duration) {
        self.lock().enrolments.push(took);
    }

    /// A handshake, up to Welcome.
    pub(super) fn connected(&self, took: Duration) {
        self.lock().handshakes.push(took);
    }

    /// A lost line was replaced.
    pub(super) fn returned(&self, took: Duration, attempts: u32) {
        let mut inner = self.lock();
        inner.returns.push(took);
        inner.return_attempts += u64::from(attempts);
    }

    pub(super) fn up(&self) {
        self.online.send_modify(|online| *online += 1);
        let online = *self.online.borrow();
        let mut inner = self.lock();
        inner.first = inner.first.max(online);
    }

    pub(super) fn down(&self, code: Code) {
        self.online.send_modify(|online| *online = online.saturating_sub(1));
        if code != Code::DONE {
            count(&mut self.lock().losses, code.to_string());
        }
    }

    pub(super) fn failed(&self, error: &anyhow::Error) {
        count(&mut self.lock().errors, format!("{error:#}"));
    }

    pub(super) fn beat(&self) {
        self.lock().beats += 1;
    }

    pub(super) fn acknowledged(&self) {
        self.lock().acknowledged += 1;
    }

    /// Resolves when `wanted` agents are online.
    pub(super) async fn wait_connected(&self, wanted: u64) {
        // The sender lives as long as self does.
        let _ = self.online.subscribe().wait_for(|online| *online >= wanted).await;
    }

    pub(super) fn report(&self, agents: u32, elapsed: Duration) -> Report {
        let inner = self.lock();
        Report {
            agents,
            connected_once: inner.first,
            seconds: elapsed.as_secs_f64(),
            enrolments: Times::of(&inner.enrolments),
            handshakes: Times::of(&inner.handshakes),
            returns: Times::of(&inner.returns),
            attempts_per_return: inner.return_attempts as f64 / inner.returns.len().max(1) as f64,
            still_away: inner.losses.values().sum::<u64>().saturating_sub(inner.returns.len() as u64),
            heartbeats_sent: inner.beats,
            heartbeats_acknowledged: inner.acknowledged,
            lines_lost: inner.losses.clone(),
            errors: inner.errors.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(kinds: &mut BTreeMap<String, u64>, kind: String) {
    let known = kinds.contains_key(&kind) || kinds.len() < KINDS_MAX;
    *kinds.entry(if known { kind } else { "other".to_owned() }).or_default() += 1;
}

impl Times {
    fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |part: f64| {
            let index = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self { count: sorted.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }

    fn text(&self) -> String {
        format!("{} (p50 {:.1} ms, p99 {:.1} ms)", self.count, self.p50_ms, self.p99_ms)
    }
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut lines = vec![
            format!("agents           {} of {} online at once", self.connected_once, self.agents),
            format!("enrolments       {}", self.enrolments.text()),
            format!("handshakes       {}", self.handshakes.text()),
            format!(
                "returns          {}, {:.2} attempts each, {} still away",
                self.returns.text(),
                self.attempts_per_return,
                self.still_away
            ),
            format!("heartbeats       {} sent, {} acknowledged", self.heartbeats_sent, self.heartbeats_acknowledged),
            format!("time             {:.1} s", self.seconds),
        ];
        let told = |what: &str, kinds: &BTreeMap<String, u64>| {
            kinds.iter().map(|(kind, count)| format!("{what:<17}{count} × {kind}")).collect::<Vec<_>>()
        };
        lines.extend(told("line lost", &self.lines_lost));
        lines.extend(told("error", &self.errors));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        let summary = Times::of(&times);
        assert_eq!((summary.count, summary.p50_ms, summary.p99_ms), (101, 50.0, 99.0));
        assert_eq!(Times::of(&[]).p99_ms, 0.0);
    }

    #[tokio::test]
    async fn the_peak_is_kept_and_kinds_are_bounded() {
        let counters = Counters::default();
        counters.up();
        counters.up();
        counters.wait_connected(2).await;
        counters.down(Code::LINE_LOST);
        counters.down(Code::DONE);
        for n in 0..30 {
            counters.failed(&anyhow::anyhow!("error {n}"));
        }
        let report = counters.report(2, Duration::ZERO);
        assert_eq!((report.connected_once, report.lines_lost.len(), report.errors.len()), (2, 1, KINDS_MAX + 1));
    }
}
