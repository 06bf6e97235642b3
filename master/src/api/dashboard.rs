//! The dashboard's files at `/`, as the build left them in `master/dashboard/dist`: release builds hold them in the
//! binary, others read them there. Owns their headers (SECURITY R53); knows nothing of what the pages do.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, Uri, header},
    response::{Html, IntoResponse, Response},
};
use rand::Rng as _;
use rust_embed::{Embed, EmbeddedFile};
use tower_http::compression::CompressionLayer;

use super::problem::Kind;

/// What `vite build` wrote.
#[derive(Embed)]
#[folder = "dashboard/dist/"]
#[allow_missing = true]
struct Files;

const INDEX: &str = "index.html";
/// Stands in the page where each answer's own nonce goes.
const NONCE: &str = "landline-nonce";
/// Names under it hold a hash of their content.
const ASSETS: &str = "assets/";
/// First segments of the addresses that the dashboard's own router shows.
const PAGES: [&str; 12] = [
    "", "setup", "login", "fleet", "agents", "tunnels", "sessions", "audit", "enrol", "people", "settings", "commands",
];
const NOT_BUILT: &str = "The dashboard was not built into this master.\n\n\
    Build it with `make dashboard` (it needs Node.js 20 or newer and npm), then build the master again.\n\
    Everything else works without it: the API is at /api/v1, described at /api/v1/openapi.json.\n";

/// Answers what no route of the API does.
pub(super) fn router() -> Router {
    Router::new().fallback(serve).layer(CompressionLayer::new())
}

async fn serve(method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if method != Method::GET && method != Method::HEAD {
        return missing();
    }
    if let Some(file) = Files::get(path).filter(|_| path != INDEX) {
        return asset(path, file);
    }
    let page = PAGES.contains(&path.split('/').next().unwrap_or_default());
    match Files::get(INDEX).filter(|_| page) {
        Some(index) => shell(&index.data),
        None if page => ([(header::CACHE_CONTROL, "no-store")], NOT_BUILT).into_response(),
        None => missing(),
    }
}

fn missing() -> Response {
    Kind::NotFound.problem("there is no such path; see docs/API.md").into_response()
}

fn asset(path: &str, file: EmbeddedFile) -> Response {
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let cache = if path.starts_with(ASSETS) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = file.data.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(kind) = HeaderValue::from_str(kind.as_ref()) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    guarded(response, "default-src 'self'; frame-ancestors 'none'")
}

/// The page itself, with a nonce for the styles that the terminal makes as it runs.
fn shell(index: &[u8]) -> Response {
    let nonce = hex::encode(rand::rng().random::<[u8; 16]>());
    let page = String::from_utf8_lossy(index).replace(NONCE, &nonce);
    let mut response = Html(page).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = format!(
        "default-src 'self'; style-src 'self' 'nonce-{nonce}'; object-src 'none'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    guarded(response, &policy)
}

fn guarded(mut response: Response, policy: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The window of a machine's own page must stay visible to the tab that opened it, which closes its tunnel.
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin-allow-popups"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(method: Method, path: &str) -> (u16, Response) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        (response.status().as_u16(), response)
    }

    #[tokio::test]
    async fn only_the_dashboards_own_addresses_have_a_page() {
        for page in ["/", "/fleet", "/agents/home-1/files", "/setup"] {
            let (status, response) = ask(Method::GET, page).await;
            assert_eq!(status, 200, "{page}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store", "{page}");
        }
        for other in ["/nowhere", "/assets/none.js", "/api/v1/nothing", "/metrics"] {
            assert_eq!(ask(Method::GET, other).await.0, 404, "{other}");
        }
        assert_eq!(ask(Method::POST, "/").await.0, 404);
    }

    #[tokio::test]
    async fn a_page_runs_no_inline_script_and_stands_in_no_frame() {
        let index = format!("<meta content=\"{NONCE}\">");
        let first = shell(index.as_bytes());
        let policy = first.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
        let nonce = policy.split_once("nonce-").unwrap().1.split_once('\'').unwrap().0.to_owned();
        let body = axum::body::to_bytes(first.into_body(), 1000).await.unwrap();
        assert_eq!(body, format!("<meta content=\"{nonce}\">"));
        let second = shell(index.as_bytes());
        assert_ne!(second.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap(), policy);
    }
}
