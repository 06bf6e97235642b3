//! What a link does to packets, in words: the description that the in-process relay and the lab share. Decides nothing;
//! [`Wire`](super::wire::Wire) does.

use std::time::Duration;

/// What the link does to a packet in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// One way.
    pub delay: Duration,
    /// The delay varies by up to this much either way, evenly. It never reorders: who is early waits for the one before.
    pub jitter: Duration,
    /// Bytes a second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// Bytes that may wait for their turn at that rate; what comes on top is dropped.
    pub queue: usize,
    /// In the relay, TCP sees a stall instead of a loss, as its own end would make of it.
    pub loss: Loss,
    /// Share of packets, 0 to 1, that are held back by [`HELD_BACK`](super::wire::HELD_BACK) while others pass them.
    pub reorder: f64,
    /// Share of packets, 0 to 1, that arrive twice.
    pub duplicate: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: 256 * 1024,
            loss: Loss::None,
            reorder: 0.0,
            duplicate: 0.0,
        }
    }
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    None,
    /// Each with this probability, 0 to 1, whatever befell the one before.
    Uniform(f64),
    /// Gilbert and Elliott's: the link is good or bad; in the good state nothing is lost.
    Bursts {
        /// Probability for each packet that a good link turns bad.
        begin: f64,
        /// Probability for each packet that a bad link turns good: bursts are 1 / end packets long on average.
        end: f64,
        /// Share of the packets lost in the bad state.
        within: f64,
    },
}

impl Loss {
    /// Bursts in which everything is lost, `length` packets long on average, that make up `share` of all packets.
    pub fn bursts(share: f64, length: f64) -> Self {
        let end = 1.0 / length;
        Self::Bursts { begin: end * share / (1.0 - share), end, within: 1.0 }
    }
}

/// What a packet is, as far as links care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    Tcp,
    /// ICMP, and whatever else there is.
    Other,
}

/// What a network does not let through, without a word to the sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blocked {
    pub udp: bool,
    pub tcp: bool,
}

impl Blocked {
    pub const NOTHING: Self = Self { udp: false, tcp: false };
    pub const UDP: Self = Self { udp: true, tcp: false };
    pub const TCP: Self = Self { udp: false, tcp: true };
    pub const BOTH: Self = Self { udp: true, tcp: true };

    pub fn holds(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Udp => self.udp,
            Protocol::Tcp => self.tcp,
            Protocol::Other => false,
        }
    }
}
