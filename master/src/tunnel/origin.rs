//! The names under which browsers reach tunnels: one per tunnel, made of its random id. A name is no authority: whoever
//! knows one knows nothing more.

use proto::id::TunnelId;
use uuid::Uuid;

/// Hex digits of a slug: the tunnel's id, 122 random bits.
const SLUG_DIGITS: usize = 32;

/// How browsers reach the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Below it lies one name per tunnel.
    pub domain: String,
    pub https: bool,
    /// As browsers see it; left out where it is the scheme's own.
    pub port: u16,
}

impl Origin {
    /// Of one tunnel, without a slash at the end.
    pub fn of(&self, tunnel: TunnelId) -> String {
        let slug = tunnel.0.simple();
        match (self.https, self.port) {
            (true, 443) => format!("https://{slug}.{}", self.domain),
            (false, 80) => format!("http://{slug}.{}", self.domain),
            (https, port) => format!("{}://{slug}.{}:{port}", scheme(https), self.domain),
        }
    }

    /// Whether browsers treat cookies with `Secure` as they should: over TLS, and at names that never leave the machine.
    pub fn is_trustworthy(&self) -> bool {
        self.https || self.domain == "localhost" || self.domain.ends_with(".localhost")
    }

    /// Whether a host, with or without a port, is one of ours, the domain itself included.
    pub fn serves(&self, host: &str) -> bool {
        let name = without_port(host);
        let Some(start) = name.len().checked_sub(self.domain.len()) else { return false };
        name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(&self.domain))
            && (start == 0 || name.as_bytes()[start - 1] == b'.')
    }

    /// The tunnel whose name this is.
    pub fn tunnel(&self, host: &str) -> Option<TunnelId> {
        let name = without_port(host);
        let slug = name.get(..SLUG_DIGITS)?;
        let domain = name.get(SLUG_DIGITS..)?.strip_prefix('.')?;
        let hex = slug.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
        (hex && domain.eq_ignore_ascii_case(&self.domain)).then(|| Uuid::try_parse(slug).ok().map(TunnelId)).flatten()
    }
}

/// `https` or `http`.
pub fn scheme(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b8e6f3a9c1d4e5f8a7b6c5d4e3f2a1b";

    fn origin(domain: &str, https: bool) -> Origin {
        Origin { domain: domain.to_owned(), https, port: if https { 443 } else { 7800 } }
    }

    #[test]
    fn a_tunnel_has_one_name_and_comes_back_from_it() {
        let tunnel = TunnelId(ID.parse().unwrap());
        let https = origin("gw.example", true);
        assert_eq!(https.of(tunnel), format!("https://{ID}.gw.example"));
        assert_eq!(origin("gw.test", false).of(tunnel), format!("http://{ID}.gw.test:7800"));
        for good in [format!("{ID}.gw.example"), format!("{ID}.GW.example:443")] {
            assert_eq!(https.tunnel(&good), Some(tunnel), "{good}");
        }
        let upper = ID.to_uppercase();
        for bad in [
            format!("x{ID}.gw.example"),
            format!("{ID}.gw.example.evil"),
            format!("a.{ID}.gw.example"),
            format!("{upper}.gw.example"),
            format!("{ID}gw.example"),
            "gw.example".to_owned(),
            String::new(),
            "é".repeat(20),
        ] {
            assert_eq!(https.tunnel(&bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_of_the_domain_are_ours_and_others_are_not() {
        let origin = origin("gw.example", true);
        for ours in ["gw.example", "x.gw.example:1", "a.b.gw.EXAMPLE"] {
            assert!(origin.serves(ours), "{ours}");
        }
        for foreign in ["example", "xgw.example", "gw.example.evil", "", "127.0.0.1:7800", "[::1]:7800"] {
            assert!(!origin.serves(foreign), "{foreign}");
        }
    }
}
