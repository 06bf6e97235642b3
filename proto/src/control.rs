//! The control stream: the first stream of a line, opened by the agent. One [`Hello`], one [`HelloReply`], then
//! [`FromAgent`] and [`FromMaster`] until the line ends. Hello and its refusal are frozen for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    id::{InstanceId, LineEpoch},
    limits::{HELLO_ITEMS_MAX, TEXT_MAX},
    stats::Stats,
    wire::{Invalid, Message, at_most, ensure},
};

/// The agent's first message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the agent speaks.
    #[serde(deserialize_with = "at_most::<HELLO_ITEMS_MAX, _, _>")]
    pub versions: Vec<u16>,
    pub agent_version: String,
    pub instance_id: InstanceId,
    pub os: String,
    pub arch: String,
    pub hostname: String,
    /// Operations the agent knows and its policy allows at all: `forward`, `exec`, `shell`, `files`, `command`.
    #[serde(deserialize_with = "at_most::<HELLO_ITEMS_MAX, _, _>")]
    pub capabilities: Vec<String>,
    pub carrier: Carrier,
    /// The agent's QUIC keep-alive; the master calls the line suspect after 2.4 of them.
    pub keep_alive_ms: u32,
}

/// Begins the one capability that is no operation: behind it stands the epoch of a line of the same process that its agent
/// goes on serving, so that its streams may end there.
const KEEPS: &str = "keeps:";
/// Begins the capability of an agent that holds no standing line: behind it stands how often it comes, in milliseconds.
const VISITS: &str = "visits:";
/// A visit every so many milliseconds is believed; what is said beyond that is bent to it.
const VISITS_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

impl Hello {
    /// The older line that this one leaves running.
    pub fn keeps(&self) -> Option<LineEpoch> {
        self.capabilities.iter().find_map(|word| word.strip_prefix(KEEPS)?.parse().ok()).map(LineEpoch)
    }

    /// How [`keeps`](Self::keeps) is said.
    pub fn keeping(epoch: LineEpoch) -> String {
        format!("{KEEPS}{}", epoch.0)
    }

    /// How often an agent without a standing line comes to ask for work; `None` for one that stays.
    pub fn visits(&self) -> Option<Duration> {
        let ms: u64 = self.capabilities.iter().find_map(|word| word.strip_prefix(VISITS)?.parse().ok())?;
        Some(Duration::from_millis(ms.clamp(*VISITS_MS.start(), *VISITS_MS.end())))
    }

    /// How [`visits`](Self::visits) is said.
    pub fn visiting(every: Duration) -> String {
        format!("{VISITS}{}", every.as_millis())
    }
}

/// What carries the QUIC packets of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Carrier {
    Udp,
    WebSocket,
}

impl Carrier {
    pub fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::WebSocket => "wss",
        }
    }
}

/// The master's answer to [`Hello`]. The line counts as connected when the agent has read Welcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HelloReply {
    Welcome(Welcome),
    Refused(Refusal),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both will speak.
    pub version: u16,
    pub line_epoch: LineEpoch,
    /// The master's clock, Unix milliseconds. The agent measures its offset against a monotonic clock.
    pub master_time_ms: i64,
    pub heartbeat_interval_ms: u32,
    pub master_version: String,
}

/// Why the master does not take the line, and when to come back. Frozen for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// Wait at least this long; 0 leaves it to the agent's own backoff.
    pub retry_after_ms: u32,
}

/// Agent → master, after Welcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    Heartbeat(Heartbeat),
    /// The agent is going away on purpose.
    Goodbye {
        code: Code,
    },
    /// The effective policy, as TOML text for people to read. Sent once after Welcome.
    Policy {
        text: String,
    },
    /// Attempts that failed before this line came up, oldest first, as the agent saw them. Sent once after Welcome.
    History(#[serde(deserialize_with = "at_most::<HELLO_ITEMS_MAX, _, _>")] Vec<Attempt>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub seq: u64,
    pub stats: Stats,
    /// The last RTT the agent saw, microseconds.
    pub rtt_us: u32,
}

