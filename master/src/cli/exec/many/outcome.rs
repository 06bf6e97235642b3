//! What became of one agent's run, in the words of the report.

use serde::Serialize;

use super::super::{following::FollowError, run::RunError};
use crate::{api::dto::exec::Exit, cli::client::CallError};

/// How one agent did.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// The program ended.
    Exit(Exit),
    /// The agent is not connected; nothing was started.
    Offline,
    /// The agent, its owner or the master said no; nothing was started.
    Refused(String),
    /// It may have run, or run on.
    Unknown(String),
    /// By us.
    Cancelled,
    NotStarted,
}

/// How many did how.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) ok: usize,
    pub(super) failed: usize,
    pub(super) offline: usize,
    pub(super) refused: usize,
    pub(super) unknown: usize,
    pub(super) cancelled: usize,
    pub(super) not_started: usize,
}

impl Outcome {
    /// `cancelled`: we asked for it.
    pub(super) fn of(ended: Result<Exit, RunError>, cancelled: bool) -> Self {
        match ended {
            Ok(exit) if cancelled && exit.killed.as_deref() == Some("cancelled") => Self::Cancelled,
            Ok(exit) => Self::Exit(exit),
            Err(RunError::NotStarted) => Self::NotStarted,
            Err(RunError::Follow(FollowError::Refused(CallError::Problem(problem)))) => match problem.code.as_str() {
                "agent_offline" | "agent_suspended" => Self::Offline,
                code => Self::Refused(format!("{} ({code})", problem.detail)),
            },
            Err(RunError::Follow(FollowError::Refused(error))) => Self::Refused(error.to_string()),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    /// Whether it counts against `--fail-at`: a run that went wrong. A machine that is away is none.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self.word(), "failed" | "refused" | "unknown")
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Exit(exit) if exit.code == Some(0) => "ok",
            Self::Exit(_) => "failed",
            Self::Offline => "offline",
            Self::Refused(_) => "refused",
            Self::Unknown(_) => "unknown",
            Self::Cancelled => "cancelled",
            Self::NotStarted => "not_started",
        }
    }

    /// The exit code, or what stands in its place.
    pub(super) fn exit(&self) -> String {
        match self {
            Self::Exit(exit) => match (exit.code, exit.signal, &exit.killed) {
                (Some(code), ..) => code.to_string(),
                (None, Some(signal), _) => format!("signal {signal}"),
                (None, None, Some(why)) => why.clone(),
                (None, None, None) => "-".to_owned(),
            },
            _ => "-".to_owned(),
        }
    }

    /// What else there is to say.
    pub(super) fn detail(&self) -> Option<&str> {
        match self {
            Self::Exit(exit) if exit.truncated => Some("output is missing beyond --output-max"),
            Self::Refused(why) | Self::Unknown(why) => Some(why),
            Self::Exit(_) | Self::Offline | Self::Cancelled | Self::NotStarted => None,
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        *match outcome.word() {
            "ok" => &mut self.ok,
            "failed" => &mut self.failed,
            "offline" => &mut self.offline,
            "refused" => &mut self.refused,
            "cancelled" => &mut self.cancelled,
            "not_started" => &mut self.not_started,
            _ => &mut self.unknown,
        } += 1;
    }

    /// Those on which something ran, as far as anybody knows.
    pub(super) fn ran(&self) -> usize {
        self.ok + self.failed + self.unknown + self.cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Kind;

    #[test]
    fn refusals_are_told_from_absences_and_from_what_nobody_knows() {
        let problem = |kind: Kind| CallError::Problem(Box::new(kind.problem("why")));
        let refused = |kind| Outcome::of(Err(RunError::Follow(FollowError::Refused(problem(kind)))), false);
        assert_eq!(refused(Kind::AgentOffline), Outcome::Offline);
        assert_eq!(refused(Kind::Policy), Outcome::Refused("why (policy)".into()));
        let unknown = Outcome::of(Err(RunError::Follow(FollowError::Unknown(problem(Kind::AgentTimeout)))), false);
        assert!(unknown.is_failure() && unknown.word() == "unknown", "{unknown:?}");
        let killed = |word: &str| Ok(Exit { killed: Some(word.into()), ..Exit::default() });
        assert_eq!(Outcome::of(killed("cancelled"), true), Outcome::Cancelled);
        assert!(Outcome::of(killed("cancelled"), false).is_failure(), "somebody else did it");
        assert_eq!(Outcome::of(killed("timed_out"), true).exit(), "timed_out");
        assert!(!Outcome::Offline.is_failure() && !Outcome::Cancelled.is_failure());
    }
}
