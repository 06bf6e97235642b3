//! Pages of our own, where the target's cannot be shown: small, self-contained, everything foreign escaped. Programs get
//! the same as problem+json.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    page_text::{Text, text},
    trouble::Trouble,
};

const STYLE: &str = include_str!("page.css");

/// Who asks: a person in front of a page, or a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// It shows HTML to a person.
    pub(super) html: bool,
    /// It goes to a page: may be asked to come again, and to follow links.
    pub(super) navigates: bool,
    pub(super) head: bool,
}

impl Asker {
    pub(super) fn of(request: &Request) -> Self {
        let headers = request.headers();
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let destination = text(&HeaderName::from_static("sec-fetch-dest"));
        let shown = matches!(destination, None | Some("document" | "iframe" | "frame" | "embed" | "object"));
        let html = shown
            && text(&header::ACCEPT).is_some_and(|accept| accept.contains("text/html"))
            && !headers.contains_key("x-requested-with");
        let method = request.method();
        let navigates = html && matches!(*method, Method::GET | Method::HEAD);
        Self { html, navigates, head: *method == Method::HEAD }
    }
}

/// The answer in the target's place.
pub(super) fn tell(trouble: &Trouble, asker: &Asker) -> Response {
    let told = text(trouble);
    let (kind, body) = if asker.html {
        ("text/html; charset=utf-8", html(&told, trouble, asker))
    } else {
        ("application/problem+json", problem(&told, trouble))
    };
    let mut response = Response::new(if asker.head { Body::empty() } else { Body::from(body) });
    *response.status_mut() = trouble.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    guard(headers);
    if let Some(seconds) = trouble.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(trouble, Trouble::Method) {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    response
}

/// Nothing runs, nothing is fetched, and nothing of it is kept.
fn guard(headers: &mut HeaderMap) {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn problem(told: &Text, trouble: &Trouble) -> String {
    json!({
        "type": format!("urn:landline:problem:{}", trouble.word()),
        "title": told.title,
        "status": trouble.status().as_u16(),
        "detail": told.paragraphs.join(" "),
        "code": trouble.word(),
    })
    .to_string()
}

fn html(told: &Text, trouble: &Trouble, asker: &Asker) -> String {
    let comes_back = trouble.retry_after().filter(|_| asker.navigates);
    let refresh = comes_back.map(|s| format!("<meta http-equiv=\"refresh\" content=\"{s}\">")).unwrap_or_default();
    let waiting = if comes_back.is_some() { "<div class=\"wait\" role=\"progressbar\"></div>" } else { "" };
    let paragraphs: String = told.paragraphs.iter().map(|text| format!("<p>{}</p>", escape(text))).collect();
    let facts: String =
        told.facts.iter().map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))).collect();
    let facts = if facts.is_empty() { facts } else { format!("<dl>{facts}</dl>") };
    let command = told.command.as_ref().map(|text| format!("<pre>{}</pre>", escape(text))).unwrap_or_default();
    let link = told.link.as_ref().map(|(address, name)| {
        format!("<p><a rel=\"noreferrer\" href=\"{}\">{}</a></p>", escape(address), escape(name))
    });
    let link = link.unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{refresh}\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main><p class=\"brand\">Landline</p><h1>{title}</h1>{waiting}{paragraphs}{facts}{link}{command}\
         <p class=\"code\">{code}</p></main></body></html>",
        title = escape(told.title),
        code = trouble.word(),
    )
}

/// Foreign text as text.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: Asker = Asker { html: true, navigates: true, head: false };

    #[test]
    fn foreign_text_stays_text() {
        let evil = "https://x/\"><script>alert(1)</script>";
        let trouble = Trouble::Away { address: evil.to_owned() };
        let page = html(&text(&trouble), &trouble, &PERSON);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
        assert!(!page.contains("/\">"), "{page}");
    }

    #[test]
    fn only_a_page_that_can_be_asked_for_again_comes_back_by_itself() {
        let page = |asker: &Asker| html(&text(&Trouble::Reconnecting), &Trouble::Reconnecting, asker);
        assert!(page(&PERSON).contains("http-equiv=\"refresh\""));
        assert!(!page(&Asker { navigates: false, ..PERSON }).contains("http-equiv"));
    }

    #[test]
    fn the_policy_lets_our_own_style_through_and_nothing_else() {
        let response = tell(&Trouble::NoVisit, &PERSON);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        let json = tell(&Trouble::NoVisit, &Asker { html: false, ..PERSON });
        assert_eq!(json.headers()["content-type"], "application/problem+json");
    }
}
