//! An answer on its way to the browser: headers of one hop are taken off, addresses of the target become ours, cookies
//! stay on this origin, and nothing in it reaches beyond this one origin. The body passes untouched.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header},
};
use hyper::body::Incoming;

use super::{
    cookies,
    host::{Site, Target},
    location::{self, Leads},
    outward::{remove, strip_hop},
    page::Asker,
    trouble::Trouble,
};

/// What would bind browsers beyond this origin or this tunnel: promises of TLS for names that are not the target's,
/// addresses that only the target's network knows, reports to there; and what takes the window from the dashboard that
/// opened it, which would see it closed and close the tunnel.
const DROPPED: [&str; 11] = [
    "strict-transport-security",
    "public-key-pins",
    "expect-ct",
    "alt-svc",
    "proxy-support",
    "clear-site-data",
    "nel",
    "report-to",
    "reporting-endpoints",
    "cross-origin-opener-policy",
    "cross-origin-opener-policy-report-only",
];
/// What of `Clear-Site-Data` concerns this origin alone. `cookies` would clear those of every sibling.
const CLEARABLE: [&str; 3] = ["\"cache\"", "\"storage\"", "\"executionContexts\""];

/// The answer as the browser shall see it.
pub(super) fn prepare(
    response: Response<Incoming>,
    site: &Site,
    target: &Target,
    asker: &Asker,
) -> Result<Response<Body>, Trouble> {
    let (mut parts, body) = response.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let headers = &mut parts.headers;
    strip_hop(headers);
    let clears = clearable(headers);
    remove(headers, &DROPPED);
    if let Some(value) = clears {
        headers.insert(HeaderName::from_static("clear-site-data"), value);
    }
    cookies::localise(headers, site);
    if parts.status.is_redirection() {
        redirect(headers, site, target, asker)?;
    }
    readdress(headers, &header::CONTENT_LOCATION, site, target);
    refresh(headers, site, target);
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A page that is sent elsewhere is told so instead, since the browser may not reach it there. Scripts see what the target
/// said.
fn redirect(headers: &mut HeaderMap, site: &Site, target: &Target, asker: &Asker) -> Result<(), Trouble> {
    let Some(address) = text(headers, &header::LOCATION) else { return Ok(()) };
    match location::judge(address, site, target) {
        Leads::Unchanged => {}
        Leads::Home(address) => set(headers, header::LOCATION, &address),
        Leads::Beside { .. } | Leads::Away if !asker.navigates => {}
        Leads::Beside { https, port } => {
            return Err(Trouble::Beside { https, host: target.host.clone(), port });
        }
        Leads::Away => return Err(Trouble::Away { address: address.to_owned() }),
    }
    Ok(())
}

fn readdress(headers: &mut HeaderMap, name: &HeaderName, site: &Site, target: &Target) {
    if let Some(Leads::Home(address)) = text(headers, name).map(|address| location::judge(address, site, target)) {
        set(headers, name.clone(), &address);
    }
}

fn refresh(headers: &mut HeaderMap, site: &Site, target: &Target) {
    let name = HeaderName::from_static("refresh");
    let Some((head, address)) = text(headers, &name).and_then(location::split_refresh) else { return };
    if let Leads::Home(address) = location::judge(address, site, target) {
        let value = format!("{head}{address}");
        set(headers, name, &value);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn clearable(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = text(headers, &HeaderName::from_static("clear-site-data"))?;
    let everything = asked.contains("\"*\"");
    let kept: Vec<_> = CLEARABLE.into_iter().filter(|what| everything || asked.contains(what)).collect();
    HeaderValue::try_from(kept.join(", ")).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::host::tests::{site, target};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn asker(navigates: bool) -> Asker {
        Asker { html: navigates, navigates, head: false }
    }

    #[test]
    fn redirects_home_are_renamed_and_others_are_told() {
        let go = |to: &str, navigates| {
            let mut headers = headers(&[("location", to)]);
            redirect(&mut headers, &site(), &target(), &asker(navigates))
                .map(|()| headers["location"].to_str().unwrap().to_owned())
        };
        let home = format!("{}/main", site().origin());
        assert_eq!(go("https://192.168.1.1:8443/main", true).unwrap(), home);
        assert_eq!(go("/main", true).unwrap(), "/main");
        assert!(matches!(go("http://192.168.1.1/main", true), Err(Trouble::Beside { https: false, port: 80, .. })));
        assert!(matches!(go("https://example.com/", true), Err(Trouble::Away { .. })));
        assert_eq!(go("https://example.com/", false).unwrap(), "https://example.com/");
    }

    #[test]
    fn refresh_and_content_location_follow() {
        let mut headers = headers(&[
            ("refresh", "0; url=https://192.168.1.1:8443/x"),
            ("content-location", "https://192.168.1.1:8443/y"),
        ]);
        refresh(&mut headers, &site(), &target());
        readdress(&mut headers, &header::CONTENT_LOCATION, &site(), &target());
        assert_eq!(headers["refresh"], format!("0; url={}/x", site().origin()));
        assert_eq!(headers["content-location"], format!("{}/y", site().origin()));
    }

    #[test]
    fn cookies_of_siblings_are_never_cleared() {
        let clear = |asked: &str| clearable(&headers(&[("clear-site-data", asked)]));
        assert_eq!(clear("\"cookies\", \"cache\"").unwrap(), "\"cache\"");
        assert_eq!(clear("\"*\"").unwrap(), "\"cache\", \"storage\", \"executionContexts\"");
        assert_eq!(clear("\"cookies\""), None);
    }
}
