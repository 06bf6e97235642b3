//! The thread that carries packets from one end of the lab's link to the other: reads them, has the wire decide, and
//! writes them out when they arrive. Sends nothing of its own.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tun_rs::SyncDevice;

use super::{path::Path, side::fail};
use crate::link::Direction;

/// Packets read from one end before it is the other's turn.
const TURN: usize = 64;
/// Packets on the way, together; more than any delay and queue that a test asks for hold.
const PACKETS: usize = 256 * 1024;
/// Longer than any packet: the ends have an MTU of 1,500 bytes.
const BUFFER: usize = 2_048;

/// Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Ferry {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// When it arrives, which one it was, where it goes, and what it says.
type Waiting = Reverse<(Duration, u64, bool, Vec<u8>)>;

struct Deck {
    /// The agent's, then the master's.
    ends: [SyncDevice; 2],
    path: Arc<Mutex<Path>>,
    started: Instant,
    waiting: BinaryHeap<Waiting>,
    number: u64,
}

impl Ferry {
    /// Carries between the agent's end and the master's.
    pub(super) fn start(ends: [SyncDevice; 2], path: Arc<Mutex<Path>>) -> Self {
        ends.iter().for_each(|end| end.set_nonblocking(true).unwrap_or_else(|error| fail("a TUN device", &error)));
        let stop = eventfd(0, EventfdFlags::CLOEXEC).expect("an event");
        let stopped = stop.try_clone().expect("a second handle");
        let deck = Deck { ends, path, started: Instant::now(), waiting: BinaryHeap::new(), number: 0 };
        let thread = std::thread::Builder::new().name("lab".into()).spawn(move || deck.run(stopped.as_fd()));
        Self { stop, thread: Some(thread.expect("a thread")) }
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Deck {
    fn run(mut self, stop: BorrowedFd<'_>) {
        loop {
            self.deliver();
            let [agent, master] = match self.wait(stop) {
                Some(readable) => readable,
                None => return,
            };
            if agent {
                self.take(Direction::Up);
            }
            if master {
                self.take(Direction::Down);
            }
        }
    }

    /// Waits for a packet or for the next arrival, and says which ends have something; `None` when it is over.
    fn wait(&self, stop: BorrowedFd<'_>) -> Option<[bool; 2]> {
        let due = self.waiting.peek().map(|Reverse((at, ..))| at.saturating_sub(self.started.elapsed()));
        let timeout = due.map(|due| Timespec { tv_sec: due.as_secs() as i64, tv_nsec: i64::from(due.subsec_nanos()) });
        let [agent, master] = &self.ends;
        let mut watched = [
            PollFd::new(agent, PollFlags::IN),
            PollFd::new(master, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut watched, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            eprintln!("lab: poll: {error}");
            return None;
        }
        let [agent, master, stop] = watched.map(|fd| fd.revents());
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if agent.intersects(gone) || master.intersects(gone) || !stop.is_empty() {
            return None;
        }
        Some([agent, master].map(|events| events.contains(PollFlags::IN)))
    }

    fn take(&mut self, direction: Direction) {
        let from = usize::from(direction == Direction::Down);
        let mut buffer = [0; BUFFER];
        for _ in 0..TURN {
            let Ok(length) = self.ends[from].recv(&mut buffer) else { return };
            let now = self.started.elapsed();
            let fate = {
                let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
                path.packet(direction, now, &mut buffer[..length])
            };
            let Some((at, copies)) = fate else { continue };
            for _ in 0..copies {
                if self.waiting.len() < PACKETS {
                    self.number += 1;
                    let up = direction == Direction::Up;
                    self.waiting.push(Reverse((at, self.number, up, buffer[..length].to_vec())));
                }
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.started.elapsed();
        while self.waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now)
            && let Some(Reverse((_, _, up, packet))) = self.waiting.pop()
        {
            // An end that is down, or full, drops it: so would a real one.
            let _ = self.ends[usize::from(up)].send(&packet);
        }
    }
}
