//! How long something that ought to go on stood still: moments at which it went on, and the widest gap between them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two questions of a [`Ticker`].
const TICK: Duration = Duration::from_millis(20);
/// How long it waits before it looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// Moments, oldest first. Clones write to the same ones.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    marks: Arc<Mutex<Vec<Instant>>>,
}

impl Gaps {
    /// It went on now.
    pub fn mark(&self) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// How often it went on after `from`.
    pub fn count_since(&self, from: Instant) -> usize {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|mark| **mark > from).count()
    }

    /// The longest that it stood still, of gaps that ended after `from` or last until now.
    pub fn worst_since(&self, from: Instant) -> Duration {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        marks.push(Instant::now());
        let ended = marks.windows(2).filter(|pair| pair[1] > from);
        ended.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// Asks whoever answers at the other end of a connection the same thing again and again. Ends when dropped.
#[derive(Debug)]
pub struct Ticker {
    /// Marked at each answer.
    pub gaps: Gaps,
    ended: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Over a connection to something that says back what it hears.
    pub fn start(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a TCP socket");
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        let (gaps, ended, stop) = (Gaps::default(), Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (marks, end, over) = (gaps.clone(), ended.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let why = ticking(socket, &marks, &over);
            *end.lock().unwrap_or_else(PoisonError::into_inner) = why.err().map(|error| error.to_string());
        });
        Self { gaps, ended, stop, thread: Some(thread) }
    }

    /// Why the connection is no more; `None` while it lives.
    pub fn ended(&self) -> Option<String> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ticking(mut socket: TcpStream, gaps: &Gaps, over: &AtomicBool) -> std::io::Result<()> {
    for number in 0_u64.. {
        socket.write_all(&number.to_be_bytes())?;
        let (mut answer, mut got) = ([0; 8], 0);
        while got < answer.len() {
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            match socket.read(&mut answer[got..]) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => got += read,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        assert_eq!(answer, number.to_be_bytes(), "the bytes are those that were sent");
        gaps.mark();
        // The pace at which it asks.
        std::thread::sleep(TICK);
    }
    Ok(())
}
