//! The one cookie of the dashboard: a session's secret, for this host alone, and the CSRF token that goes with it.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// `__Host-`: browsers take it only with Secure and Path=/ and without Domain, so that no other host sets or gets it.
pub(super) const NAME: &str = "__Host-landline";
/// What a page proves with that it could read an answer of ours.
pub(super) const CSRF_HEADER: &str = "x-csrf-token";
/// Longest secret looked at, bytes.
const SECRET_MAX: usize = 256;

/// The session's secret, if the request shows exactly one.
pub(super) fn secret(headers: &HeaderMap) -> Option<&str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value);
    let secret = found.next().filter(|secret| secret.len() <= SECRET_MAX)?;
    found.next().is_none().then_some(secret)
}

/// `Set-Cookie` for a session that lives so long.
pub(super) fn set(secret: &SecretString, max_age_s: u64) -> Option<HeaderValue> {
    let text =
        format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={max_age_s}", secret.expose_secret());
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Set-Cookie` that takes it away.
pub(super) fn unset() -> HeaderValue {
    HeaderValue::from_static("__Host-landline=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// The CSRF token of a session: it follows from the secret, which no page can read.
pub(super) fn csrf(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::new().chain_update("landline csrf\0").chain_update(secret).finalize())
}

/// Whether the request carries the session's CSRF token, once.
pub(super) fn shows_csrf(headers: &HeaderMap, secret: &str) -> bool {
    let mut shown = headers.get_all(CSRF_HEADER).iter();
    let right = shown.next().is_some_and(|value| bool::from(value.as_bytes().ct_eq(csrf(secret).as_bytes())));
    right && shown.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cookies: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, cookie.parse().unwrap());
        }
        secret(&headers).map(str::to_owned)
    }

    #[test]
    fn one_cookie_of_ours_is_read() {
        assert_eq!(shown(&["__Host-landline=lls_a"]).as_deref(), Some("lls_a"));
        assert_eq!(shown(&["a=b; __Host-landline=lls_a; c=d"]).as_deref(), Some("lls_a"));
        assert_eq!(shown(&["a=b", "__Host-landline=lls_a"]).as_deref(), Some("lls_a"));
        for bad in [&[][..], &["landline=x"], &["__Host-landline=a; __Host-landline=b"], &["x__Host-landline=a"]] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_set_is_for_this_host_alone() {
        let value = set(&SecretString::from("lls_x".to_owned()), 60).unwrap();
        let text = value.to_str().unwrap();
        for part in ["__Host-landline=lls_x;", "Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=60"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("Domain") && !format!("{value:?}").contains("lls_x"));
    }

    #[test]
    fn the_csrf_token_belongs_to_one_session() {
        let mut headers = HeaderMap::new();
        assert!(!shows_csrf(&headers, "lls_a"));
        headers.insert(CSRF_HEADER, csrf("lls_a").parse().unwrap());
        assert!(shows_csrf(&headers, "lls_a") && !shows_csrf(&headers, "lls_b"));
        headers.append(CSRF_HEADER, csrf("lls_a").parse().unwrap());
        assert!(!shows_csrf(&headers, "lls_a"));
        assert!(!csrf("lls_a").contains("lls_a"));
    }
}
