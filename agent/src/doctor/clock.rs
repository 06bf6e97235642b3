//! This machine's clock against the master's. A wrong one keeps no line away: the agent measures the difference. But its
//! log, the owner's hours and every other program go by it.

use jiff::Timestamp;
use proto::check::Check;

use crate::link::member::MADE_ON_MS;

/// More than this is told, milliseconds. The master's time is known to the second here.
const FAR_MS: i64 = 10_000;

pub(super) fn examine(master: Option<Timestamp>, stored_ms: i64) -> Check {
    const NAME: &str = "clock";
    const FIX: &str =
        "set the clock (timedatectl set-ntp true, or ntpd): hours of the policy and times in logs go by it";
    let now_ms = Timestamp::now().as_millisecond();
    match master {
        Some(master) => {
            let off_ms = now_ms - master.as_millisecond();
            let seen = format!("{:+.0} s against the master's", off_ms as f64 / 1000.0);
            if off_ms.abs() > FAR_MS { Check::warn(NAME, seen, FIX) } else { Check::ok(NAME, seen) }
        }
        None if now_ms < MADE_ON_MS.max(stored_ms) => {
            Check::warn(NAME, "it is behind a time that has passed for sure", FIX)
        }
        None => Check::ok(NAME, "plausible; the master told no time to compare it with"),
    }
}
