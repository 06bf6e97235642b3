//! Datagrams that say what a link does to them: sent from one side with numbers, answered by the other. Measures, and
//! judges nothing.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::Side;

/// How long a socket waits before it looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// Answers each datagram with itself, and remembers where the last one came from. Ends when dropped.
#[derive(Debug)]
pub struct Echo {
    pub address: SocketAddr,
    last: Arc<Mutex<Option<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// One at the address of `side`.
    pub fn start(side: &Side) -> Self {
        let socket = side.inside(|| UdpSocket::bind((side.address, 0))).expect("a port");
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let address = socket.local_addr().expect("an address");
        let (last, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (last.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        Self { address, last, stop, thread: Some(thread) }
    }

    /// Where the last datagram came from, as this end sees it.
    pub fn last(&self) -> Option<SocketAddr> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that asks an [`Echo`].
#[derive(Debug)]
pub struct Probe {
    socket: UdpSocket,
    echo: SocketAddr,
}

impl Probe {
    pub fn new(side: &Side, echo: &Echo) -> Self {
        // Bound to no address: it goes on when the machine's own changes.
        let socket = side.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a port");
        Self { socket, echo: echo.address }
    }

    /// One question, and how long its answer took; `None` where none came in time.
    pub fn ask(&self, within: Duration) -> Option<Duration> {
        let number = rand::random::<u32>();
        let asked = Instant::now();
        self.socket.send_to(&number.to_be_bytes(), self.echo).ok()?;
        let mut buffer = [0; 64];
        while let Some(left) = within.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            let Ok((4, _)) = self.socket.recv_from(&mut buffer) else { continue };
            if buffer[..4] == number.to_be_bytes() {
                return Some(asked.elapsed());
            }
        }
        None
    }

    /// The middle one of so many round trips, none of which may be lost.
    pub fn round_trip(&self, rounds: usize) -> Duration {
        let mut times: Vec<_> = (0..rounds).map(|_| self.ask(Duration::from_secs(5)).expect("an answer")).collect();
        times.sort();
        times[rounds / 2]
    }

    /// Sends numbered datagrams at a pace, and gives the numbers that came back, in that order, the last of them `patience`
    /// after the last was sent.
    pub fn stream(&self, count: u32, pace: Duration, patience: Duration) -> Vec<u32> {
        let sender = self.socket.try_clone().expect("a second handle");
        let echo = self.echo;
        let sending = std::thread::spawn(move || {
            for number in 0..count {
                let _ = sender.send_to(&number.to_be_bytes(), echo);
                // The pace that was asked for.
                std::thread::sleep(pace);
            }
        });
        let mut numbers = Vec::new();
        let mut buffer = [0; 64];
        let mut sent_at = None;
        self.socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        while sent_at.is_none_or(|at: Instant| at.elapsed() < patience) {
            if sent_at.is_none() && sending.is_finished() {
                sent_at = Some(Instant::now());
            }
            let Ok((4, _)) = self.socket.recv_from(&mut buffer) else { continue };
            numbers.push(u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]));
        }
        sending.join().expect("the sender does not panic");
        numbers
    }
}
