//! What lies between the two ends, pure but for its counters: one wire each way, and the router that the agent is behind.

use std::{collections::BTreeMap, net::SocketAddrV4, time::Duration};

use super::{
    nat::Nat,
    packet::{End, Flow, read, rewrite},
};
use crate::link::{
    Direction,
    wire::{Fate, Why, Wire},
};

/// What went over the link, packets each way, and what did not and why. For a test's report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub up: u64,
    pub down: u64,
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
pub(super) struct Path {
    pub(super) up: Wire,
    pub(super) down: Wire,
    /// `None` where the agent's addresses are seen as they are.
    pub(super) nat: Option<Nat>,
    pub(super) seen: Seen,
}

impl Path {
    pub(super) fn wire(&mut self, direction: Direction) -> &mut Wire {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Rewrites a packet as the router would, and says when it arrives and how often; `None` where it does not.
    pub(super) fn packet(&mut self, direction: Direction, now: Duration, packet: &mut [u8]) -> Option<(Duration, u8)> {
        let flow = read(packet)?;
        // Nobody outside sees a packet that the router did not let through.
        let Ok(address) = self.translate(direction, &flow) else {
            self.drop_for("no mapping");
            return None;
        };
        let fate = self.wire(direction).packet(now, packet.len(), flow.protocol);
        let arrives = match fate {
            Fate::Arrives(at) => (at, 1),
            Fate::Twice(at) => (at, 2),
            Fate::Dropped(why) => {
                self.drop_for(name(why));
                return None;
            }
        };
        match (address, direction) {
            (Some(address), Direction::Up) => rewrite(packet, End::From, address)?,
            (Some(address), Direction::Down) => rewrite(packet, End::To, address)?,
            (None, _) => {}
        }
        match direction {
            Direction::Up => self.seen.up += 1,
            Direction::Down => self.seen.down += 1,
        }
        Some(arrives)
    }

    /// The address that the router puts in; `Err` where it has none to put.
    fn translate(&mut self, direction: Direction, flow: &Flow) -> Result<Option<SocketAddrV4>, ()> {
        let Some(nat) = &mut self.nat else { return Ok(None) };
        let address = match direction {
            Direction::Up => nat.out(flow),
            Direction::Down => nat.back(flow),
        };
        address.map(Some).ok_or(())
    }

    fn drop_for(&mut self, reason: &'static str) {
        *self.seen.dropped.entry(reason).or_default() += 1;
    }
}

fn name(why: Why) -> &'static str {
    match why {
        Why::Down => "down",
        Why::Blocked => "blocked",
        Why::Queue => "queue",
        Why::Loss => "loss",
    }
}
