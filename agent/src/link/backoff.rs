//! How long to wait before the next attempt: a pure table of failures to delays. Knows no clock and no sockets.

use std::time::Duration;

use proto::code::Code;

/// First and longest wait after the network failed.
const NETWORK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// First and longest wait after the master refused this identity.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));
/// A line that lived this long counts as a success: the next failure starts from the beginning.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or one that broke.
    Network,
    /// The master said no, with a code, and perhaps when to come back.
    Refused { code: Code, retry_after: Duration },
}

/// Counts failures in a row, each kind on its own.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    network: u32,
    refused: u32,
}

impl Backoff {
    /// A line was up for long enough.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The wait before the next attempt. `random` is uniform in [0, 1).
    pub fn after(&mut self, failure: Failure, random: f64) -> Duration {
        match failure {
            Failure::Network => self.network_failed(random),
            // The master knows best when to come back; a little spread keeps a fleet from coming at once.
            Failure::Refused { retry_after, .. } if !retry_after.is_zero() => spread(retry_after, random),
            Failure::Refused { code, .. } if is_about_identity(code) => {
                let ceiling = doubled(REFUSED, self.refused);
                self.refused = self.refused.saturating_add(1);
                // Never sooner than the first wait: a refusal is an answer, not an accident.
                ceiling.mul_f64(random).max(REFUSED.0)
            }
            Failure::Refused { .. } => self.network_failed(random),
        }
    }

    fn network_failed(&mut self, random: f64) -> Duration {
        let ceiling = doubled(NETWORK, self.network);
        self.network = self.network.saturating_add(1);
        ceiling.mul_f64(random)
    }
}

/// Whether trying again soon cannot help, because it is this identity that is refused.
pub fn is_about_identity(code: Code) -> bool {
    (Code::CERTIFICATE_REQUIRED..=Code::ENROL_REJECTED).contains(&code)
        || [Code::SUSPENDED, Code::REMOVED, Code::CLONE, Code::VERSION].contains(&code)
}

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// Between the time asked for and a quarter more.
pub fn spread(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(1.0 + random / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALMOST_ONE: f64 = 0.999_999;

    fn refused(code: Code, retry_after_ms: u64) -> Failure {
        Failure::Refused { code, retry_after: Duration::from_millis(retry_after_ms) }
    }

    #[test]
    fn network_failures_double_to_thirty_seconds_with_full_jitter() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<_> = (0..40).map(|_| backoff.after(Failure::Network, ALMOST_ONE).as_secs_f64()).collect();
        for (waited, wanted) in ceilings.iter().zip([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]) {
            assert!((waited - wanted).abs() < 0.001, "{waited} is not {wanted}");
        }
        assert!(ceilings.iter().all(|wait| *wait <= 30.0));
        assert_eq!(backoff.after(Failure::Network, 0.0), Duration::ZERO);
    }

    #[test]
    fn refusals_wait_one_to_ten_minutes() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..6).map(|_| backoff.after(refused(Code::SUSPENDED, 0), ALMOST_ONE).as_secs()).collect();
        assert_eq!(waits, [60, 119, 239, 479, 599, 599]);
        assert_eq!(backoff.after(refused(Code::CLONE, 0), 0.0), Duration::from_secs(60));
    }

    #[test]
    fn every_code_of_identity_counts_as_one() {
        for code in (0x40..=0x48).map(Code).chain([Code::SUSPENDED, Code::REMOVED, Code::CLONE]) {
            assert!(is_about_identity(code), "{code}");
        }
        for code in [Code::BUSY, Code::SHUTDOWN, Code::INTERNAL, Code::TOO_SLOW, Code::SUPERSEDED] {
            assert!(!is_about_identity(code), "{code}");
        }
    }

    #[test]
    fn the_master_may_ask_for_longer_or_shorter() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(refused(Code::SUSPENDED, 2_000), 0.0), Duration::from_secs(2));
        assert_eq!(backoff.after(refused(Code::BUSY, 4_000), 0.5), Duration::from_millis(4_500));
        assert_eq!(backoff.after(Failure::Network, ALMOST_ONE).as_millis(), 199, "and that counts as no failure");
    }

    #[test]
    fn a_stable_line_starts_over() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.after(Failure::Network, 0.5);
        }
        backoff.succeeded();
        assert_eq!(backoff.after(Failure::Network, ALMOST_ONE).as_millis(), 199);
    }
}
