//! Health of a tunnel's target: what dials and probes found last, since when, and when to tell others. Damped, so that
//! a target that fails every other dial costs one event a second and no more.

use crate::tunnel::reason::Failure;

/// Least time between two notices of one tunnel's health, milliseconds.
const NOTICE_EVERY_MS: i64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing was dialled yet.
    Unknown,
    Ok {
        since: i64,
    },
    Failing {
        since: i64,
        failure: Failure,
    },
}

impl Health {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok { .. } => "ok",
            Self::Failing { .. } => "failing",
        }
    }

    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Unknown | Self::Ok { .. } => None,
            Self::Failing { failure, .. } => Some(failure),
        }
    }

    fn same_kind(&self, other: &Self) -> bool {
        self.word() == other.word() && self.failure().map(|f| f.word) == other.failure().map(|f| f.word)
    }
}

/// The current health, and what was last told.
#[derive(Debug, Clone)]
pub(super) struct Tracker {
    current: Health,
    told: Health,
    told_at: Option<i64>,
}

impl Tracker {
    pub(super) fn new() -> Self {
        Self { current: Health::Unknown, told: Health::Unknown, told_at: None }
    }

    pub(super) fn current(&self) -> &Health {
        &self.current
    }

    pub(super) fn passed(&mut self, now: i64) {
        if !matches!(self.current, Health::Ok { .. }) {
            self.current = Health::Ok { since: now };
        }
    }

    /// A failure of another kind keeps the time since when it fails.
    pub(super) fn failed(&mut self, now: i64, failure: Failure) {
        let since = match &self.current {
            Health::Failing { since, .. } => *since,
            Health::Unknown | Health::Ok { .. } => now,
        };
        self.current = Health::Failing { since, failure };
    }

    /// When the next notice is due, if one is.
    pub(super) fn notice_at(&self) -> Option<i64> {
        (!self.current.same_kind(&self.told)).then(|| self.told_at.map_or(i64::MIN, |at| at + NOTICE_EVERY_MS))
    }

    /// True once when a notice is due; the caller gives it.
    pub(super) fn take_notice(&mut self, now: i64) -> bool {
        let due = self.notice_at().is_some_and(|at| at <= now);
        if due {
            self.mark_told(now);
        }
        due
    }

    /// What is current counts as told: another notice carried it.
    pub(super) fn mark_told(&mut self, now: i64) {
        self.told = self.current.clone();
        self.told_at = Some(now);
    }
}
