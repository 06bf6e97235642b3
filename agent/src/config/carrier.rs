//! Which carrier the owner wants.

use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// UDP where it works, a WebSocket where it does not.
    #[default]
    Auto,
    Udp,
    WebSocket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not one of auto, udp, wss")]
pub struct UnknownCarrier;

impl FromStr for Wanted {
    type Err = UnknownCarrier;

    fn from_str(text: &str) -> Result<Self, UnknownCarrier> {
        match text {
            "auto" => Ok(Self::Auto),
            "udp" => Ok(Self::Udp),
            "wss" => Ok(Self::WebSocket),
            _ => Err(UnknownCarrier),
        }
    }
}
