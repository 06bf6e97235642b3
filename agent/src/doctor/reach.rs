//! The way to the master: its name, QUIC on UDP, the same inside a WebSocket on TCP, what the path carries, the proxy, and
//! the time that the master tells.

use std::{net::SocketAddr, time::Duration};

use certs::join::Pin;
use jiff::Timestamp;
use proto::{
    check::Check,
    net::carrier::{DialError, Dialer},
};
use tokio::{net::lookup_host, task::JoinSet};

use super::{
    clock,
    probe::{self, FULL_MTU, ProbeError, QuicSeen},
};
use crate::{
    app,
    config::{Config, address::MasterAddress, carrier::Wanted},
    link::{chain, connect::ConnectError, member::MADE_ON_MS, websocket::WebSocketError},
    state::{read_enrolment, read_master_ms},
};

const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 4;

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let stored_ms = read_master_ms(&config.state_dir);
    let enrolment = read_enrolment(&config.state_dir).ok().flatten();
    let master = config.join.master.clone().or_else(|| enrolment.as_ref().map(|known| known.master.clone()));
    let pin = config.join.pin.or_else(|| enrolment.map(|known| known.pin));
    let (Some(master), Some(pin)) = (master, pin) else {
        // What is missing was told as the agent's identity.
        return vec![clock::examine(None, stored_ms)];
    };
    let at_least_ms = stored_ms.max(MADE_ON_MS);
    let roads = app::roads(config);
    let direct = async {
        match resolve(&master).await {
            Ok(addresses) => {
                let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
                let name = Check::ok("name", format!("{} is {}", master.host, shown.join(", ")));
                let udp = over_udp(roads.dialer(), &addresses, pin, at_least_ms);
                let (udp, date) = tokio::join!(udp, date(&addresses, &master));
                (name, udp, date)
            }
            Err(check) => (check, Vec::new(), None),
        }
    };
    let ((name, udp, date), inside) = tokio::join!(direct, probe::websocket(&roads, &master, &pin, at_least_ms));
    let (mut checks, udp_works) = (vec![name], udp.iter().any(|probed| probed.result.is_ok()));
    let mtu = udp.iter().filter_map(|probed| Some(probed.result.as_ref().ok()?.mtu)).max();
    let needed = config.carrier != Wanted::WebSocket && (config.carrier == Wanted::Udp || inside.is_err());
    checks.extend(udp.into_iter().map(|probed| probed.check(needed)));
    checks.extend(mtu.map(path));
    checks.push(proxy(config, &master, inside.as_ref().err()));
    let needed = config.carrier == Wanted::WebSocket || (config.carrier == Wanted::Auto && !udp_works);
    checks.push(over_tcp(&master, &inside, needed));
    checks.push(clock::examine(date, stored_ms));
    checks
}

async fn resolve(master: &MasterAddress) -> Result<Vec<SocketAddr>, Check> {
    let fix = "does this machine's resolver answer? Is the name in the join token right? `master` may name an address";
    let fail = |seen: String| Check::fail("name", format!("{}: {seen}", master.host), fix);
    let looking = lookup_host((master.host.as_str(), master.port));
    match tokio::time::timeout(RESOLVE_WITHIN, looking).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
            if found.is_empty() { Err(fail("it has no address".into())) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("no answer within {RESOLVE_WITHIN:?}"))),
    }
}

/// One address of the master, and what became of QUIC with it.
struct Probed {
    address: SocketAddr,
    result: Result<QuicSeen, ProbeError>,
}

async fn over_udp(dialer: &Dialer, addresses: &[SocketAddr], pin: Pin, at_least_ms: i64) -> Vec<Probed> {
    let mut probes = JoinSet::new();
    for address in addresses.iter().copied() {
        let dialer = dialer.clone();
        probes.spawn(async move { Probed { address, result: probe::udp(&dialer, address, &pin, at_least_ms).await } });
    }
    probes.join_all().await
}

impl Probed {
    /// `needed` where no WebSocket takes its place.
    fn check(self, needed: bool) -> Check {
        let (address, name) = (self.address, format!("udp/{}", self.address.port()));
        let error = match self.result {
            Ok(QuicSeen { rtt, .. }) => {
                return Check::ok(name, format!("QUIC with {address} in {}, the pinned master", shown(rtt)));
            }
            Err(error) => error,
        };
        let (seen, fix) = (chain(&error), no_quic(&error, address.port()));
        if needed { Check::fail(name, seen, fix) } else { Check::warn(name, seen, fix) }
    }
}

