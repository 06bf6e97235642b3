//! Who this agent is, and until when: the certificate, the pin, and what to enrol with where there is none yet.

use jiff::Timestamp;
use proto::check::Check;

use crate::{
    config::Config,
    state::{Enrolment, read_enrolment, read_master_ms},
};

const NAME: &str = "identity";
const DAY_MS: i64 = 86_400_000;

pub(super) fn examine(config: &Config) -> Vec<Check> {
    match read_enrolment(&config.state_dir) {
        Ok(Some(enrolment)) => vec![pin(config, &enrolment), expiry(config, &enrolment)],
        Ok(None) => vec![not_yet(config)],
        Err(error) => vec![Check::fail(NAME, crate::link::chain(&error), "run this as the agent's user or as root")],
    }
}

fn not_yet(config: &Config) -> Check {
    let join = &config.join;
    if join.master.is_some() && join.pin.is_some() && join.proof.is_some() {
        return Check::ok(NAME, "not enrolled yet; what it needs for that is configured");
    }
    let fix = "paste what `landline enrol create` or `landline agents add` prints on the master";
    Check::fail(NAME, "not enrolled, and master, pin or secret is not configured", fix)
}

fn pin(config: &Config, enrolment: &Enrolment) -> Check {
    const NAME: &str = "pin";
    match config.join.pin {
        Some(pin) if pin != enrolment.pin => {
            let seen = format!("configured is {pin}, enrolled was with {}", enrolment.pin);
            let fix = "remove master_pin to stay with this master, or configure the new one's secret as well";
            Check::fail(NAME, seen, fix)
        }
        Some(_) | None => Check::ok(NAME, enrolment.pin.to_string()),
    }
}

/// Judged by the latest time that is known: a clock that stands still hides nothing.
fn expiry(config: &Config, enrolment: &Enrolment) -> Check {
    let now_ms = Timestamp::now().as_millisecond().max(read_master_ms(&config.state_dir));
    let until = Timestamp::from_millisecond(enrolment.not_after_ms).unwrap_or_default();
    let seen = format!("{}; its certificate is good until {until}", enrolment.agent_id);
    let left = enrolment.not_after_ms.saturating_sub(now_ms);
    let third = enrolment.not_after_ms.saturating_sub(enrolment.not_before_ms) / 3;
    if left <= 0 {
        let fix = "none, if the master still has this key on record: it renews with the next line; else enrol again";
        Check::warn(NAME, format!("{seen}: it ran out"), fix)
    } else if left < third - DAY_MS {
        Check::warn(NAME, format!("{seen}: its renewal is overdue"), "the agent's log says why; does it get a line?")
    } else {
        Check::ok(NAME, seen)
    }
}
