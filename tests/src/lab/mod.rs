//! The lab: a link between this machine and a network namespace of its own, so that whole programs feel it, peers' TCP
//! included. A TUN device on each end, and between them a thread that delays, slows, loses, reorders, doubles and blocks
//! packets as [`Wire`] says, behind a router that translates addresses. Agents run in the namespace, the master beside the
//! test. IPv4 only: the lab hands out its addresses itself. Owns the namespace, the devices and the thread: all are gone
//! when the lab is dropped, and what a killed test left is removed by the next.

mod ferry;
pub mod gaps;
mod nat;
mod packet;
mod path;
pub mod probe;
mod side;
mod slot;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{ferry::Ferry, nat::Nat, path::Path, slot::Slot};
pub use self::{nat::Lost, path::Seen, side::Side};
use crate::link::{Blocked, Direction, Shape, wire::Wire};

/// Set to 1 where tests that need the lab shall be skipped instead of failing.
pub const SKIP: &str = "LANDLINE_SKIP_LAB";

/// Addresses of a lab's sixteen that are the master's and the agent's first.
const MASTER: u32 = 1;
const AGENT: u32 = 2;
/// The agent's own addresses lie below, those of its router from here on.
const ROUTER: u32 = 8;
const ADDRESSES: u32 = 15;

/// The link and its two ends.
#[derive(Debug)]
pub struct Lab {
    // Dropped from the top: first who reads the devices, then the namespace, then the claim to its name.
    _ferry: Ferry,
    _namespace: Namespace,
    path: Arc<Mutex<Path>>,
    agent: Side,
    master: Side,
    agent_address: Mutex<u32>,
    router_address: Mutex<u32>,
    slot: Slot,
}

/// Removes it when dropped, whatever the test came to.
#[derive(Debug)]
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = side::try_ip(None, &format!("netns delete {}", self.0)) {
            eprintln!("the namespace {} is left for the next lab to remove: {error}", self.0);
        }
    }
}

impl Lab {
    /// A link that does nothing yet but to translate the agent's address. `seed` decides every packet's fate. `None` where
    /// [`SKIP`] says so; panics with what is missing where namespaces are not allowed.
    pub fn start(seed: u64) -> Option<Self> {
        if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
            eprintln!("skipped: {SKIP}=1 says that there is no lab here");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            side::fail("this process", &std::io::Error::other("is not root's"));
        }
        Some(Self::build(seed))
    }

    fn build(seed: u64) -> Self {
        let slot = Slot::take();
        let namespace = Namespace(slot.namespace());
        side::ip(None, &format!("netns add {}", namespace.0));
        let agent = Side { address: slot.address(AGENT), namespace: Some(namespace.0.clone()) };
        let master = Side { address: slot.address(MASTER), namespace: None };
        let device = slot.device();
        let ends = [agent.device("wan"), master.device(&device)];
        let net = slot.address(0);
        // The agent reaches the master whatever its own address is; the master reaches all that the router may have.
        agent.ip(&format!(
            "link set lo up\naddr add {}/32 dev wan\nlink set wan up\nroute add {net}/28 dev wan\n",
            agent.address
        ));
        master.ip(&format!("addr add {}/28 dev {device}\nlink set {device} up\n", master.address));
        let nat = Some(Nat::new(slot.address(ROUTER)));
        let path = Path { up: Wire::new(seed), down: Wire::new(!seed), nat, seen: Seen::default() };
        let path = Arc::new(Mutex::new(path));
        Self {
            _ferry: Ferry::start(ends, path.clone()),
            _namespace: namespace,
            path,
            agent,
            master,
            agent_address: Mutex::new(AGENT),
            router_address: Mutex::new(ROUTER),
            slot,
        }
    }

    /// The end in the namespace.
    pub fn agent_side(&self) -> &Side {
        &self.agent
    }

    /// The end on this machine.
    pub fn master_side(&self) -> &Side {
        &self.master
    }

    /// Both ways, from now on.
    pub fn shape(&self, shape: Shape) {
        Direction::BOTH.into_iter().for_each(|direction| self.shape_one(direction, shape));
    }

    /// One way, from now on.
    pub fn shape_one(&self, direction: Direction, shape: Shape) {
        self.path().wire(direction).shape = shape;
    }

    /// Pulls the cable. What is on the way still arrives.
    pub fn down(&self) {
        self.each(|wire| wire.down = true);
    }

    /// Puts it back.
    pub fn up(&self) {
        self.each(|wire| wire.down = false);
    }

    /// Lets nothing of it through, either way.
    pub fn block(&self, blocked: Blocked) {
        self.each(|wire| wire.blocked = blocked);
    }

    /// The router forgets its mappings: every flow has another source port from now on.
    pub fn rebind(&self) {
        if let Some(nat) = &mut self.path().nat {
            nat.flush();
        }
    }

    /// The router has another address, and every flow another source port.
    pub fn readdress(&self) -> Ipv4Addr {
        let address = self.slot.address(next(&self.router_address, ROUTER, ADDRESSES));
        if let Some(nat) = &mut self.path().nat {
            nat.readdress(address);
        }
        address
    }

    /// What the router does with TCP connections whose mapping is gone; [`Lost::Reset`] when the lab starts.
    pub fn lost(&self, lost: Lost) {
        if let Some(nat) = &mut self.path().nat {
            nat.lost = lost;
        }
    }

    /// Takes the router away: each end sees the other's address, and may connect to it.
    pub fn without_nat(&self) {
        self.path().nat = None;
    }

    /// The agent's machine gets another address and loses the one it had, as in another network.
    pub fn move_agent(&self) -> Ipv4Addr {
        let former = *self.agent_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = self.slot.address(next(&self.agent_address, AGENT, ROUTER));
        let former = self.slot.address(former);
        self.agent.ip(&format!("addr add {address}/32 dev wan\naddr del {former}/32 dev wan\n"));
        address
    }

    /// What went over the link so far, and what did not.
    pub fn seen(&self) -> Seen {
        self.path().seen.clone()
    }

    fn each(&self, mut change: impl FnMut(&mut Wire)) {
        let mut path = self.path();
        Direction::BOTH.into_iter().for_each(|direction| change(path.wire(direction)));
    }

    fn path(&self) -> MutexGuard<'_, Path> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next of the addresses from `first` to the one before `end`, round and round.
fn next(current: &Mutex<u32>, first: u32, end: u32) -> u32 {
    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
    *current = if *current + 1 == end { first } else { *current + 1 };
    *current
}
