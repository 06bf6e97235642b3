//! A bad link inside the test: an impairment relay for UDP and TCP on one port, in front of a real master. It delays,
//! slows, loses, cuts, and gives its flows new source addresses; seeded, so that a run can be had again. Owns its
//! sockets and tasks: dropping it is pulling the cable out for good.

mod shaper;
mod tcp;
mod udp;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// What the link does to a packet, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// One way.
    pub delay: Duration,
    /// Bytes a second; `None` is as fast as it goes.
    pub rate: Option<u64>,
    /// Bytes that may wait for their turn at that rate; what comes on top is dropped.
    pub queue: usize,
    /// Share of packets lost, 0 to 1. TCP sees a stall instead of a loss, as its own end would make of it.
    pub loss: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { delay: Duration::ZERO, rate: None, queue: 256 * 1024, loss: 0.0 }
    }
}

/// The link. Agents are pointed at [`address`](Self::address) instead of the master's own.
#[derive(Debug)]
pub struct Link {
    pub address: SocketAddr,
    state: Arc<State>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What all flows look at.
#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    shape: Mutex<Shape>,
    /// Whether the cable is in.
    up: watch::Sender<bool>,
    /// Grows with each change of address.
    address: watch::Sender<u64>,
    random: Mutex<StdRng>,
}

impl Link {
    /// A link to `upstream` that does nothing yet. `seed` decides which packets will be lost.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let (udp, tcp, address) = bind_both().await;
        let state = Arc::new(State {
            upstream,
            shape: Mutex::default(),
            up: watch::Sender::new(true),
            address: watch::Sender::new(0),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        });
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(udp::relay(udp, state.clone()))),
            AbortOnDropHandle::new(tokio::spawn(tcp::relay(tcp, state.clone()))),
        ];
        Self { address, state, _tasks: tasks }
    }

    /// From now on.
    pub fn shape(&self, shape: Shape) {
        *self.state.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    /// Pulls the cable: packets vanish, TCP connections stall.
    pub fn cut(&self) {
        self.state.up.send_replace(false);
    }

    /// Puts it back.
    pub fn restore(&self) {
        self.state.up.send_replace(true);
    }

    /// Gives every flow a new source address, as a NAT does that lost its table: UDP goes on from there, TCP connections
    /// are reset.
    pub fn readdress(&self) {
        self.state.address.send_modify(|generation| *generation += 1);
    }
}

impl State {
    fn now(&self) -> Shape {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether the next packet is lost.
    fn loses(&self, shape: &Shape) -> bool {
        use rand::Rng;
        shape.loss > 0.0 && self.random.lock().unwrap_or_else(PoisonError::into_inner).random_bool(shape.loss.min(1.0))
    }
}

/// The same port number for both protocols, as a master has it.
async fn bind_both() -> (UdpSocket, TcpListener, SocketAddr) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        if let Ok(udp) = UdpSocket::bind(address).await {
            return (udp, tcp, address);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
