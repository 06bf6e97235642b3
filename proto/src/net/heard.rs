//! Whether the other end of a connection is still heard: any packet counts, so that a stream which is stalled is no silence.

use std::time::Duration;

use tokio::time::Instant;

/// What was heard of a connection, and when it was new. Knows as much as its last look.
#[derive(Debug)]
pub struct Heard {
    datagrams: u64,
    at: Instant,
}

impl Heard {
    pub fn new(connection: &quinn::Connection) -> Self {
        Self { datagrams: connection.stats().udp_rx.datagrams, at: Instant::now() }
    }

    /// Looks, and says since when there was nothing: exact to the time between two looks.
    pub fn silent_for(&mut self, connection: &quinn::Connection) -> Duration {
        let datagrams = connection.stats().udp_rx.datagrams;
        if datagrams != self.datagrams {
            *self = Self { datagrams, at: Instant::now() };
        }
        self.at.elapsed()
    }
}
