//! Identifiers. An agent's id is the name its operator chose; every other id is random. No id is authority.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::limits::AGENT_ID_MAX;

/// The name an operator chose for an agent: `[a-z0-9][a-z0-9._-]{0,62}`. Checked whenever one is made or decoded.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AgentId(Box<str>);

/// Why a text is not an agent id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an agent id is 1 to 63 of a-z 0-9 . _ - and starts with a letter or digit")]
pub struct BadAgentId;

impl AgentId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentId {
    type Err = BadAgentId;

    fn from_str(text: &str) -> Result<Self, BadAgentId> {
        let bytes = text.as_bytes();
        let head = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let tail = |b: &u8| head(*b) || matches!(b, b'.' | b'_' | b'-');
        match bytes {
            [first, rest @ ..] if bytes.len() <= AGENT_ID_MAX && head(*first) && rest.iter().all(tail) => {
                Ok(Self(text.into()))
            }
            _ => Err(BadAgentId),
        }
    }
}

impl<'de> Deserialize<'de> for AgentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for AgentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random id (version 4).
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// One request of the master to an agent: one work stream. Never reused; an agent refuses one it has seen.
    RequestId
}
uuid_id! {
    /// One run of an agent process. A new line with the same instance supersedes the old one at once.
    InstanceId
}
uuid_id! {
    /// One tunnel.
    TunnelId
}
uuid_id! {
    /// One exec.
    ExecId
}
uuid_id! {
    /// One shell session.
    ShellId
}

/// Which line of an agent this is. Grows with every accepted line and fences late writes of older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineEpoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_are_checked() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "home-1", "fw.branch_2", longest.as_str()] {
            assert_eq!(good.parse::<AgentId>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-a", ".a", "_a", "Home", "a b", "a/b", "é", "a\n", "..", too_long.as_str()] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad:?}");
        }
    }
}
