//! Names: which host is which tunnel's, what our origins are called, and what the target calls itself. A name is no
//! authority: whoever knows one knows nothing more.

use axum::{extract::Request, http::header};
use proto::id::TunnelId;

use crate::{
    store::tunnels::{Scheme, Tunnel},
    tunnel::origin::{Origin, scheme},
};

/// The origin that a request came to.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) tunnel: TunnelId,
    /// As the browser named it, with its port: a forwarded one differs from ours.
    pub(super) authority: String,
    pub(super) https: bool,
    pub(super) secure_cookies: bool,
}

impl Site {
    /// `None` if the request names no single host, or none of a tunnel.
    pub(super) fn of(request: &Request, origin: &Origin) -> Option<Self> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next()?.to_str().ok()?;
        let absolute = request.uri().authority();
        if hosts.next().is_some() || absolute.is_some_and(|authority| authority.as_str() != host) {
            return None;
        }
        let tunnel = origin.tunnel(host)?;
        let authority = host.to_ascii_lowercase();
        Some(Self { tunnel, authority, https: origin.https, secure_cookies: origin.is_trustworthy() })
    }

    /// `http://slug.domain:port`, without a slash.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", scheme(self.https), self.authority)
    }

    /// The rest of a URL behind our origin, if it begins with it. Either scheme: a proxy may stand before us.
    pub(super) fn strip<'a>(&self, url: &'a str) -> Option<&'a str> {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        authority.eq_ignore_ascii_case(&self.authority).then_some(path)
    }
}

/// The target as it calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) https: bool,
    /// Brackets around an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn of(row: &Tunnel) -> Self {
        let host = &row.target.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Self { https: row.target.scheme == Scheme::Https, host, port: row.target.port }
    }

    /// As the `Host` header has it: the scheme's own port is left out.
    pub(super) fn authority(&self) -> String {
        if self.port == default_port(self.https) { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// `https://host:port`, without a slash.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", scheme(self.https), self.authority())
    }
}

pub(super) fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const ID: &str = "0b8e6f3a9c1d4e5f8a7b6c5d4e3f2a1b";

    pub(in crate::gateway) fn site() -> Site {
        let request = Request::builder().header(header::HOST, format!("{ID}.gw.test:7800"));
        Site::of(&request.body(axum::body::Body::empty()).unwrap(), &origin("gw.test", false)).unwrap()
    }

    pub(in crate::gateway) fn target() -> Target {
        Target { https: true, host: "192.168.1.1".to_owned(), port: 8443 }
    }

    pub(in crate::gateway) fn origin(domain: &str, https: bool) -> Origin {
        Origin { domain: domain.to_owned(), https, port: if https { 443 } else { 7800 } }
    }

    #[test]
    fn only_our_own_origin_is_stripped() {
        let site = site();
        assert_eq!(site.strip(&format!("http://{ID}.gw.test:7800/a?b")), Some("/a?b"));
        assert_eq!(site.strip(&format!("https://{ID}.gw.test:7800")), Some(""));
        assert_eq!(site.strip(&format!("http://{ID}.gw.test:7801/")), None);
        assert_eq!(site.strip("null"), None);
    }

    #[test]
    fn targets_are_named_as_browsers_would() {
        assert_eq!(target().origin(), "https://192.168.1.1:8443");
        assert_eq!(Target { port: 443, ..target() }.authority(), "192.168.1.1");
    }
}
