//! Whether the agent holds its line all the time.

use std::{str::FromStr, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A line that is always open.
    #[default]
    Persistent,
    /// A short connection now and then.
    OnDemand,
}

/// How an on-demand agent comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDemand {
    /// Between two visits, give or take a tenth.
    pub every: Duration,
    /// It stays so long after the last thing that needed it ended.
    pub linger: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not one of persistent, on-demand")]
pub struct UnknownMode;

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "persistent" => Ok(Self::Persistent),
            "on-demand" => Ok(Self::OnDemand),
            _ => Err(UnknownMode),
        }
    }
}
