//! Which agent is next, when nothing more is started, and what the whole is worth. Pure.

use super::outcome::{Outcome, Tally};

/// Nothing was run.
const NOTHING: u8 = 255;
/// Some failed.
const SOME: u8 = 1;
/// Too many failed: the rest was not started.
const TOO_MANY: u8 = 2;
const INTERRUPTED: u8 = 130;

/// Why nothing more is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stop {
    FailAt,
    Interrupted,
}

/// The agents by their number.
#[derive(Debug)]
pub(super) struct Plan {
    total: usize,
    next: usize,
    running: usize,
    concurrency: usize,
    /// So many failures are too many.
    fail_at: usize,
    failed: usize,
    stopped: Option<Stop>,
}

impl Plan {
    pub(super) fn new(total: usize, concurrency: usize, fail_at: Option<usize>) -> Self {
        let fail_at = fail_at.unwrap_or(usize::MAX);
        Self { total, next: 0, running: 0, concurrency, fail_at, failed: 0, stopped: None }
    }

    /// The next to start; `None` while enough run, and when nothing more is started.
    pub(super) fn start(&mut self) -> Option<usize> {
        if self.stopped.is_some() || self.running >= self.concurrency || self.next >= self.total {
            return None;
        }
        self.running += 1;
        self.next += 1;
        Some(self.next - 1)
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        self.running -= 1;
        self.failed += usize::from(outcome.is_failure());
        if self.failed >= self.fail_at && self.next < self.total {
            self.stopped.get_or_insert(Stop::FailAt);
        }
    }

    pub(super) fn interrupt(&mut self) {
        self.stopped = Some(Stop::Interrupted);
    }

    pub(super) fn is_over(&self) -> bool {
        self.running == 0 && (self.stopped.is_some() || self.next >= self.total)
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// The exit code.
    pub(super) fn code(&self, tally: &Tally) -> u8 {
        match self.stopped {
            Some(Stop::Interrupted) => INTERRUPTED,
            _ if tally.ran() == 0 => NOTHING,
            Some(Stop::FailAt) => TOO_MANY,
            None if tally.ok == self.total => 0,
            None => SOME,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dto::exec::Exit;

    fn exit(code: i32) -> Outcome {
        Outcome::Exit(Exit { code: Some(code), ..Exit::default() })
    }

    fn code(plan: &Plan, outcomes: &[Outcome]) -> u8 {
        let mut tally = Tally::default();
        outcomes.iter().for_each(|outcome| tally.add(outcome));
        plan.code(&tally)
    }

    #[test]
    fn no_more_run_at_once_than_allowed() {
        let mut plan = Plan::new(3, 2, None);
        assert_eq!((plan.start(), plan.start(), plan.start()), (Some(0), Some(1), None));
        plan.ended(&exit(1));
        assert_eq!((plan.start(), plan.start()), (Some(2), None));
        plan.ended(&exit(0));
        assert!(!plan.is_over());
        plan.ended(&exit(0));
        assert!(plan.is_over() && plan.stopped().is_none());
        assert_eq!(code(&plan, &[exit(1), exit(0), exit(0)]), SOME);
        assert_eq!(code(&plan, &[exit(0), exit(0), exit(0)]), 0);
        assert_eq!(code(&plan, &[Outcome::Offline, Outcome::Offline, Outcome::Offline]), NOTHING);
        assert_eq!(code(&plan, &[Outcome::Offline, exit(0), exit(0)]), SOME);
    }

    #[test]
    fn too_many_failures_stop_it_and_an_absence_is_none() {
        let mut plan = Plan::new(5, 1, Some(2));
        for outcome in [exit(3), Outcome::Offline, exit(3)] {
            plan.start().unwrap();
            plan.ended(&outcome);
        }
        assert_eq!((plan.start(), plan.is_over(), plan.stopped()), (None, true, Some(Stop::FailAt)));
        assert_eq!(code(&plan, &[exit(3), Outcome::Offline, exit(3)]), TOO_MANY);
        // The last one fails: nothing is left that could not be started.
        let mut plan = Plan::new(1, 1, Some(1));
        plan.start().unwrap();
        plan.ended(&exit(3));
        assert_eq!((plan.stopped(), code(&plan, &[exit(3)])), (None, SOME));
    }

    #[test]
    fn an_interrupt_weighs_more_than_all_else() {
        let mut plan = Plan::new(2, 1, Some(1));
        plan.start().unwrap();
        plan.interrupt();
        plan.ended(&exit(1));
        assert_eq!((plan.start(), plan.stopped()), (None, Some(Stop::Interrupted)));
        assert_eq!(code(&plan, &[exit(1)]), INTERRUPTED);
    }
}
