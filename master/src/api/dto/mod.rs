//! The JSON shapes of the HTTP API, shared with the command line. Owns names, types and the bounds that stand in the
//! OpenAPI document; must hold no behaviour beyond checking those bounds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub mod agent;
pub mod audit;
pub mod command;
pub mod content;
pub mod enrol;
pub mod event;
pub mod exec;
pub mod file;
pub mod live;
pub mod operator;
pub mod shell;
pub mod token;
pub mod tunnel;

/// A point in time, RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = DateTime, examples("2026-11-22T17:20:00.250Z"))]
pub struct Time(pub String);

impl Time {
    /// From Unix milliseconds; a value no calendar holds becomes the epoch.
    pub fn from_ms(ms: i64) -> Self {
        // Always three digits, so that times compare as texts.
        Self(format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)))
    }

    /// As Unix milliseconds, if it is a time at all.
    pub fn ms(&self) -> Option<i64> {
        self.0.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
    }
}

/// One page of a list. `next_cursor` is null on the last page.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

/// Labels by name; the bounds stand in `store::labels`.
pub type Labels = BTreeMap<String, String>;

/// What is wrong with a field, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    pub field: &'static str,
    pub problem: String,
}

/// `Err` naming `field` unless `holds`.
pub(crate) fn ensure(holds: bool, field: &'static str, problem: &str) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { field, problem: problem.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_come_back() {
        let time = Time::from_ms(1_795_368_000_250);
        assert_eq!(time.0, "2026-11-22T17:20:00.250Z");
        assert_eq!(time.ms(), Some(1_795_368_000_250));
        assert_eq!(Time("soon".into()).ms(), None);
    }
}