/// One failed attempt to connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// How long before the History message it happened.
    pub ago_ms: u64,
    pub code: Code,
    pub message: String,
}

/// Master → agent, after Welcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromMaster {
    HeartbeatAck {
        seq: u64,
        master_time_ms: i64,
    },
    /// No new work will come; the line closes within `grace_ms`. Come back after `retry_after_ms`, spread.
    Drain {
        code: Code,
        grace_ms: u32,
        retry_after_ms: u32,
    },
    /// Make a new key: offer its request by [`EnrolRequest::Renew`](crate::enrol::EnrolRequest), then use it.
    RotateKey,
    /// To an agent whose Hello says that it visits, and to no other: whether something waits for it or needs it. Right after
    /// Welcome, and again with each change.
    Work {
        pending: bool,
    },
}

impl Message for Hello {
    fn check(&self) -> Result<(), Invalid> {
        ensure(!self.versions.is_empty() && self.versions.len() <= HELLO_ITEMS_MAX, "number of versions out of range")?;
        ensure(self.capabilities.len() <= HELLO_ITEMS_MAX, "too many capabilities")?;
        let texts = [&self.agent_version, &self.os, &self.arch, &self.hostname];
        ensure(texts.into_iter().chain(&self.capabilities).all(|text| text.len() <= 255), "a text in Hello is too long")
    }
}

impl Message for HelloReply {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Welcome(welcome) => {
                ensure(welcome.master_version.len() <= 255, "version too long")?;
                ensure((1_000..=3_600_000).contains(&welcome.heartbeat_interval_ms), "heartbeat interval out of range")
            }
            Self::Refused(refusal) => ensure(refusal.message.len() <= TEXT_MAX, "message too long"),
        }
    }
}

impl Message for FromAgent {
    fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Heartbeat(heartbeat) => heartbeat.stats.check(),
            Self::Goodbye { .. } => Ok(()),
            Self::Policy { text } => ensure(text.len() <= 16 * 1024, "policy text too long"),
            Self::History(attempts) => {
                ensure(attempts.len() <= HELLO_ITEMS_MAX, "too many attempts")?;
                ensure(attempts.iter().all(|attempt| attempt.message.len() <= TEXT_MAX), "message too long")
            }
        }
    }
}

impl Message for FromMaster {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(words: &[&str]) -> Hello {
        Hello {
            versions: vec![1],
            agent_version: String::new(),
            instance_id: InstanceId::random(),
            os: String::new(),
            arch: String::new(),
            hostname: String::new(),
            capabilities: words.iter().map(|word| (*word).to_owned()).collect(),
            carrier: Carrier::Udp,
            keep_alive_ms: 5_000,
        }
    }

    #[test]
    fn how_often_an_agent_visits_stands_among_the_capabilities() {
        let hello = |word: &str| hello(&["forward", word]).visits();
        assert_eq!(hello(&Hello::visiting(Duration::from_secs(15))), Some(Duration::from_secs(15)));
        assert_eq!(hello("visits:0"), Some(Duration::from_secs(1)));
        assert_eq!(hello("visits:18446744073709551615"), Some(Duration::from_secs(3_600)));
        for word in ["visits:", "visits:-1", "visits", "keeps:5000"] {
            assert_eq!(hello(word), None, "{word}");
        }
    }

    #[test]
    fn the_line_that_is_kept_stands_among_the_capabilities() {
        let said = Hello::keeping(LineEpoch(u64::MAX));
        assert_eq!(hello(&["forward", &said]).keeps(), Some(LineEpoch(u64::MAX)));
        for words in [&["forward"][..], &[], &["keeps:"], &["keeps:-1"], &["keeps:18446744073709551616"]] {
            assert_eq!(hello(words).keeps(), None, "{words:?}");
        }
    }
}
