//! The HTTP proxy through which a WebSocket may have to go, and the hosts it is not for.

use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::address::MasterAddress;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    #[error("only proxies at http://[user:password@]host[:port] are spoken to; they see TLS all the same")]
    Scheme,
    #[error("is no address of a proxy")]
    Address,
}

/// A proxy that takes CONNECT. Its debug form holds no password.
#[derive(Debug, Clone)]
pub struct Proxy {
    matcher: std::sync::Arc<Matcher>,
}

impl Proxy {
    /// `except` is a list of names, domains, addresses and networks, as in `NO_PROXY`.
    pub fn new(url: &str, except: &str) -> Result<Self, BadProxy> {
        match url.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {}
            None => {}
            Some(_) => return Err(BadProxy::Scheme),
        }
        let matcher = std::sync::Arc::new(Matcher::builder().https(url.to_owned()).no(except.to_owned()).build());
        // What cannot be read is nowhere used; an owner who set it wants to know.
        let any = "https://landline.invalid".parse().map_err(|_| BadProxy::Address)?;
        let read = Matcher::builder().https(url.to_owned()).build().intercept(&any);
        read.map(|_| Self { matcher }).ok_or(BadProxy::Address)
    }

    /// Where to ask for a connection to `master`; `None` where the proxy is not for it.
    pub fn for_master(&self, master: &MasterAddress) -> Option<Intercept> {
        self.matcher.intercept(&format!("https://{}", master.authority()).parse().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_by(proxy: &Proxy, master: &str) -> Option<String> {
        proxy.for_master(&master.parse().unwrap()).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn a_proxy_is_for_all_but_the_named() {
        let proxy = Proxy::new("http://joe:secret@proxy.example:3128", "localhost,.inside.example,10.0.0.0/8").unwrap();
        assert!(!format!("{proxy:?}").contains("secret"));
        assert_eq!(goes_by(&proxy, "m.example").as_deref(), Some("http://proxy.example:3128/"));
        assert_eq!(goes_by(&proxy, "[2001:db8::1]:443").as_deref(), Some("http://proxy.example:3128/"));
        let auth = proxy.for_master(&"m.example".parse().unwrap()).unwrap();
        assert_eq!(auth.basic_auth().unwrap(), "Basic am9lOnNlY3JldA==");
        for master in ["localhost:7443", "a.inside.example", "10.1.2.3:443"] {
            assert_eq!(goes_by(&proxy, master), None, "{master}");
        }
        assert_eq!(goes_by(&Proxy::new("proxy:8080", "").unwrap(), "m").as_deref(), Some("http://proxy:8080/"));
    }

    #[test]
    fn what_is_no_proxy_says_so() {
        for (url, why) in [
            ("socks5://proxy:1080", BadProxy::Scheme),
            ("https://proxy", BadProxy::Scheme),
            ("http://", BadProxy::Address),
            ("http://a b", BadProxy::Address),
        ] {
            assert_eq!(Proxy::new(url, "").map(drop), Err(why), "{url}");
        }
    }
}
