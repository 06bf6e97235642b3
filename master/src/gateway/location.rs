//! Where an answer sends the browser: back to the target under its own name becomes back to our origin; anywhere else is
//! told. Judges addresses as browsers read them; follows none itself.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;

use super::{
    host::{Site, Target, default_port},
    page::Asker,
    trouble::Trouble,
};
use crate::tunnel::visits::Visit;

/// Pages in a row that are nothing but redirects; browsers give up at 20.
const REDIRECTS_MAX: u32 = 12;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// An address in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To our own origin: relative, or no address of the web at all.
    Unchanged,
    /// To the target by its full name; this is the same under ours.
    Home(String),
    /// To the target's host, but not through this tunnel.
    Beside { https: bool, port: u16 },
    /// To another host.
    Away,
}

/// Judges one address.
pub(super) fn judge(address: &str, site: &Site, target: &Target) -> Leads {
    let (https, rest) = match split_scheme(address) {
        Some(split) => split,
        None => match address.strip_prefix("//") {
            Some(rest) => (target.https, rest),
            None => return Leads::Unchanged,
        },
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if authority.eq_ignore_ascii_case(&site.authority) {
        return Leads::Unchanged;
    }
    let Some((host, port)) = split_port(authority, https) else { return Leads::Away };
    if !is_same_host(host, &target.host) {
        return Leads::Away;
    }
    if (https, port) != (target.https, target.port) {
        return Leads::Beside { https, port };
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Leads::Home(format!("{}{path}", site.origin()))
}

/// Whether both are one host to the agent. All names of loopback are its own machine.
fn is_same_host(one: &str, other: &str) -> bool {
    let loopback = |host: &str| LOOPBACK.iter().any(|name| name.eq_ignore_ascii_case(host));
    one.eq_ignore_ascii_case(other) || (loopback(one) && loopback(other))
}

fn split_scheme(address: &str) -> Option<(bool, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some((true, rest)),
        "http" => Some((false, rest)),
        _ => None,
    }
}

fn split_port(authority: &str, https: bool) -> Option<(&str, u16)> {
    match authority.rsplit_once(':') {
        Some((_, port)) if port.contains(']') => Some((authority, default_port(https))),
        Some((host, "")) => Some((host, default_port(https))),
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, default_port(https))),
    }
}

/// The address within a `Refresh` header, and what stands before it.
pub(super) fn split_refresh(value: &str) -> Option<(&str, &str)> {
    let at = value.to_ascii_lowercase().find("url=")? + "url=".len();
    let (head, address) = value.split_at(at);
    Some((head, address.trim().trim_matches(['"', '\''])))
}

/// Refuses to send a browser round in circles for ever.
pub(super) fn check_loop(visit: &Visit, asker: &Asker, status: StatusCode) -> Result<(), Trouble> {
    if !asker.navigates {
        return Ok(());
    }
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        visit.redirects.store(0, Ordering::Relaxed);
        return Ok(());
    }
    if visit.redirects.fetch_add(1, Ordering::Relaxed) < REDIRECTS_MAX {
        return Ok(());
    }
    visit.redirects.store(0, Ordering::Relaxed);
    Err(Trouble::Loop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::host::tests::{site, target};

    #[test]
    fn the_target_under_its_own_name_is_our_origin() {
        let home = |path: &str| Leads::Home(format!("{}{path}", site().origin()));
        for (address, path) in [
            ("https://192.168.1.1:8443/index.php?a=b#c", "/index.php?a=b#c"),
            ("HTTPS://192.168.1.1:8443", "/"),
            ("//192.168.1.1:8443/x", "/x"),
            ("https://192.168.1.1:8443?q", "/?q"),
            ("https://user@192.168.1.1:8443/x", "/x"),
        ] {
            assert_eq!(judge(address, &site(), &target()), home(path), "{address}");
        }
    }

    #[test]
    fn everything_else_is_told_apart() {
        for same in ["/x", "x", "", "?q", "mailto:a@b", &site().origin()] {
            assert_eq!(judge(same, &site(), &target()), Leads::Unchanged, "{same}");
        }
        let beside = |https, port| Leads::Beside { https, port };
        assert_eq!(judge("http://192.168.1.1/", &site(), &target()), beside(false, 80));
        assert_eq!(judge("https://192.168.1.1/", &site(), &target()), beside(true, 443));
        assert_eq!(judge("http://192.168.1.1:8443/", &site(), &target()), beside(false, 8443));
        for away in
            ["https://example.com/", "//example.com", "https://192.168.1.1.evil:8443/", "https://192.168.1.1:x/"]
        {
            assert_eq!(judge(away, &site(), &target()), Leads::Away, "{away}");
        }
        let v6 = Target { https: false, host: "[::1]".to_owned(), port: 80 };
        assert!(matches!(judge("http://[::1]/a", &site(), &v6), Leads::Home(_)));
        assert!(matches!(judge("http://[::1]:80/a", &site(), &v6), Leads::Home(_)));
    }

    #[test]
    fn a_page_of_the_machine_itself_may_call_it_by_any_of_its_own_names() {
        let target = |host: &str| Target { https: true, host: host.to_owned(), port: 8443 };
        for (named, opened) in [("127.0.0.1", "localhost"), ("LOCALHOST", "127.0.0.1"), ("[::1]", "localhost")] {
            let led = judge(&format!("https://{named}:8443/a"), &site(), &target(opened));
            assert_eq!(led, Leads::Home(format!("{}/a", site().origin())), "{named} {opened}");
        }
        assert_eq!(judge("https://127.0.0.1:8443/", &site(), &target("192.168.1.1")), Leads::Away);
        assert_eq!(judge("https://127.0.0.1.evil:8443/", &site(), &target("localhost")), Leads::Away);
    }

    #[test]
    fn a_refresh_is_taken_apart() {
        assert_eq!(split_refresh("5; URL='https://x/y'"), Some(("5; URL=", "https://x/y")));
        assert_eq!(split_refresh("5"), None);
    }
}
