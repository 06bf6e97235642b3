//! Headers of IPv4 packets, read and rewritten with right checksums. IPv4 is enough here: the lab hands out its addresses
//! itself. No state, no decision.

use std::net::SocketAddrV4;

use etherparse::{Ipv4Header, TcpHeader, UdpHeader, ip_number};

use crate::link::Protocol;

/// What a packet says of itself. Ports are 0 where its protocol has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    /// It begins a TCP connection.
    pub(super) opens: bool,
}

/// Which of a packet's two addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    From,
    To,
}

/// `None` for what is no whole IPv4 packet: IPv6, and fragments, which nobody sends who finds the path's size out.
pub(super) fn read(packet: &[u8]) -> Option<Flow> {
    let (ip, rest) = Ipv4Header::from_slice(packet).ok()?;
    if ip.is_fragmenting_payload() {
        return None;
    }
    let (protocol, from, to, opens) = match ip.protocol {
        ip_number::TCP => {
            let (tcp, _) = TcpHeader::from_slice(rest).ok()?;
            (Protocol::Tcp, tcp.source_port, tcp.destination_port, tcp.syn && !tcp.ack)
        }
        ip_number::UDP => {
            let (udp, _) = UdpHeader::from_slice(rest).ok()?;
            (Protocol::Udp, udp.source_port, udp.destination_port, false)
        }
        _ => (Protocol::Other, 0, 0, false),
    };
    let (from, to) = (SocketAddrV4::new(ip.source.into(), from), SocketAddrV4::new(ip.destination.into(), to));
    Some(Flow { protocol, from, to, opens })
}

/// Puts another address in. `None`, and the packet as it was, where [`read`] would have said so.
pub(super) fn rewrite(packet: &mut [u8], end: End, address: SocketAddrV4) -> Option<()> {
    let (mut ip, rest) = Ipv4Header::from_slice(packet).ok()?;
    match end {
        End::From => ip.source = address.ip().octets(),
        End::To => ip.destination = address.ip().octets(),
    }
    ip.header_checksum = ip.calc_header_checksum();
    let transport = match ip.protocol {
        ip_number::TCP => {
            let (mut tcp, payload) = TcpHeader::from_slice(rest).ok()?;
            *port(&mut tcp.source_port, &mut tcp.destination_port, end) = address.port();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).ok()?;
            tcp.to_bytes().to_vec()
        }
        ip_number::UDP => {
            let (mut udp, payload) = UdpHeader::from_slice(rest).ok()?;
            *port(&mut udp.source_port, &mut udp.destination_port, end) = address.port();
            // Without a checksum it stays without one.
            if udp.checksum != 0 {
                udp.checksum = udp.calc_checksum_ipv4(&ip, payload).ok()?;
            }
            udp.to_bytes().to_vec()
        }
        // ICMP's checksum does not cover addresses.
        _ => Vec::new(),
    };
    let header = ip.to_bytes();
    packet.get_mut(..header.len())?.copy_from_slice(&header);
    packet.get_mut(header.len()..header.len() + transport.len())?.copy_from_slice(&transport);
    Some(())
}

fn port<'a>(from: &'a mut u16, to: &'a mut u16, end: End) -> &'a mut u16 {
    match end {
        End::From => from,
        End::To => to,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn built(tcp: bool, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64);
        let mut packet = Vec::new();
        if tcp {
            builder.tcp(from.port(), to.port(), 7, 9).syn().write(&mut packet, b"hello").unwrap();
        } else {
            builder.udp(from.port(), to.port()).write(&mut packet, b"hello").unwrap();
        }
        packet
    }

    /// A rewritten packet is byte for byte the one that its new sender or receiver would have had.
    #[test]
    fn a_rewritten_packet_is_as_if_sent_like_that() {
        let [a, b, c]: [SocketAddrV4; 3] =
            ["198.18.0.2:4000", "198.18.0.1:443", "198.18.0.5:20001"].map(|text| text.parse().unwrap());
        for tcp in [true, false] {
            let mut packet = built(tcp, a, b);
            let flow = read(&packet).unwrap();
            assert_eq!((flow.from, flow.to, flow.opens), (a, b, tcp));
            rewrite(&mut packet, End::From, c).unwrap();
            assert_eq!(packet, built(tcp, c, b));
            rewrite(&mut packet, End::To, a).unwrap();
            assert_eq!(packet, built(tcp, c, a));
        }
    }

    #[test]
    fn what_is_no_whole_ipv4_packet_is_nothing() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0x60; 60]), None, "IPv6");
        let mut fragment = built(false, "198.18.0.2:1".parse().unwrap(), "198.18.0.1:2".parse().unwrap());
        fragment[6] |= 0x20;
        assert_eq!(read(&fragment), None, "more fragments");
        assert_eq!(rewrite(&mut [0x45; 8], End::From, "198.18.0.2:1".parse().unwrap()), None);
    }
}