fn no_quic(error: &ProbeError, port: u16) -> String {
    let dial = match error {
        ProbeError::Dial(error) => Some(error),
        ProbeError::Connect(error) => error.dial(),
        ProbeError::Tls(_) | ProbeError::Tcp { .. } | ProbeError::Handshake { .. } | ProbeError::Internal => None,
    };
    match dial {
        Some(DialError::Connect { source: quinn::ConnectionError::TransportError(_), .. }) => {
            "this is not the pinned master: compare master_pin with what `landline agents resecret` prints, and the \
             address with where the master is"
                .to_owned()
        }
        Some(DialError::Silent { .. }) => format!(
            "is the master up? If tcp/{port} answers, a firewall on the way stops udp/{port}: open it, outward here and \
             inward there"
        ),
        _ => "the network of this machine: has it a route, and may it send?".to_owned(),
    }
}

fn path(mtu: u16) -> Check {
    let seen = format!("packets of {mtu} bytes pass");
    if mtu >= FULL_MTU {
        return Check::ok("mtu", seen);
    }
    let fix = "none needed: a tunnel or PPPoE on the way makes it smaller, and costs up to a quarter of the rate";
    Check::warn("mtu", format!("{seen}, {FULL_MTU} are wanted"), fix)
}

fn over_tcp(master: &MasterAddress, inside: &Result<QuicSeen, ProbeError>, needed: bool) -> Check {
    let name = format!("tcp/{}", master.port);
    let error = match inside {
        Ok(QuicSeen { rtt, .. }) => {
            return Check::ok(name, format!("QUIC inside a WebSocket in {}, the pinned master", shown(*rtt)));
        }
        Err(error) => error,
    };
    let fix = match error {
        ProbeError::Connect(ConnectError::WebSocket(WebSocketError::Tcp { .. })) => {
            format!("is the master up? Open tcp/{} on the way, outward here and inward there", master.port)
        }
        ProbeError::Connect(ConnectError::WebSocket(
            WebSocketError::Proxy { .. } | WebSocketError::ProxyTooSlow { .. },
        )) => "see proxy".to_owned(),
        ProbeError::Connect(ConnectError::WebSocket(
            WebSocketError::Tls { .. } | WebSocketError::Handshake { .. } | WebSocketError::TooSlow { .. },
        )) => "what answers there is no master, or a proxy in front of it that passes no WebSockets on".to_owned(),
        _ => no_quic(error, master.port),
    };
    let seen = chain(error);
    if needed { Check::fail(name, seen, fix) } else { Check::warn(name, format!("{seen}; UDP does without"), fix) }
}

/// What is configured, and whether it let the WebSocket through.
fn proxy(config: &Config, master: &MasterAddress, inside: Option<&ProbeError>) -> Check {
    const NAME: &str = "proxy";
    let Some(proxy) = config.proxy.as_ref().and_then(|proxy| proxy.for_master(master)) else {
        return Check::ok(NAME, "none is set for this master");
    };
    // Without name and password, which stand apart.
    let named = proxy.uri().to_string();
    match inside {
        Some(
            error @ ProbeError::Connect(ConnectError::WebSocket(
                WebSocketError::Proxy { .. } | WebSocketError::ProxyTooSlow { .. },
            )),
        ) => {
            let fix = "correct or remove HTTPS_PROXY (`https_proxy`), name the master in NO_PROXY, or let the proxy connect to it";
            Check::warn(NAME, chain(error), fix)
        }
        Some(_) | None => Check::ok(NAME, format!("{named} connects to the master")),
    }
}

/// The first time that any address tells over HTTPS.
async fn date(addresses: &[SocketAddr], master: &MasterAddress) -> Option<Timestamp> {
    let mut probes = JoinSet::new();
    for address in addresses.iter().copied() {
        probes.spawn(probe::tcp_tls(address, master.host.clone()));
    }
    while let Some(probed) = probes.join_next().await {
        if let Ok(Ok(probe::TlsSeen { date: Some(date), .. })) = probed {
            return Some(date);
        }
    }
    None
}

fn shown(rtt: Duration) -> String {
    format!("{:.1} ms", rtt.as_secs_f64() * 1000.0)
}
