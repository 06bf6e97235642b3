//! Which carrier to try when: times and outcomes in, decisions out. Pure: knows no clock and no sockets. Times count from
//! any fixed moment.

use std::{collections::VecDeque, time::Duration};

use proto::net::carrier::Carrier;

use crate::config::carrier::Wanted;

/// How long UDP is ahead of the WebSocket. A handshake of two round trips across the world fits.
const HEAD_START: Duration = Duration::from_millis(1_500);
/// The same where UDP worked a moment ago: what is slow then is a master that all its agents come back to, and it should not
/// get two handshakes of each.
const HEAD_START_OF_THE_PROVEN: Duration = Duration::from_secs(4);
/// How long after each other UDP is tried from within a WebSocket; the last one for ever.
const UDP_AGAIN: [Duration; 5] =
    [Duration::from_secs(60), Duration::from_secs(120), Duration::from_secs(240), Duration::from_secs(480), LONGEST];
const LONGEST: Duration = Duration::from_secs(900);
/// The wait after a WebSocket could not be had while UDP was bad.
const WEBSOCKET_AGAIN: Duration = Duration::from_secs(60);
/// What is lost over UDP is counted over so long, and over as many packets at least: a few say nothing.
const WINDOW: Duration = Duration::from_secs(15);
const PACKETS_MIN: u64 = 40;
/// Share of packets lost from which UDP is no carrier, percent.
const LOST_MAX: u64 = 20;

/// What one agent learnt about the network it is in. Lives as long as its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    pub udp: Udp,
    /// How often UDP got through here and was left because it lost too much.
    pub udp_broke: u32,
}

/// How UDP did the last time that it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Udp {
    #[default]
    Untried,
    Worked,
    Failed,
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
        Wanted::Auto => {
            let websocket = match memory.udp {
                Udp::Untried => HEAD_START,
                Udp::Worked => HEAD_START_OF_THE_PROVEN,
                Udp::Failed => Duration::ZERO,
            };
            Start { udp: now, websocket: Some(websocket) }
        }
    }
}

/// What the network did with the packets of a line so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packets {
    pub sent: u64,
    pub lost: u64,
}

/// Another carrier, to be tried beside the line that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// Out of the WebSocket.
    Udp,
    /// Away from a UDP that loses so many percent.
    WebSocket { lost: u64 },
}

/// One line's way between the carriers.
#[derive(Debug)]
pub struct Course {
    wanted: Wanted,
    carrier: Carrier,
    /// Not before this.
    next: Duration,
    /// Tries of UDP that failed, and what its badness adds to them.
    failures: usize,
    trying: bool,
    seen: VecDeque<(Duration, Packets)>,
}

impl Course {
    /// Of a line that came up at `now`. A WebSocket that won a race is checked at once: UDP may only have been slower.
    pub fn new(wanted: Wanted, carrier: Carrier, memory: Memory, now: Duration) -> Self {
        let failures = usize::try_from(memory.udp_broke).unwrap_or(usize::MAX);
        let next = if failures == 0 { now } else { now + again(failures) };
        Self { wanted, carrier, next, failures, trying: false, seen: VecDeque::new() }
    }

    /// Looks about once a second. What it names is under way until [`failed`](Self::failed) is called.
    pub fn look(&mut self, now: Duration, packets: Packets) -> Option<Try> {
        let found = match (self.wanted, self.carrier) {
            (Wanted::Auto, Carrier::WebSocket) => Some(Try::Udp),
            (Wanted::Auto, Carrier::Udp) => self.lost(now, packets).map(|lost| Try::WebSocket { lost }),
            (Wanted::Udp | Wanted::WebSocket, _) => None,
        };
        let found = found.filter(|_| !self.trying && now >= self.next);
        self.trying |= found.is_some();
        found
    }

    /// The try came to nothing. `random` is uniform in [0, 1): a fleet behind one firewall does not knock at once.
    pub fn failed(&mut self, now: Duration, random: f64) {
        self.trying = false;
        self.next = now
            + match self.carrier {
                Carrier::WebSocket => again(self.failures).mul_f64(1.0 - random / 10.0),
                Carrier::Udp => WEBSOCKET_AGAIN,
            };
        self.failures = self.failures.saturating_add(1);
    }

    /// What is known of the network is of another one: looks anew from `now` on.
    pub fn in_another_network(&mut self, now: Duration) {
        (self.next, self.failures) = (now, 0);
        self.seen.clear();
    }

    /// Percent lost within the window, where that is too much.
    fn lost(&mut self, now: Duration, packets: Packets) -> Option<u64> {
        self.seen.push_back((now, packets));
        while self.seen.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.seen.pop_front();
        }
        let (at, before) = *self.seen.front()?;
        let sent = packets.sent.saturating_sub(before.sent);
        let lost = packets.lost.saturating_sub(before.lost) * 100 / sent.max(1);
        (now.saturating_sub(at) >= WINDOW && sent >= PACKETS_MIN && lost > LOST_MAX).then_some(lost)
    }
}

fn again(failures: usize) -> Duration {
    UDP_AGAIN.get(failures).copied().unwrap_or(LONGEST)
}

#[cfg(test)]
#[path = "carriers_tests.rs"]
mod tests;
