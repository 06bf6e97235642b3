//! What an address is, whatever it is written as: reduced to one form, and the ranges that are never dialled unless the
//! owner lists them by themselves. Nothing here resolves names or knows the policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges that no wildcard, no name and no wider network opens: what stands there trusts whoever can reach it.
const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "the unspecified network"),
    ("169.254.0.0/16", "link-local, where cloud metadata stands"),
    ("100.100.100.200/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata"),
    ("192.0.0.0/24", "reserved for protocols, and cloud metadata"),
    ("192.88.99.0/24", "an IPv6 transition relay"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
    ("::/128", "the unspecified address"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("::ffff:0:0:0/96", "a translated IPv4 address"),
    ("2001::/32", "an IPv4 address inside Teredo"),
    ("2002::/16", "an IPv4 address inside 6to4"),
    ("fd00:ec2::/32", "cloud metadata"),
    ("fd20:ce::/32", "cloud metadata"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    // Behind ::1, which is loopback: the rest of this range are IPv4 addresses in their oldest disguise.
    ("::/96", "an IPv4 address written as IPv6"),
];

/// A range of [`SPECIAL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) range: IpNet,
    pub(super) what: &'static str,
}

/// The address itself: an IPv4 address in IPv6 clothes is that IPv4 address.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Which special range a canonical address lies in. Loopback is not special: the policy speaks of it by name.
pub(super) fn special(address: IpAddr) -> Option<Special> {
    if address.is_loopback() {
        return None;
    }
    SPECIAL.iter().find_map(|(range, what)| {
        let range: IpNet = range.parse().ok()?;
        range.contains(&address).then_some(Special { range, what })
    })
}

/// What a host as asked for turns out to be before anything is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// An IPv6 address with a zone, which only the resolver can turn into an interface.
    Scoped,
    /// `localhost` and everything beneath it: never asked of a resolver that someone else answers.
    Localhost,
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a name nor an address")]
pub struct BadHost;

impl Host {
    /// Reads every spelling that some resolver would take for an address, so that none of them reaches one.
    pub fn read(text: &str) -> Result<Self, BadHost> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(canonical(address)));
        }
        if text.contains(':') {
            let (address, zone) = text.split_once('%').ok_or(BadHost)?;
            let scoped = address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty();
            return if scoped { Ok(Self::Scoped) } else { Err(BadHost) };
        }
        if ends_in_number(text) {
            return old_ipv4(text).map(|address| Self::Address(address.into())).ok_or(BadHost);
        }
        let name = text.to_ascii_lowercase();
        let labels_fit = name.split('.').all(|label| (1..=63).contains(&label.len()));
        match name.as_str() {
            "localhost" => Ok(Self::Localhost),
            name if name.ends_with(".localhost") => Ok(Self::Localhost),
            _ if labels_fit && !name.contains('%') => Ok(Self::Name(name)),
            _ => Err(BadHost),
        }
    }
}

/// No name ends in a number; what does is an address or nothing (the rule of the URL standard).
fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The forms of `inet_aton`: one to four numbers, decimal, octal or hexadecimal, the last one filling what is left.
fn old_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, heads) = parts.split_last()?;
    if heads.len() > 3 || heads.iter().any(|head| *head > 255) {
        return None;
    }
    let free_bits = 32 - 8 * u32::try_from(heads.len()).ok()?;
    if u64::from(*last) >= 1 << free_bits {
        return None;
    }
    let high = heads.iter().enumerate().map(|(place, head)| head << (24 - 8 * place)).sum::<u32>();
    Some(Ipv4Addr::from(high | last))
}

fn number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some("") => return Some(0),
        Some(hex) => (hex, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (&lower[1..], 8),
        None => (lower.as_str(), 10),
    };
    let clean = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    clean.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_parses() {
        for (range, _) in SPECIAL {
            assert!(range.parse::<IpNet>().is_ok(), "{range}");
        }
    }

    #[test]
    fn loopback_in_any_spelling_is_loopback() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.255.0.9",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "::1",
            "0:0:0:0:0:0:0:1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
        ] {
            match Host::read(text).unwrap() {
                Host::Address(address) => assert!(address.is_loopback(), "{text} is {address}"),
                other => panic!("{text} is {other:?}"),
            }
        }
        for text in ["localhost", "LOCALHOST", "localhost.", "a.localhost"] {
            assert_eq!(Host::read(text), Ok(Host::Localhost));
        }
    }

    #[test]
    fn what_ends_in_a_number_is_never_asked_of_a_resolver() {
        for text in ["1.2.3.4.5", "256.1.1.1", "1.2.3.256", "0x1ffffffff", "09", "nas.1", "a.0x1", "1..2"] {
            assert_eq!(Host::read(text), Err(BadHost), "{text}");
        }
        for text in ["nas", "nas.lan", "1host.example", "0xg", "x0"] {
            assert!(matches!(Host::read(text), Ok(Host::Name(_))), "{text}");
        }
    }
}
