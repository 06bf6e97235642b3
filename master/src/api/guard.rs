//! What every request passes before anything looks at who sent it: the host it asks for, the shape of its path, and a
//! net under every handler. The same for every HTTP listener (SECURITY R52, R55, R56, R38).

use std::{any::Any, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::{CONTENT_TYPE, Kind, Problem};

const LOOPBACK_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// The host names a listener answers to: loopback's and the configured ones. Any port: a forwarded one differs.
#[derive(Debug, Clone)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    pub fn new(configured: &[String]) -> Self {
        let names = LOOPBACK_NAMES.into_iter().map(str::to_owned);
        Self(names.chain(configured.iter().map(|name| name.to_ascii_lowercase())).collect())
    }

    pub(super) fn allows(&self, host: &str) -> bool {
        let name = match (host.starts_with('['), host.rsplit_once(':')) {
            // Brackets hold colons of their own.
            (true, _) => host.find(']').map_or(host, |end| &host[..=end]),
            (false, Some((name, port))) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            (false, _) => host,
        };
        self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

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

/// The one host a request names: in its target if it is absolute, else in its only Host header.
fn host(request: &Request) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() {
        return None;
    }
    match request.uri().authority() {
        Some(authority) => named.filter(|named| *named == authority.as_str()),
        None => named,
    }
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
    fn only_known_hosts_are_served() {
        let hosts = Hosts::new(&["Panel.example".to_owned()]);
        for good in ["127.0.0.1:7800", "localhost", "LOCALHOST:1", "[::1]:7800", "[::1]", "panel.example:80"] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil", "127.0.0.1@evil", "[::1", "[::2]"] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let request = |target: &str, hosts: &[&str]| {
            let builder = Request::builder().uri(target);
            let builder = hosts.iter().fold(builder, |builder, host| builder.header(header::HOST, *host));
            builder.body(axum::body::Body::empty()).unwrap()
        };
        assert_eq!(host(&request("/x", &["localhost"])), Some("localhost"));
        assert_eq!(host(&request("/x", &[])), None);
        assert_eq!(host(&request("/x", &["localhost", "localhost"])), None);
        assert_eq!(host(&request("http://evil/x", &["localhost"])), None);
    }

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
