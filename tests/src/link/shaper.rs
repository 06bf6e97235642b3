//! One direction of one flow: a queue that holds what was sent until it would have arrived.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Shape, State};

/// Packets on the way. More than any queue of bytes holds in packets.
const PACKETS: usize = 16 * 1024;
/// What a lost segment costs a TCP flow: its end's retransmission timer.
const RETRANSMIT: Duration = Duration::from_millis(200);

pub(super) struct Shaper {
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
    /// When the wire has sent all that it was given.
    free_at: Instant,
}

impl Shaper {
    /// What goes in comes out of the receiver, each with the time when it arrives.
    pub(super) fn new() -> (Self, mpsc::Receiver<(Instant, Vec<u8>)>) {
        let (queue, arrivals) = mpsc::channel(PACKETS);
        (Self { queue, free_at: Instant::now() }, arrivals)
    }

    /// Sends one packet, or loses it.
    pub(super) fn packet(&mut self, state: &State, bytes: &[u8]) {
        let shape = state.now();
        let waits_for = self.free_at.saturating_duration_since(Instant::now());
        let waiting = shape.rate.map_or(0.0, |rate| waits_for.as_secs_f64() * rate as f64);
        if !state.is_up() || state.loses(&shape) || waiting > shape.queue as f64 {
            return;
        }
        let at = self.arrival(&shape, bytes.len());
        let _ = self.queue.try_send((at, bytes.to_vec()));
    }

    /// Sends a piece of a stream, in order and never lost; waits while the queue is full. False when nobody receives.
    pub(super) async fn piece(&mut self, state: &State, bytes: Vec<u8>) -> bool {
        let shape = state.now();
        let mut at = self.arrival(&shape, bytes.len());
        if state.loses(&shape) {
            at += RETRANSMIT + 2 * shape.delay;
        }
        self.queue.send((at, bytes)).await.is_ok()
    }

    fn arrival(&mut self, shape: &Shape, bytes: usize) -> Instant {
        let now = Instant::now();
        let on_the_wire = shape.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate as f64));
        self.free_at = self.free_at.max(now) + on_the_wire;
        self.free_at + shape.delay
    }
}

/// The next packet, when it arrives.
pub(super) async fn arrived(arrivals: &mut mpsc::Receiver<(Instant, Vec<u8>)>) -> Option<Vec<u8>> {
    let (at, bytes) = arrivals.recv().await?;
    if at > Instant::now() {
        sleep_until(at).await;
    }
    Some(bytes)
}
