//! Waiting for a line or a master that is away, and giving up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::{client::CallError, is_passing};

/// How long nothing may move before it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// The patience for one copy, or for one run that is followed.
#[derive(Debug)]
pub(super) struct Patience {
    waits: ExponentialBackoff,
    moved_at: Instant,
    /// Something has moved at all: only then is what is away waited for.
    begun: bool,
    offset: u64,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { waits: waits(), moved_at: Instant::now(), begun: false, offset: 0 }
    }

    /// For what is known to be there: whatever is away is waited for.
    pub(super) fn begun() -> Self {
        Self { begun: true, ..Self::new() }
    }

    /// The file stands at this offset.
    pub(super) fn moved_to(&mut self, offset: u64) {
        if offset != self.offset {
            *self = Self { begun: true, offset, ..Self::new() };
        }
    }

    /// Waits before another attempt, or gives the error back.
    pub(super) async fn wait(&mut self, error: CallError) -> Result<(), CallError> {
        if !self.bears(&error) || self.moved_at.elapsed() > GIVE_UP_AFTER {
            return Err(error);
        }
        tokio::time::sleep(self.waits.next().unwrap_or(LONGEST)).await;
        Ok(())
    }

    fn bears(&self, error: &CallError) -> bool {
        match error {
            // Another transfer of the same file is winding down.
            CallError::Problem(problem) if problem.code == "busy" => true,
            CallError::Problem(problem) => {
                let away = matches!(problem.code.as_str(), "agent_offline" | "agent_timeout" | "request_timeout");
                self.begun && (away || is_passing(error))
            }
            CallError::Cut { .. } => true,
            CallError::Unreachable { .. } | CallError::Silent { .. } | CallError::Foreign { .. } => {
                self.begun && is_passing(error)
            }
        }
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST)
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Kind;

    fn problem(kind: Kind) -> CallError {
        CallError::Problem(Box::new(kind.problem("")))
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_away_is_waited_for_once_something_moved() {
        let mut patience = Patience::new();
        assert!(patience.wait(problem(Kind::AgentOffline)).await.is_err());
        assert!(patience.wait(problem(Kind::Busy)).await.is_ok());
        patience.moved_to(1);
        assert!(patience.wait(problem(Kind::AgentOffline)).await.is_ok());
        assert!(patience.wait(problem(Kind::OutsideRoots)).await.is_err());
        let mut waited = 0;
        while patience.wait(problem(Kind::AgentOffline)).await.is_ok() {
            waited += 1;
            assert!(waited < 1000, "it never gives up");
        }
        assert!(patience.moved_at.elapsed() > GIVE_UP_AFTER);
    }
}
