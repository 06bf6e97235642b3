//! The demo's ports: the usual ones where they are free, others where not.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::Context as _;

const PUBLIC: u16 = 7443;
const INTERNAL: u16 = 7800;
const METRICS: u16 = 7801;
const TRIES: u32 = 50;

#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// Free on udp and on tcp.
    pub(super) public: u16,
    pub(super) internal: u16,
    pub(super) metrics: u16,
}

impl Ports {
    pub(super) fn choose() -> anyhow::Result<Self> {
        let mut taken = Vec::new();
        let public = choose(PUBLIC, &mut taken)?;
        let internal = choose(INTERNAL, &mut taken)?;
        let metrics = choose(METRICS, &mut taken)?;
        Ok(Self { public, internal, metrics })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal)
    }

    pub(super) fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics)
    }
}

/// `wanted`, or one the system has free, on both protocols. What is chosen stays bound in `taken` until all are.
fn choose(wanted: u16, taken: &mut Vec<(TcpListener, UdpSocket)>) -> anyhow::Result<u16> {
    for port in std::iter::once(wanted).chain(std::iter::repeat_n(0, TRIES as usize)) {
        let Ok(tcp) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        let port = tcp.local_addr()?.port();
        // The range of tunnels belongs to tunnels.
        if (8000..=8999).contains(&port) {
            continue;
        }
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            taken.push((tcp, udp));
            return Ok(port);
        }
    }
    None.context("no free port was found on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_replaced() {
        let occupied = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = occupied.local_addr().unwrap().port();
        let mut taken = Vec::new();
        let chosen = choose(port, &mut taken).unwrap();
        assert_ne!(chosen, port);
        assert_ne!(choose(chosen, &mut taken).unwrap(), chosen);
    }
}
