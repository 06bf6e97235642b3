//! When a certificate is renewed: after two thirds of its life, each agent at its own moment, judged by the master's time.
//! Pure.

/// Share of a certificate's life over which a fleet spreads its renewals.
const SPREAD: f64 = 0.05;

/// When one certificate is due. Times are Unix milliseconds of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewal {
    due_ms: i64,
    not_after_ms: i64,
}

impl Renewal {
    /// `random` is uniform in [0, 1).
    pub(super) fn of(not_before_ms: i64, not_after_ms: i64, random: f64) -> Self {
        let life_ms = not_after_ms.saturating_sub(not_before_ms).max(0);
        let spread_ms = (life_ms as f64 * SPREAD * random) as i64;
        Self { due_ms: not_before_ms.saturating_add(life_ms / 3 * 2).saturating_add(spread_ms), not_after_ms }
    }

    pub(super) fn is_due(&self, master_ms: i64) -> bool {
        master_ms >= self.due_ms
    }

    pub(super) fn has_expired(&self, master_ms: i64) -> bool {
        master_ms >= self.not_after_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn due_after_two_thirds_with_a_spread() {
        let early = Renewal::of(0, 30 * DAY, 0.0);
        assert!(!early.is_due(20 * DAY - 1) && early.is_due(20 * DAY));
        let late = Renewal::of(0, 30 * DAY, 0.999);
        assert!(!late.is_due(21 * DAY) && late.is_due(22 * DAY));
        assert!(!late.has_expired(30 * DAY - 1) && late.has_expired(30 * DAY));
        assert!(Renewal::of(10, 5, 0.5).is_due(10), "a life that makes no sense is renewed at once");
    }
}
