//! One direction of a link: packet and time in, its fate out. Pure: it holds no packet, owns no clock, and its dice are
//! seeded, so that the same packets at the same times meet the same fate. The relay and the lab carry it out.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::shape::{Blocked, Loss, Protocol, Shape};

/// How much later than its turn a reordered packet arrives. At 10 Mb/s four full packets pass it.
pub const HELD_BACK: Duration = Duration::from_millis(5);
/// What a lost segment costs a TCP flow that is relayed as a stream: its end's retransmission timer.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// What becomes of a packet. Times are since whatever moment the caller counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives(Duration),
    Twice(Duration),
    Dropped(Why),
}

/// What took a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Down,
    Blocked,
    /// The queue before the rate was full.
    Queue,
    Loss,
}

/// The state of one direction.
#[derive(Debug)]
pub struct Wire {
    pub shape: Shape,
    pub blocked: Blocked,
    pub down: bool,
    /// When the wire has sent all that it was given.
    free_at: Duration,
    /// When the last packet arrives that kept its turn.
    last: Duration,
    /// Whether the link is in the bad state of [`Loss::Bursts`].
    bad: bool,
    random: StdRng,
}

/// What chance has for one packet. All of it is drawn for each, so that no shape changes the chances of later packets.
struct Dice {
    turn: f64,
    lose: f64,
    jitter: f64,
    reorder: f64,
    duplicate: f64,
}

impl Dice {
    fn roll(random: &mut StdRng) -> Self {
        let mut next = || random.random::<f64>();
        Self { turn: next(), lose: next(), jitter: next(), reorder: next(), duplicate: next() }
    }
}

impl Wire {
    /// A wire that does nothing yet to what is sent over it.
    pub fn new(seed: u64) -> Self {
        Self {
            shape: Shape::default(),
            blocked: Blocked::NOTHING,
            down: false,
            free_at: Duration::ZERO,
            last: Duration::ZERO,
            bad: false,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Sends a packet of so many bytes.
    pub fn packet(&mut self, now: Duration, bytes: usize, protocol: Protocol) -> Fate {
        let dice = Dice::roll(&mut self.random);
        if self.down {
            return Fate::Dropped(Why::Down);
        }
        if self.blocked.holds(protocol) {
            return Fate::Dropped(Why::Blocked);
        }
        // A lost packet took its time on the wire like any other.
        let lost = self.loses(&dice);
        let Some(sent) = self.send(now, bytes) else { return Fate::Dropped(Why::Queue) };
        if lost {
            return Fate::Dropped(Why::Loss);
        }
        let at = self.arrival(sent, &dice);
        if dice.duplicate < self.shape.duplicate { Fate::Twice(at) } else { Fate::Arrives(at) }
    }

    /// Sends a piece of a stream: in order and never dropped, since the stream's own end would send it again.
    pub fn piece(&mut self, now: Duration, bytes: usize) -> Duration {
        let dice = Dice::roll(&mut self.random);
        let sent = self.serialise(now, bytes);
        let again = if self.loses(&dice) { RETRANSMIT + 2 * self.shape.delay } else { Duration::ZERO };
        self.in_turn(sent + again, &dice)
    }

    /// When a queue that is full now has room again for a stream's next piece.
    pub fn room_at(&self, now: Duration) -> Duration {
        let held = self.shape.rate.map_or(0.0, |rate| self.shape.queue as f64 / rate as f64);
        self.free_at.saturating_sub(Duration::from_secs_f64(held)).max(now)
    }

    fn loses(&mut self, dice: &Dice) -> bool {
        match self.shape.loss {
            Loss::None => false,
            Loss::Uniform(share) => dice.lose < share,
            Loss::Bursts { begin, end, within } => {
                self.bad = if self.bad { dice.turn >= end } else { dice.turn < begin };
                self.bad && dice.lose < within
            }
        }
    }

    /// When the packet has left; `None` where it finds the queue full.
    fn send(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let waiting = match self.shape.rate {
            Some(rate) => self.free_at.saturating_sub(now).as_secs_f64() * rate as f64,
            None => 0.0,
        };
        // A packet always fits into an empty queue.
        let full = waiting > 0.0 && waiting + bytes as f64 > self.shape.queue as f64;
        (!full).then(|| self.serialise(now, bytes))
    }

    fn serialise(&mut self, now: Duration, bytes: usize) -> Duration {
        let Some(rate) = self.shape.rate else { return now };
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.free_at
    }

    fn arrival(&mut self, sent: Duration, dice: &Dice) -> Duration {
        if dice.reorder < self.shape.reorder {
            return self.varied(sent, dice) + HELD_BACK;
        }
        self.in_turn(sent, dice)
    }

    /// Not before the one before it.
    fn in_turn(&mut self, sent: Duration, dice: &Dice) -> Duration {
        self.last = self.last.max(self.varied(sent, dice));
        self.last
    }

    fn varied(&self, sent: Duration, dice: &Dice) -> Duration {
        (sent + self.shape.delay + self.shape.jitter.mul_f64(2.0 * dice.jitter))
            .saturating_sub(self.shape.jitter)
            .max(sent)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
