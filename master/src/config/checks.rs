//! What must hold between keys.

use std::net::SocketAddr;

use super::{Config, reader::Reader};

/// Adds a mistake for each relation that does not hold.
pub(super) fn check(config: &Config, reader: &mut Reader) {
    check_ports(config, reader);
    let tunnel = &config.tunnel;
    if tunnel.ttl > tunnel.ttl_max {
        reader.error("tunnel.ttl_s", "is longer than tunnel.ttl_max_s");
    }
    for (key, listen) in [("internal.listen", config.internal.listen), ("metrics.listen", config.metrics.listen)] {
        if !listen.ip().is_loopback() {
            reader.error(key, format!("{listen} is not a loopback address; this socket is never public"));
        }
    }
    if config.public.key_file.is_some() && config.public.cert_file.is_none() {
        reader.error("public.key_file", "is of no use without public.cert_file");
    }
    check_gateway(config, reader);
    if let Some(address) = &config.public.address
        && let Err(message) = check_address(address)
    {
        reader.error("public.address", message);
    }
}

/// A tunnel must never take, nor wait for, a port of the master itself. Port 0 is chosen by the system, outside.
fn check_ports(config: &Config, reader: &mut Reader) {
    let tcp = config.public.tcp_listen.map(|listen| ("public.tcp_listen", listen));
    let ours: [(&str, SocketAddr); 3] = [
        ("public.listen", config.public.listen),
        ("internal.listen", config.internal.listen),
        ("metrics.listen", config.metrics.listen),
    ];
    for (key, listen) in ours.into_iter().chain(tcp) {
        if config.tunnel.port_range.contains(&listen.port()) {
            reader.error("tunnel.port_range", format!("holds port {} of {key}", listen.port()));
        }
    }
    if config.internal.listen == config.metrics.listen && config.metrics.listen.port() != 0 {
        reader.error("metrics.listen", "is the same as internal.listen");
    }
}

/// Pages of machines must share no site with pages of ours: they could set cookies for them, and would count as their own.
fn check_gateway(config: &Config, reader: &mut Reader) {
    const KEY: &str = "gateway.domain";
    let domain = &config.gateway.domain;
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(plain)
    };
    if domain.len() > 200 || !domain.contains('.') || !domain.split('.').all(label) {
        reader.error(KEY, format!("{domain:?} is not a domain name of two or more labels"));
    } else if domain.parse::<std::net::IpAddr>().is_ok() {
        reader.error(KEY, "is an address; it must be a name, with one name below it per tunnel");
    }
    let dashboard = config.dashboard.host.as_ref();
    if let Some(host) = dashboard
        && (host.is_empty() || !host.split('.').all(label))
    {
        reader.error("dashboard.host", format!("{host:?} is not a host name; it has no scheme and no port"));
    }
    for host in config.internal.hosts.iter().chain(dashboard) {
        if same_site(domain, host) {
            reader.error(KEY, format!("shares a site with {host}, where the API is served; choose another domain"));
        }
    }
}

/// Whether browsers count both names as one site: the same registrable domain, by the public suffix list.
pub(super) fn same_site(one: &str, other: &str) -> bool {
    let site = |name: &str| {
        let name = name.to_ascii_lowercase();
        let site = psl::domain_str(&name).unwrap_or(&name);
        site.to_owned()
    };
    site(one) == site(other)
}

/// `name:port`, `192.0.2.1:443` or `[2001:db8::1]:443`.
fn check_address(address: &str) -> Result<(), String> {
    let wrong = || Err(format!("{address:?} is not name:port"));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong() };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let good = !host.is_empty() && host.chars().all(plain) && (bracketed || !host.contains(':'));
    if good && port.parse::<u16>().is_ok_and(|port| port != 0) { Ok(()) } else { wrong() }
}
