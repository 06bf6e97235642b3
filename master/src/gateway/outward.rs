//! A request on its way to the target: what belongs to one hop is taken off (RFC 9110 §7.6.1), names of ours become names
//! of the target, and nothing tells the target that somebody stands in between.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Version, header},
};
use http_body_util::BodyExt as _;

use super::{
    cookies,
    host::{Site, Target},
    trouble::Trouble,
};

/// Of one hop, besides those that `Connection` names.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What a proxy before us may have added: a target that believes it would see our names again.
const PROXIES: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

/// Whether a request's body went out whole: until then the target need not answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<AtomicBool>);

impl Sent {
    pub(super) fn all(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The request as the target shall see it.
pub(super) fn prepare(
    request: Request,
    site: &Site,
    target: &Target,
    upgrades: bool,
) -> Result<(Request, Sent), Trouble> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.clear();
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    let protocol = upgrades.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    let trailers = headers.get(header::TE).is_some_and(|te| te.to_str().is_ok_and(|te| te.contains("trailers")));
    strip_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    remove(headers, &PROXIES);
    // Answered on this hop: the body follows as soon as the target takes it.
    headers.remove(header::EXPECT);
    cookies::strip_ours(headers);
    let host = HeaderValue::try_from(target.authority()).map_err(|_| Trouble::Ours)?;
    headers.insert(header::HOST, host);
    rename(headers, &header::ORIGIN, site, target);
    rename(headers, &header::REFERER, site, target);
    let sent = Sent::default();
    let done = sent.clone();
    let body = if hyper::body::Body::is_end_stream(&body) {
        done.0.store(true, Ordering::Relaxed);
        body
    } else {
        watched(body, done)
    };
    Ok((Request::from_parts(parts, body), sent))
}

/// Takes off what is named. Looks at what there is, which is less than what there might be.
pub(super) fn remove(headers: &mut HeaderMap, unwanted: &[&str]) {
    let found: Vec<_> = headers.keys().filter(|name| unwanted.contains(&name.as_str())).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
}

/// Takes off what belongs to one hop.
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // A sender that names one of these means mischief (RFC 9110 §7.6.1 lets it name no end-to-end field).
        .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::COOKIE | header::SET_COOKIE))
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// Our origin becomes the target's. What names another stays: the target shall see it and refuse it.
fn rename(headers: &mut HeaderMap, name: &HeaderName, site: &Site, target: &Target) {
    let Some(path) = headers.get(name).and_then(|value| value.to_str().ok()).and_then(|url| site.strip(url)) else {
        return;
    };
    if let Ok(value) = HeaderValue::try_from(format!("{}{path}", target.origin())) {
        headers.insert(name, value);
    }
}

fn watched(body: Body, sent: Sent) -> Body {
    struct Watch(Sent);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::Relaxed);
        }
    }
    let watch = Watch(sent);
    Body::new(body.map_frame(move |frame| {
        let _held = &watch;
        frame
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::host::tests::{site, target};

    fn sent(headers: &[(&str, &str)], upgrades: bool) -> HeaderMap {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        prepare(request, &site(), &target(), upgrades).unwrap().0.into_parts().0.headers
    }

    #[test]
    fn what_belongs_to_one_hop_stays_there() {
        let headers = sent(
            &[
                ("connection", "keep-alive, X-Secret, host"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers, deflate"),
                ("transfer-encoding", "chunked"),
                ("proxy-authorization", "Basic x"),
                ("x-forwarded-host", "slug.gw.test"),
                ("expect", "100-continue"),
                ("accept", "text/html"),
            ],
            false,
        );
        let names: std::collections::BTreeSet<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "host", "te"].into());
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let headers = sent(&[("connection", "Upgrade"), ("upgrade", "websocket")], true);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }

    #[test]
    fn our_names_become_the_targets_and_foreign_ones_stay() {
        let own = site().origin();
        let headers = sent(&[("origin", &own), ("referer", &format!("{own}/a?b=c"))], false);
        assert_eq!(headers["host"], "192.168.1.1:8443");
        assert_eq!(headers["origin"], "https://192.168.1.1:8443");
        assert_eq!(headers["referer"], "https://192.168.1.1:8443/a?b=c");
        let foreign = sent(&[("origin", "https://evil.example"), ("referer", "https://evil.example/x")], false);
        assert_eq!(foreign["origin"], "https://evil.example");
        assert_eq!(foreign["referer"], "https://evil.example/x");
        assert_eq!(sent(&[("origin", "null")], false)["origin"], "null");
    }
}
