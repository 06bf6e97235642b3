//! Which host names a listener answers to, and which one a request asks for (SECURITY R52).

use std::sync::Arc;

use axum::{extract::Request, http::header};

const LOOPBACK_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The host names a listener answers to. Any port: a forwarded one differs.
#[derive(Debug, Clone)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// Loopback's names and the configured ones.
    pub fn new(configured: &[String]) -> Self {
        Self::only(LOOPBACK_NAMES.into_iter().map(str::to_owned).chain(configured.iter().cloned()))
    }

    /// These and no others.
    pub fn only(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    pub fn allows(&self, host: &str) -> bool {
        let name = without_port(host);
        self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// The name in `name`, `name:port` or `[v6]:port`.
pub fn without_port(host: &str) -> &str {
    match (host.starts_with('['), host.rsplit_once(':')) {
        // Brackets hold colons of their own.
        (true, _) => host.find(']').map_or(host, |end| &host[..=end]),
        (false, Some((name, port))) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        (false, _) => host,
    }
}

/// The one host a request names: in its target if it is absolute, else in its only Host header.
pub fn host(request: &Request) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return None;
    }
    match request.uri().authority() {
        Some(authority) => named.filter(|named| *named == authority.as_str()),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_hosts_are_served() {
        let hosts = Hosts::new(&["Panel.example".to_owned()]);
        for good in ["127.0.0.1:7800", "localhost", "LOCALHOST:1", "[::1]:7800", "[::1]", "panel.example:80"] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil", "127.0.0.1@evil", "[::1", "[::2]"] {
            assert!(!hosts.allows(bad), "{bad}");
        }
        assert!(!Hosts::only(["a.example".to_owned()]).allows("localhost"));
    }

    #[test]
    fn a_request_names_one_host() {
        let request = |target: &str, hosts: &[&str]| {
            let builder = Request::builder().uri(target);
            let builder = hosts.iter().fold(builder, |builder, host| builder.header(header::HOST, *host));
            builder.body(axum::body::Body::empty()).unwrap()
        };
        assert_eq!(host(&request("/x", &["localhost"])), Some("localhost"));
        assert_eq!(host(&request("/x", &[])), None);
        assert_eq!(host(&request("/x", &["localhost", "localhost"])), None);
        assert_eq!(host(&request("http://evil/x", &["localhost"])), None);
    }
}
