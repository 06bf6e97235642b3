//! One direction of one flow through the relay: what was sent waits here until it arrives. The direction's
//! [`Wire`](super::wire::Wire) decides when that is; all flows share it.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep_until};

use super::{Direction, State, shape::Protocol, wire::Fate};

/// Packets on the way. More than any queue of bytes holds in packets.
const PACKETS: usize = 16 * 1024;

/// When it arrives, which one it was, and what it says.
type Sent = (Duration, u64, Vec<u8>);

pub(super) struct Shaper {
    state: Arc<State>,
    direction: Direction,
    queue: mpsc::Sender<Sent>,
    /// Of the next packet: those of one moment arrive in the order in which they were sent.
    number: u64,
}

/// The other end of a [`Shaper`].
pub(super) struct Arrivals {
    state: Arc<State>,
    queue: mpsc::Receiver<Sent>,
    waiting: BinaryHeap<Reverse<Sent>>,
}

impl Shaper {
    pub(super) fn new(state: &Arc<State>, direction: Direction) -> (Self, Arrivals) {
        let (sender, queue) = mpsc::channel(PACKETS);
        let arrivals = Arrivals { state: state.clone(), queue, waiting: BinaryHeap::new() };
        (Self { state: state.clone(), direction, queue: sender, number: 0 }, arrivals)
    }

    /// Sends one packet, or loses it.
    pub(super) fn packet(&mut self, bytes: &[u8]) {
        let fate = self.state.wire(self.direction).packet(self.state.now(), bytes.len(), Protocol::Udp);
        let (at, copies) = match fate {
            Fate::Arrives(at) => (at, 1),
            Fate::Twice(at) => (at, 2),
            Fate::Dropped(_) => return,
        };
        for _ in 0..copies {
            let _ = self.queue.try_send((at, self.number, bytes.to_vec()));
            self.number += 1;
        }
    }

    /// Sends a piece of a stream, in order and never lost; waits while the queue is full. False when nobody receives.
    pub(super) async fn piece(&mut self, bytes: Vec<u8>) -> bool {
        let now = self.state.now();
        let (at, room_at) = {
            let mut wire = self.state.wire(self.direction);
            (wire.piece(now, bytes.len()), wire.room_at(now))
        };
        self.number += 1;
        let taken = self.queue.send((at, self.number, bytes)).await.is_ok();
        if room_at > now {
            sleep_until(self.state.moment(room_at)).await;
        }
        taken
    }
}

impl Arrivals {
    /// The next one, when it arrives; `None` when all arrived and nobody sends.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let mut open = true;
        loop {
            while self.waiting.len() < PACKETS
                && let Ok(sent) = self.queue.try_recv()
            {
                self.waiting.push(Reverse(sent));
            }
            let Some(Reverse((at, ..))) = self.waiting.peek() else {
                let sent = self.queue.recv().await?;
                self.waiting.push(Reverse(sent));
                continue;
            };
            let due = self.state.moment(*at);
            tokio::select! {
                biased;
                () = sleep_until(due) => return self.waiting.pop().map(|Reverse((_, _, bytes))| bytes),
                // One that passes those that wait.
                sent = self.queue.recv(), if open && self.waiting.len() < PACKETS => match sent {
                    Some(sent) => self.waiting.push(Reverse(sent)),
                    None => open = false,
                },
            }
        }
    }
}
