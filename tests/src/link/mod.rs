//! A bad link inside the test: an impairment relay for UDP and TCP on one port, in front of a real master. It delays,
//! slows, loses, reorders, blocks, cuts, and gives its flows new source addresses; seeded, so that a run can be had again.
//! Owns its sockets and tasks: dropping it is pulling the cable out for good. [`lab`](crate::lab) is the same for whole
//! programs.

pub mod shape;
mod shaper;
mod tcp;
mod udp;
pub mod wire;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

pub use self::shape::{Blocked, Loss, Protocol, Shape};
use self::wire::Wire;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From agents to the master.
    Up,
    /// From the master to agents.
    Down,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];
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
    /// What times of the wires count from.
    started: Instant,
    up: Mutex<Wire>,
    down: Mutex<Wire>,
    /// Whether streams flow.
    flows: watch::Sender<bool>,
    /// Grows with each change of address.
    address: watch::Sender<u64>,
}

impl Link {
    /// A link to `upstream` that does nothing yet. `seed` decides which packets will be lost.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let (udp, tcp, address) = bind_both().await;
        let state = Arc::new(State {
            upstream,
            started: Instant::now(),
            up: Mutex::new(Wire::new(seed)),
            down: Mutex::new(Wire::new(!seed)),
            flows: watch::Sender::new(true),
            address: watch::Sender::new(0),
        });
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(udp::relay(udp, state.clone()))),
            AbortOnDropHandle::new(tokio::spawn(tcp::relay(tcp, state.clone()))),
        ];
        Self { address, state, _tasks: tasks }
    }

    /// Both ways, from now on.
    pub fn shape(&self, shape: Shape) {
        Direction::BOTH.into_iter().for_each(|direction| self.shape_one(direction, shape));
    }

    /// One way, from now on.
    pub fn shape_one(&self, direction: Direction, shape: Shape) {
        self.state.wire(direction).shape = shape;
    }

    /// Lets nothing of it through, either way. TCP connections stall.
    pub fn block(&self, blocked: Blocked) {
        Direction::BOTH.into_iter().for_each(|direction| self.state.wire(direction).blocked = blocked);
        self.flow();
    }

    /// Pulls the cable: packets vanish, TCP connections stall.
    pub fn cut(&self) {
        self.plug(false);
    }

    /// Puts it back.
    pub fn restore(&self) {
        self.plug(true);
    }

    fn plug(&self, plugged: bool) {
        Direction::BOTH.into_iter().for_each(|direction| self.state.wire(direction).down = !plugged);
        self.flow();
    }

    /// Tells TCP connections whether they stall.
    fn flow(&self) {
        let wire = self.state.wire(Direction::Up);
        self.state.flows.send_replace(!wire.down && !wire.blocked.tcp);
    }

    /// Gives every flow a new source address, as a NAT does that lost its table: UDP goes on from there, TCP connections
    /// are reset.
    pub fn readdress(&self) {
        self.state.address.send_modify(|generation| *generation += 1);
    }
}

impl State {
    fn wire(&self, direction: Direction) -> MutexGuard<'_, Wire> {
        let wire = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn moment(&self, at: Duration) -> Instant {
        self.started + at
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
