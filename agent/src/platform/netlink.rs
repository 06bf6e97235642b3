//! What the kernel says when addresses and routes change: one socket of rtnetlink, listened to and never asked. A message
//! is a reason to look; what became of the network is found out by looking, so that no message has to be understood
//! but one: whether it is about the way out.

use std::{io, os::unix::net};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with},
};
use tokio::net::UnixDatagram;

/// Addresses and routes of both families (RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE).
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// `RTM_NEWROUTE` and `RTM_DELROUTE`.
const ROUTES: [u16; 2] = [24, 25];
/// The table that is asked where no rule says otherwise (`RT_TABLE_MAIN`).
const MAIN_TABLE: u8 = 254;
/// Messages longer than this are cut; their heads are all that is read.
const MESSAGE_MAX: usize = 4096;
/// Messages read at once. A router that learns thousands of routes takes no more of a processor than this.
const AT_ONCE_MAX: usize = 256;

/// Listens until dropped. What was not read is bounded by the kernel, which says so when it dropped some. Tokio has no
/// netlink socket; to be told that there is something, and to receive it, any datagram socket serves.
#[derive(Debug)]
pub struct NetworkChanges(UnixDatagram);

impl NetworkChanges {
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(UnixDatagram::from_std(net::UnixDatagram::from(socket))?))
    }

    /// Waits until something changed. Cancel-safe: nothing is read.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Takes what was reported, and says whether the way out (a default route) was in it.
    pub fn take(&self) -> bool {
        let (mut way_out, mut buffer) = (false, [0; MESSAGE_MAX]);
        for _ in 0..AT_ONCE_MAX {
            match self.0.try_recv(&mut buffer) {
                Ok(length) => way_out |= is_way_out(&buffer[..length]),
                // The kernel dropped some: what they said is not known.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
                Err(_) => break,
            }
        }
        way_out
    }
}

/// Whether a message says that a default route of the main table came or went. `struct nlmsghdr`, then `struct rtmsg`.
fn is_way_out(message: &[u8]) -> bool {
    let Some((head, route)) = message.split_at_checked(16) else { return false };
    let kind = u16::from_ne_bytes([head[4], head[5]]);
    // Family, length of the destination, then source, service and table.
    matches!(route, [_, 0, _, _, MAIN_TABLE, ..]) && ROUTES.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, route: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(route);
        bytes
    }

    #[test]
    fn only_default_routes_of_the_main_table_are_the_way_out() {
        let default = [2, 0, 0, 0, MAIN_TABLE, 0, 0, 1];
        assert!(is_way_out(&message(24, &default)) && is_way_out(&message(25, &default)));
        assert!(!is_way_out(&message(24, &[2, 24, 0, 0, MAIN_TABLE, 0, 0, 1])), "one network");
        assert!(!is_way_out(&message(24, &[2, 0, 0, 0, 100, 0, 0, 1])), "another table");
        assert!(!is_way_out(&message(20, &default)), "an address");
        for length in 0..24 {
            is_way_out(&message(24, &default)[..length]);
        }
    }

    #[tokio::test]
    async fn it_listens_and_takes_what_is_there() {
        let changes = NetworkChanges::listen().unwrap();
        changes.take();
    }
}
