//! What is under a line: the address this machine reaches its master from, the way out, and whether it slept. Tells whoever
//! keeps a line or waits for one. What to do about it is theirs to say.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Context, chain};
use crate::platform::NetworkChanges;

/// How often the clock is looked at, and the address where the kernel reports nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A change comes in several reports: a new address before the old one goes, a route after both.
const SETTLES_WITHIN: Duration = Duration::from_millis(100);
/// Between two changes that are told. What comes in between is told then.
const TOLD_EVERY: Duration = Duration::from_millis(500);
/// How much more than the monotonic clock, which stands still in sleep, the wall clock has to have moved.
const SLEPT_MIN: Duration = Duration::from_secs(3);

/// The latest change, in the owner's words.
pub(super) type Announcer = watch::Sender<String>;

/// Watches until dropped.
pub async fn watch(context: Arc<Context>) {
    let changes = NetworkChanges::listen();
    let changes = changes.inspect_err(|error| {
        tracing::info!(error = chain(error), "changes of the network are found by looking: the kernel reports none");
    });
    let changes = changes.ok();
    let mut known = Known { way: context.roads.way(), wall: SystemTime::now(), monotonic: Instant::now() };
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let way_out = tokio::select! {
            () = reported(changes.as_ref()) => {
                sleep(SETTLES_WITHIN).await;
                changes.as_ref().is_some_and(NetworkChanges::take)
            }
            _ = look.tick() => false,
        };
        if let Some(what) = known.look(context.roads.way(), way_out, SystemTime::now(), Instant::now()) {
            tracing::info!(what, "the network may be another one");
            context.surroundings.send_replace(what);
            sleep(TOLD_EVERY).await;
        }
    }
}

async fn reported(changes: Option<&NetworkChanges>) {
    match changes {
        Some(changes) if changes.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// How packets leave this machine for its master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    to: SocketAddr,
    /// Their own address; `None` where nothing leads there.
    from: Option<IpAddr>,
}

impl Way {
    /// Sends nothing: the kernel is asked what it would do.
    pub(super) fn to(master: SocketAddr) -> Self {
        let any: IpAddr = if master.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = || {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(master)?;
            io::Result::Ok(socket.local_addr()?.ip())
        };
        Self { to: master, from: from().ok() }
    }
}

/// As it was at the last look. Pure.
#[derive(Debug)]
struct Known {
    way: Way,
    wall: SystemTime,
    monotonic: Instant,
}

impl Known {
    /// What changed since, in the owner's words. While nothing leads to the master nothing is told: nothing would help.
    fn look(&mut self, way: Way, way_out: bool, wall: SystemTime, monotonic: Instant) -> Option<String> {
        let before = std::mem::replace(self, Self { way, wall, monotonic });
        let by_wall = wall.duration_since(before.wall).unwrap_or_default();
        let slept = by_wall.saturating_sub(monotonic.saturating_duration_since(before.monotonic));
        let now = way.from?;
        // A master at another address is no change under the line.
        match before.way.from.filter(|_| before.way.to == way.to) {
            Some(then) if then != now => Some(format!("this machine's address is {now}, it was {then}")),
            None if before.way.to == way.to => Some(format!("there is a way to the master again, from {now}")),
            _ if slept >= SLEPT_MIN => {
                Some(format!("this machine slept for {} s, or its clock was set", slept.as_secs()))
            }
            Some(_) if way_out => Some("the default route is another one".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn from(address: &str) -> Way {
        Way { to: ([192, 0, 2, 1], 443).into(), from: Some(address.parse().unwrap()) }
    }

    #[test]
    fn what_changed_is_told_once_and_only_where_something_can_be_done() {
        let (wall, start) = (SystemTime::now(), Instant::now());
        let mut known = Known { way: from("10.0.0.1"), wall, monotonic: start };
        let mut look = |way, way_out, second| known.look(way, way_out, wall + SECOND * second, start + SECOND * second);
        assert_eq!(look(from("10.0.0.1"), false, 1), None);
        assert_eq!(look(from("10.0.0.2"), true, 2).unwrap(), "this machine's address is 10.0.0.2, it was 10.0.0.1");
        assert_eq!(look(from("10.0.0.2"), false, 3), None);
        assert_eq!(look(Way { from: None, ..from("10.0.0.2") }, true, 4), None, "no way out");
        assert_eq!(look(from("10.0.0.2"), true, 5).unwrap(), "there is a way to the master again, from 10.0.0.2");
        assert_eq!(look(from("10.0.0.2"), true, 6).unwrap(), "the default route is another one");
        let elsewhere = Way { to: ([127, 0, 0, 1], 443).into(), ..from("127.0.0.1") };
        assert_eq!(look(elsewhere, false, 7), None, "the first line came up, or one to another address of the master");
    }

    #[test]
    fn sleep_is_what_the_monotonic_clock_missed() {
        let (wall, start) = (SystemTime::now(), Instant::now());
        let mut known = Known { way: from("10.0.0.1"), wall, monotonic: start };
        let mut look =
            |by_wall, by_other| known.look(from("10.0.0.1"), false, wall + SECOND * by_wall, start + SECOND * by_other);
        assert_eq!(look(60, 60), None, "a busy machine looks late");
        assert_eq!(look(62, 61), None);
        assert_eq!(look(3_663, 62).unwrap(), "this machine slept for 3600 s, or its clock was set");
        assert_eq!(look(3_664, 63), None);
        assert_eq!(look(60, 64), None, "a clock that was put back is no sleep");
        assert_eq!(look(61, 65), None);
    }

    #[test]
    fn the_way_is_found_without_sending_anything() {
        assert_eq!(Way::to(([127, 0, 0, 1], 9).into()).from, Some([127, 0, 0, 1].into()));
    }
}
