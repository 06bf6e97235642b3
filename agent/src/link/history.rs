//! The attempts that failed since the last line, as this agent saw them: told to the master with the next line, so that
//! the operator sees both sides.

use std::collections::VecDeque;

use proto::{code::Code, control::Attempt, limits::HELLO_ITEMS_MAX};
use tokio::time::Instant;

/// Longest message kept of one attempt, bytes.
const MESSAGE_MAX: usize = 300;

#[derive(Debug, Default)]
pub(super) struct History {
    failures: VecDeque<(Instant, Code, String)>,
}

impl History {
    /// Keeps a failure; the oldest goes when there are too many.
    pub(super) fn add(&mut self, code: Code, message: &str) {
        if self.failures.len() == HELLO_ITEMS_MAX {
            self.failures.pop_front();
        }
        let message = message[..message.floor_char_boundary(MESSAGE_MAX)].to_owned();
        self.failures.push_back((Instant::now(), code, message));
    }

    /// All of them, oldest first, for the master.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let attempt = |(at, code, message): &(Instant, Code, String)| Attempt {
            ago_ms: u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX),
            code: *code,
            message: message.clone(),
        };
        self.failures.iter().map(attempt).collect()
    }

    /// The master has them.
    pub(super) fn clear(&mut self) {
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::{control::FromAgent, wire};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_failures_are_told_oldest_first_and_fit_their_message() {
        let mut history = History::default();
        for number in 0..40 {
            history.add(Code::SILENT, &format!("{number} {}", "é".repeat(2_000)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let attempts = history.attempts();
        assert_eq!((attempts.len(), attempts[0].ago_ms, attempts[31].ago_ms), (32, 32_000, 1_000));
        assert!(attempts[0].message.starts_with("8 "));
        let message = FromAgent::History(attempts);
        assert_eq!(wire::decode::<FromAgent>(&wire::encode(&message)), Ok(message));
        history.clear();
        assert!(history.attempts().is_empty());
    }
}
