//! The master's ports: held by a master that answers, or free for one that will start.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use proto::check::Check;

use super::super::client::probe;
use crate::config::Config;

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let internal = config.internal.listen;
    let answer = probe(&format!("http://{internal}")).await;
    let taken = TcpListener::bind(internal).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    if answer.is_ok() {
        return vec![Check::ok("master", format!("runs and is ready on {internal}")), held(config)];
    }
    if taken {
        let why = answer.err().map(|error| error.to_string()).unwrap_or_default();
        let fix =
            format!("is it a master? Its log says why it is not ready; else `ss -lptn 'sport = :{}'`", internal.port());
        return vec![Check::fail("master", format!("something holds {internal}, and is not ready: {why}"), fix)];
    }
    let mut checks = vec![Check::warn("master", "it does not run", "none, if that is meant: landline serve")];
    checks.extend(free(config));
    checks
}

/// A running master holds its public ports, or it would have ended.
fn held(config: &Config) -> Check {
    let udp = config.public.listen;
    match UdpSocket::bind(udp) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Check::ok("ports", format!("udp {udp} is held by it"))
        }
        Err(error) => Check::ok("ports", format!("udp {udp} cannot be looked at by this user: {error}")),
        Ok(_) => {
            let fix = "it was started with another configuration: compare public.listen, or restart it";
            Check::fail("ports", format!("the master answers, but nobody holds udp {udp}"), fix)
        }
    }
}

/// The first thing that stands in the way of each port. What is bound here is let go at once.
fn free(config: &Config) -> Vec<Check> {
    let tcp = config.public.tcp_listen.unwrap_or(config.public.listen);
    let mut checks = vec![
        of_port("udp", config.public.listen, UdpSocket::bind(config.public.listen).map(drop)),
        of_port("tcp", tcp, TcpListener::bind(tcp).map(drop)),
        of_port("tcp", config.internal.listen, TcpListener::bind(config.internal.listen).map(drop)),
        of_port("tcp", config.metrics.listen, TcpListener::bind(config.metrics.listen).map(drop)),
    ];
    let range = config.tunnel.port_range.clone();
    let all = range.len();
    let taken = range.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()).count();
    let seen = format!("{} of {all} ports for tunnels are free", all - taken);
    checks.push(if taken == all {
        Check::fail("tunnel ports", seen, "set tunnel.port_range to ports that nobody has")
    } else if taken * 2 > all {
        Check::warn("tunnel ports", seen, "set tunnel.port_range to ports that nobody has")
    } else {
        Check::ok("tunnel ports", seen)
    });
    checks
}

fn of_port(kind: &str, address: SocketAddr, bound: io::Result<()>) -> Check {
    let name = format!("{kind}/{}", address.port());
    let Err(error) = bound else { return Check::ok(name, format!("{address} is free")) };
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let flag = if kind == "udp" { "u" } else { "t" };
            format!("end what has it, or choose another port: ss -lp{flag}n 'sport = :{}'", address.port())
        }
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 takes CAP_NET_BIND_SERVICE: the unit in deploy/systemd has it; run this as root to look"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this host has no such address: correct the listen key".to_owned(),
        _ => "the listen key, or the network of this host".to_owned(),
    };
    Check::fail(name, format!("{address}: {error}"), fix)
}
