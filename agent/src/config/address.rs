//! Where the master is: the spellings that people paste, reduced to a host, a port and a path for WebSockets.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// The master's port unless one is given.
const DEFAULT_PORT: u16 = 443;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterAddress {
    /// A name or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Where lines inside WebSockets are taken, if not where every master takes them. Begins with a slash.
    pub path: Option<String>,
}

/// Longest path, bytes.
const PATH_MAX: usize = 255;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("the scheme must be wss:// or https://; or write just host:port")]
    Scheme,
    #[error("a user name or password has no place in the master's address")]
    Credentials,
    #[error("no host")]
    NoHost,
    #[error("the host holds a character that no name or address has")]
    Host,
    #[error("the port must be 1 to 65535")]
    Port,
    #[error("the path is too long or holds a character that no path has")]
    Path,
}

impl FromStr for MasterAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if ["wss", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
            Some(_) => return Err(BadAddress::Scheme),
            None => text,
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(BadAddress::Credentials);
        }
        let (host, port) = split(authority)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(BadAddress::Port)?,
        };
        Ok(Self { host: host.to_owned(), port, path: path_of(path)? })
    }
}

fn path_of(path: &str) -> Result<Option<String>, BadAddress> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte);
    match path {
        "" | "/" => Ok(None),
        path if path.len() <= PATH_MAX && path.bytes().all(plain) => Ok(Some(path.to_owned())),
        _ => Err(BadAddress::Path),
    }
}

/// Splits `host`, `host:port`, `[v6]:port` or a bare v6 address.
fn split(authority: &str) -> Result<(&str, Option<&str>), BadAddress> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or(BadAddress::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| BadAddress::Host)?;
        return match tail {
            "" => Ok((host, None)),
            tail => Ok((host, Some(tail.strip_prefix(':').ok_or(BadAddress::Port)?))),
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match host {
        "" => Err(BadAddress::NoHost),
        host if host.len() <= proto::limits::HOST_MAX && host.chars().all(plain) => Ok((host, port)),
        _ => Err(BadAddress::Host),
    }
}

impl MasterAddress {
    /// `host:port`, as it stands in a URL.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.authority(), self.path.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_people_paste() {
        for (text, shown) in [
            ("wss://m.example", "m.example:443"),
            ("wss://m.example:7443/agent/ws?x=1", "m.example:7443/agent/ws"),
            ("https://m.example/", "m.example:443"),
            ("m.example:7443", "m.example:7443"),
            ("m.example", "m.example:443"),
            ("127.0.0.1:7443", "127.0.0.1:7443"),
            ("[::1]:7443", "[::1]:7443"),
            ("wss://[2001:db8::1]", "[2001:db8::1]:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
        ] {
            let address: MasterAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<MasterAddress>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, why) in [
            ("http://m.example", BadAddress::Scheme),
            ("", BadAddress::NoHost),
            (":443", BadAddress::NoHost),
            ("m.example:0", BadAddress::Port),
            ("m.example:70000", BadAddress::Port),
            ("m.example:x", BadAddress::Port),
            ("[::1]443", BadAddress::Port),
            ("[::1", BadAddress::Host),
            ("[m]:1", BadAddress::Host),
            ("m example", BadAddress::Host),
            ("wss://m.example/a b", BadAddress::Path),
            ("wss://m.example/a\r\nb", BadAddress::Path),
            ("user:pw@m.example", BadAddress::Credentials),
        ] {
            assert_eq!(text.parse::<MasterAddress>(), Err(why), "{text:?}");
        }
    }
}
