//! Which carrier to try when: times and outcomes in, decisions out. Pure: knows no clock and no sockets.

use std::time::Duration;

use crate::config::carrier::Wanted;

/// How long UDP is ahead of the WebSocket. A handshake of two round trips across the world fits.
const HEAD_START: Duration = Duration::from_millis(1_500);

/// What one agent learnt about the network it is in. Lives as long as its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// UDP did not get through the last time that it was tried.
    pub udp_failed: bool,
}

/// When each carrier is tried, from the start of an attempt; `None` for not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub udp: Option<Duration>,
    pub websocket: Option<Duration>,
}

/// The plan of one attempt. Where UDP fails earlier, the WebSocket is tried at once.
pub fn start(wanted: Wanted, memory: Memory) -> Start {
    let now = Some(Duration::ZERO);
    match wanted {
        Wanted::Udp => Start { udp: now, websocket: None },
        Wanted::WebSocket => Start { udp: None, websocket: now },
        Wanted::Auto if memory.udp_failed => Start { udp: now, websocket: now },
        Wanted::Auto => Start { udp: now, websocket: Some(HEAD_START) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_comes_first_unless_it_failed_here_or_is_not_wanted() {
        let (now, later) = (Some(Duration::ZERO), Some(HEAD_START));
        let plan = |wanted, udp_failed| start(wanted, Memory { udp_failed });
        assert_eq!(plan(Wanted::Auto, false), Start { udp: now, websocket: later });
        assert_eq!(plan(Wanted::Auto, true), Start { udp: now, websocket: now });
        for failed in [false, true] {
            assert_eq!(plan(Wanted::Udp, failed), Start { udp: now, websocket: None });
            assert_eq!(plan(Wanted::WebSocket, failed), Start { udp: None, websocket: now });
        }
    }
}
