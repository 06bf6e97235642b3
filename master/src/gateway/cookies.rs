//! Cookies, both ways: ours is set, recognised and kept from the target; the target's are kept to this one origin.

use axum::http::{HeaderMap, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::host::Site;

/// Our cookie where the browser takes secure ones: it can come from this host alone.
const SECURE_NAME: &str = "__Host-landline-visit";
/// Over plain HTTP to a name of the network.
const PLAIN_NAME: &str = "landline-visit";
/// Cookies under our name that are looked at.
const SECRETS_MAX: usize = 8;
/// No cookie of the target's may begin like this, in any spelling.
const RESERVED: [&str; 2] = ["__host-landline", "landline-"];

fn name(site: &Site) -> &'static str {
    if site.secure_cookies { SECURE_NAME } else { PLAIN_NAME }
}

/// The header that begins a visit. `Lax`: a link from a mail to this page works; what a foreign page sends does not carry
/// it, and siblings are told apart by [`super::guard`].
pub(super) fn set_visit(secret: &SecretString, site: &Site) -> HeaderValue {
    let secure = if site.secure_cookies { "; Secure" } else { "" };
    let text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", name(site), secret.expose_secret());
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The secrets that a request shows for its visit: over plain HTTP a sibling's script may have set one beside ours.
pub(super) fn visit_secrets<'a>(headers: &'a HeaderMap, site: &Site) -> impl Iterator<Item = &'a str> {
    let ours = name(site);
    pairs(headers).filter(move |(found, _)| *found == ours).map(|(_, value)| value).take(SECRETS_MAX)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// Takes our cookies out of what goes to the target.
pub(super) fn strip_ours(headers: &mut HeaderMap) {
    let ours = |pair: &[u8]| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        is_reserved(&pair[..end])
    };
    let kept = headers.get_all(header::COOKIE).iter().filter_map(|value| {
        let pairs: Vec<_> = value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect();
        let kept: Vec<_> = pairs.into_iter().filter(|pair| !pair.is_empty() && !ours(pair)).collect();
        (!kept.is_empty()).then(|| HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()).flatten()
    });
    let kept: Vec<_> = kept.collect();
    headers.remove(header::COOKIE);
    for value in kept {
        headers.append(header::COOKIE, value);
    }
}

fn is_reserved(name: &[u8]) -> bool {
    let name = name.trim_ascii().to_ascii_lowercase();
    RESERVED.iter().any(|reserved| name.starts_with(reserved.as_bytes()))
}

/// Keeps the target's cookies to this origin: without `Domain`, under no name of ours, and without `Secure` where the
/// browser would drop them for it.
pub(super) fn localise(headers: &mut HeaderMap, site: &Site) {
    let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| local(value, site)).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn local(cookie: &HeaderValue, site: &Site) -> Option<HeaderValue> {
    let mut parts = cookie.as_bytes().split(|byte| *byte == b';');
    let pair = parts.next()?;
    let name = pair.split(|byte| *byte == b'=').next()?.trim_ascii();
    if is_reserved(name) {
        return None;
    }
    // The browser takes these names with `Secure` or not at all.
    let prefixed = name.to_ascii_lowercase().starts_with(b"__");
    let keeps_secure = site.secure_cookies || prefixed;
    let attributes = parts.filter(|part| {
        let part = part.trim_ascii().to_ascii_lowercase();
        let attribute = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        match attribute {
            b"domain" => false,
            b"secure" => keeps_secure,
            b"samesite" => keeps_secure || !part.ends_with(b"none"),
            _ => true,
        }
    });
    let whole: Vec<_> = std::iter::once(pair).chain(attributes).collect();
    HeaderValue::from_bytes(&whole.join(&b";"[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::host::tests::site;

    fn secure(secure_cookies: bool) -> Site {
        Site { secure_cookies, ..site() }
    }

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    fn texts(headers: &HeaderMap, name: header::HeaderName) -> Vec<&str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn ours_is_found_and_never_passed_on() {
        let cookies = ["a=1; __Host-landline-visit=secret; b=2=3", "__host-LANDLINE-x=y", "c"];
        let mut headers = headers(header::COOKIE, &cookies);
        assert_eq!(visit_secrets(&headers, &secure(true)).collect::<Vec<_>>(), ["secret"]);
        assert_eq!(visit_secrets(&headers, &secure(false)).next(), None);
        strip_ours(&mut headers);
        assert_eq!(texts(&headers, header::COOKIE), ["a=1; b=2=3", "c"]);
    }

    #[test]
    fn the_targets_cookies_stay_at_home() {
        let cookies = [
            "sid=1; Path=/; Domain=fw.local; HttpOnly; Secure; SameSite=Strict",
            "x=a b; DOMAIN = .example.com",
            "__Host-landline-visit=evil; Path=/; Secure",
            "Landline-visit=evil",
            "n=1; SameSite=None; Secure",
            "__Host-own=1; Secure; Path=/",
        ];
        let mut https = headers(header::SET_COOKIE, &cookies);
        localise(&mut https, &secure(true));
        let kept = ["sid=1; Path=/; HttpOnly; Secure; SameSite=Strict", "x=a b", "n=1; SameSite=None; Secure"];
        assert_eq!(texts(&https, header::SET_COOKIE), [&kept[..], &["__Host-own=1; Secure; Path=/"]].concat());
        let mut plain = headers(header::SET_COOKIE, &cookies);
        localise(&mut plain, &secure(false));
        let kept = ["sid=1; Path=/; HttpOnly; SameSite=Strict", "x=a b", "n=1", "__Host-own=1; Secure; Path=/"];
        assert_eq!(texts(&plain, header::SET_COOKIE), kept);
    }

    #[test]
    fn our_cookie_is_bound_to_this_host() {
        let secret = SecretString::from("s".to_owned());
        let text = set_visit(&secret, &secure(true)).to_str().unwrap().to_owned();
        assert_eq!(text, "__Host-landline-visit=s; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(!set_visit(&secret, &secure(false)).to_str().unwrap().contains("Secure"));
    }
}
