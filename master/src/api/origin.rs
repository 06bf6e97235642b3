//! Which page a browser says it sends for, and whether that is one of ours (SECURITY R51): cookies come along by
//! themselves, so what carries one must also come from a page that this very socket served.

use axum::http::{HeaderMap, header};

use super::guard::Hosts;
use crate::access::Socket;

/// What a request says about the page behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It says nothing: a program.
    Absent,
    Ours,
    Foreign,
}

/// A socket as pages reach it.
#[derive(Debug, Clone)]
pub(super) struct Surface {
    pub(super) socket: Socket,
    pub(super) hosts: Hosts,
}

impl Surface {
    /// A page's origin must be exactly the host that it asks, and that host one of ours; on the public socket over TLS.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Origin {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Origin::Absent };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let (Ok(origin), Some(host), None) = (origin.to_str(), host, origins.next()) else { return Origin::Foreign };
        let plain = origin.strip_prefix("http://").filter(|_| self.socket == Socket::Internal);
        let named = plain.or_else(|| origin.strip_prefix("https://"));
        let ours = named.is_some_and(|named| named.eq_ignore_ascii_case(host)) && self.hosts.allows(host);
        if ours { Origin::Ours } else { Origin::Foreign }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(socket: Socket, origins: &[&str], host: &str) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        for origin in origins {
            headers.append(header::ORIGIN, origin.parse().unwrap());
        }
        Surface { socket, hosts: Hosts::new(&["panel.example".to_owned()]) }.origin(&headers)
    }

    #[test]
    fn only_the_very_page_that_was_served_is_ours() {
        let internal = |origins: &[&str], host: &str| origin(Socket::Internal, origins, host);
        assert_eq!(internal(&[], "127.0.0.1:7800"), Origin::Absent);
        assert_eq!(internal(&["http://127.0.0.1:7800"], "127.0.0.1:7800"), Origin::Ours);
        assert_eq!(internal(&["https://panel.example"], "panel.example"), Origin::Ours);
        for (origins, host) in [
            (&["http://127.0.0.1:8000"][..], "127.0.0.1:7800"),
            (&["http://localhost:7800"], "127.0.0.1:7800"),
            (&["http://evil.example"], "127.0.0.1:7800"),
            (&["http://evil.example"], "evil.example"),
            (&["http://127.0.0.1:7800.evil.example"], "127.0.0.1:7800"),
            (&["http://127.0.0.1:7800/"], "127.0.0.1:7800"),
            (&["null"], "127.0.0.1:7800"),
            (&[""], "127.0.0.1:7800"),
            (&["http://127.0.0.1:7800", "http://evil.example"], "127.0.0.1:7800"),
            (&["http://127.0.0.1:7800", "http://127.0.0.1:7800"], "127.0.0.1:7800"),
        ] {
            assert_eq!(internal(origins, host), Origin::Foreign, "{origins:?} {host}");
        }
        assert_eq!(origin(Socket::Public, &["https://panel.example"], "panel.example"), Origin::Ours);
        assert_eq!(origin(Socket::Public, &["http://panel.example"], "panel.example"), Origin::Foreign);
    }
}
