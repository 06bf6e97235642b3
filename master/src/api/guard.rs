//! What every request passes before anything looks at who sent it: the host it asks for, the shape of its path, and a
//! net under every handler. The same for every HTTP listener (SECURITY R52, R55, R56, R38).

use std::any::Any;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::{CONTENT_TYPE, Kind, Problem};
pub use crate::http::hosts::Hosts;
use crate::http::hosts::host;

/// Refuses requests for a host that is not served here: a page in an operator's browser reaches loopback by a name of
/// its own (DNS rebinding).
pub async fn check_host(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    match host(&request) {
        Some(host) if hosts.allows(host) => {}
        Some(_) | None => {
            return Kind::Misdirected
                .problem("this host name is not served here; use 127.0.0.1, or add the name to `internal.hosts`")
                .into_response();
        }
    }
    if is_ambiguous(request.uri().path()) {
        return Kind::BadRequest.problem("the path holds an encoded slash, ';', '//' or a dot segment").into_response();
    }
    next.run(request).await
}

/// Paths that two readers could read differently.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let odd = ["%2f", "%5c", "%00", ";", "//", "\\"];
    odd.into_iter().any(|part| lower.contains(part))
        || lower.split('/').any(|segment| matches!(segment.replace("%2e", ".").as_str(), "." | ".."))
}

/// Empty answers of the framework (405 of a known path, for one) become problems; the rest passes unchanged.
pub async fn problems_everywhere(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let framework = (status.is_client_error() || status.is_server_error()) && !has_body_of_ours(response.headers());
    if !framework {
        return response;
    }
    let kind = match status {
        StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::MediaType,
        _ if status.is_client_error() => Kind::BadRequest,
        _ => Kind::Internal,
    };
    let mut problem = kind.problem("see docs/API.md for the paths and methods there are").into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}

fn has_body_of_ours(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind == CONTENT_TYPE || kind == "application/json"
}

/// What a caller is told when a handler panicked: nothing of the panic.
pub fn panicked(panic: &(dyn Any + Send)) -> Problem {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(panic = text, "an HTTP handler panicked");
    Kind::Internal.problem("the master failed on this request; its log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_reading() {
        for good in ["/api/v1/agents", "/api/v1/agents/home-1.x", "/api/tunnel_status.php", "/a/..b"] {
            assert!(!is_ambiguous(good), "{good}");
        }
        for bad in ["/a%2fb", "/a%2Fb", "/a;b", "//a", "/a/../b", "/a/%2e%2E/b", "/a/./b", "/a%5cb", "/a%00"] {
            assert!(is_ambiguous(bad), "{bad}");
        }
    }
}
