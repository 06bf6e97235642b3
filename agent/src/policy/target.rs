//! Which targets a policy lets be dialled: patterns of `host:ports`, judged against the address that would really be
//! dialled.

use std::{net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

use super::{
    address::{self, Host},
    glob,
};

/// One line of `forward.targets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetPattern {
    text: String,
    host: HostPattern,
    ports: Vec<RangeInclusive<u16>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    /// 127.0.0.0/8 and ::1, however they are spelled.
    Localhost,
    /// Everything that is not special.
    Any,
    Network(IpNet),
    /// A name, with `*` for any run of characters. Never opens loopback.
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPattern {
    #[error("write host:port, host:80,443, host:8000-8100 or host:* ([v6]:port for IPv6)")]
    Shape,
    #[error("a port is 1 to 65535, a list 80,443, a range 8000-8100, or *")]
    Ports,
    #[error("the host is neither a name, nor an address, nor a network such as 192.168.1.0/24")]
    Host,
}

impl FromStr for TargetPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (host, ports) = text.trim().rsplit_once(':').ok_or(BadPattern::Shape)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(BadPattern::Shape)?,
            None if host.contains(':') => return Err(BadPattern::Shape),
            None => host,
        };
        Ok(Self { text: text.trim().to_owned(), host: read_host(host)?, ports: read_ports(ports)? })
    }
}

fn read_host(text: &str) -> Result<HostPattern, BadPattern> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return Ok(HostPattern::Network(network.trunc()));
    }
    if text.contains('*') {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
        return if text.chars().all(plain) {
            Ok(HostPattern::Name(text.to_ascii_lowercase()))
        } else {
            Err(BadPattern::Host)
        };
    }
    match Host::read(text) {
        Ok(Host::Localhost) => Ok(HostPattern::Localhost),
        Ok(Host::Address(address)) => Ok(HostPattern::Network(address.into())),
        Ok(Host::Name(name)) if !name.contains('/') => Ok(HostPattern::Name(name)),
        Ok(Host::Name(_) | Host::Scoped) | Err(_) => Err(BadPattern::Host),
    }
}

fn read_ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, BadPattern> {
    if text == "*" {
        return Ok(vec![1..=u16::MAX]);
    }
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0).ok_or(BadPattern::Ports);
    text.split(',')
        .map(|item| match item.split_once('-') {
            Some((first, last)) => match (port(first)?, port(last)?) {
                (first, last) if first <= last => Ok(first..=last),
                _ => Err(BadPattern::Ports),
            },
            None => port(item).map(|one| one..=one),
        })
        .collect()
}

impl TargetPattern {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    /// Whether `address`, to which `host` resolved, may be dialled. `address` is canonical.
    fn permits(&self, host: &Host, address: IpAddr, port: u16) -> bool {
        if !self.has_port(port) {
            return false;
        }
        match address::special(address) {
            // Only a network that lies wholly inside the special range was meant for it.
            Some(special) => matches!(&self.host, HostPattern::Network(network)
                if special.range.contains(network) && network.contains(&address)),
            None => match &self.host {
                HostPattern::Any => true,
                HostPattern::Localhost => address.is_loopback(),
                HostPattern::Network(network) => network.contains(&address),
                HostPattern::Name(pattern) => {
                    !address.is_loopback() && matches!(host, Host::Name(name) if glob::matches(pattern, name))
                }
            },
        }
    }
}

/// Judges one address. `Err` says why in words for the owner.
pub(super) fn judge<'a>(
    patterns: &'a [TargetPattern],
    host: &Host,
    address: IpAddr,
    port: u16,
) -> Result<&'a TargetPattern, String> {
    let address = address::canonical(address);
    if let Some(pattern) = patterns.iter().find(|pattern| pattern.permits(host, address, port)) {
        return Ok(pattern);
    }
    match address::special(address) {
        Some(special) => Err(format!("{address} is {}; it must be listed by itself to be dialled", special.what)),
        None => Err(format!("no pattern of forward.targets covers {address} port {port}")),
    }
}
