//! Address translation as a home router does it, pure: which outside address and port a flow from inside has, and who
//! inside is meant by an answer. A flow keeps its mapping whoever it talks to; nobody outside reaches what has none.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use super::packet::Flow;
use crate::link::Protocol;

/// Outside ports that are given out, in turn.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=59_999;

/// What becomes of a TCP connection whose mapping is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Its next segment gets a new mapping, as Linux does: the other end knows no such connection and resets it.
    Reset,
    /// Its segments are dropped without a word: it hangs until its own timers end it.
    Silent,
}

type Mapped = (Protocol, SocketAddrV4);

#[derive(Debug)]
pub(super) struct Nat {
    outside: Ipv4Addr,
    next_port: u16,
    pub(super) lost: Lost,
    out: HashMap<Mapped, SocketAddrV4>,
    back: HashMap<Mapped, SocketAddrV4>,
}

impl Nat {
    /// A router with this address outside and no mapping yet.
    pub(super) fn new(outside: Ipv4Addr) -> Self {
        let (out, back) = (HashMap::new(), HashMap::new());
        Self { outside, next_port: *PORTS.start(), lost: Lost::Reset, out, back }
    }

    /// Where a packet from inside comes from, seen from outside; `None` where it is dropped.
    pub(super) fn out(&mut self, flow: &Flow) -> Option<SocketAddrV4> {
        let inside = (flow.protocol, flow.from);
        if let Some(outside) = self.out.get(&inside) {
            return Some(*outside);
        }
        if flow.protocol == Protocol::Tcp && !flow.opens && self.lost == Lost::Silent {
            return None;
        }
        let outside = SocketAddrV4::new(self.outside, if flow.from.port() == 0 { 0 } else { self.port() });
        // Once round: the oldest flow loses its port.
        if let Some(former) = self.back.insert((flow.protocol, outside), flow.from) {
            self.out.remove(&(flow.protocol, former));
        }
        self.out.insert(inside, outside);
        Some(outside)
    }

    /// Who inside a packet from outside is for.
    pub(super) fn back(&self, flow: &Flow) -> Option<SocketAddrV4> {
        self.back.get(&(flow.protocol, flow.to)).copied()
    }

    /// Forgets every mapping, as after a restart. What goes out next gets new ports.
    pub(super) fn flush(&mut self) {
        self.out.clear();
        self.back.clear();
    }

    /// Takes another address outside, and forgets every mapping.
    pub(super) fn readdress(&mut self, outside: Ipv4Addr) {
        self.outside = outside;
        self.flush();
    }

    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
        port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 4);

    fn flow(protocol: Protocol, from: &str, to: &str, opens: bool) -> Flow {
        Flow { protocol, from: from.parse().unwrap(), to: to.parse().unwrap(), opens }
    }

    fn udp() -> Flow {
        flow(Protocol::Udp, "198.18.0.2:5000", "198.18.0.1:443", false)
    }

    fn answer(to: SocketAddrV4) -> Flow {
        Flow { to, ..flow(Protocol::Udp, "198.18.0.1:443", "0.0.0.0:0", false) }
    }

    #[test]
    fn a_flow_keeps_its_mapping_until_it_is_flushed() {
        let mut nat = Nat::new(OUTSIDE);
        let first = nat.out(&udp()).unwrap();
        assert_eq!((*first.ip(), nat.out(&udp())), (OUTSIDE, Some(first)));
        assert_eq!(nat.back(&answer(first)), Some(udp().from));
        nat.flush();
        assert_eq!(nat.back(&answer(first)), None, "nobody has that port");
        let second = nat.out(&udp()).unwrap();
        assert_eq!(second.ip(), first.ip());
        assert_ne!(second.port(), first.port());
        nat.readdress(Ipv4Addr::new(198, 18, 0, 5));
        assert_eq!(*nat.out(&udp()).unwrap().ip(), Ipv4Addr::new(198, 18, 0, 5));
    }

    #[test]
    fn nobody_outside_reaches_what_has_no_mapping() {
        let mut nat = Nat::new(OUTSIDE);
        let outside = nat.out(&udp()).unwrap();
        assert_eq!(nat.back(&answer(SocketAddrV4::new(OUTSIDE, 1))), None);
        assert_eq!(nat.back(&Flow { protocol: Protocol::Tcp, ..answer(outside) }), None, "another protocol's port");
    }

    #[test]
    fn a_connection_without_a_mapping_gets_another_one_or_is_dropped() {
        let mut nat = Nat::new(OUTSIDE);
        let (syn, data) = (
            flow(Protocol::Tcp, "198.18.0.2:5000", "198.18.0.1:443", true),
            flow(Protocol::Tcp, "198.18.0.2:5000", "198.18.0.1:443", false),
        );
        let first = nat.out(&syn).unwrap();
        assert_eq!(nat.out(&data), Some(first));
        nat.flush();
        assert_ne!(nat.out(&data), Some(first));
        nat.flush();
        nat.lost = Lost::Silent;
        assert_eq!(nat.out(&data), None);
        assert!(nat.out(&syn).is_some());
    }

    #[test]
    fn ports_go_round_and_the_oldest_flow_loses_its_own() {
        let mut nat = Nat::new(OUTSIDE);
        let first = nat.out(&udp()).unwrap();
        for number in 0..u32::from(PORTS.end() - PORTS.start()) {
            let from = SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + number), 9);
            nat.out(&Flow { from, ..udp() }).unwrap();
        }
        assert_eq!(nat.back(&answer(first)), Some(udp().from));
        nat.out(&Flow { from: "10.9.9.9:9".parse().unwrap(), ..udp() }).unwrap();
        assert_eq!(nat.back(&answer(first)), Some("10.9.9.9:9".parse().unwrap()));
        assert_ne!(nat.out(&udp()), Some(first));
        assert_eq!(nat.out.len(), nat.back.len());
    }
}
