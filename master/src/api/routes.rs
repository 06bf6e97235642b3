//! The one table of what may be called and what it takes (SECURITY R13). A route that is not in it answers 403, and a
//! test holds it to the router and to the OpenAPI document.

use axum::http::Method;

use crate::access::Action;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Anyone who reaches the socket.
    Anyone,
    /// A token or a session that may do this; handlers ask again about the object.
    Token(Action),
    /// A person's session, about itself.
    Session,
}

/// How a repeated call with the same `Idempotency-Key` is kept from doing it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing, or repeating it changes nothing more, or its shape has its own id.
    Harmless,
    /// The answer is kept and given again.
    Answered,
    /// The same, but the answer holds a secret and is kept in memory only.
    AnsweredSecretly,
    /// The rows it makes carry the key.
    Own,
    /// Cannot be: the answer is a stream.
    Refused,
}

#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub permit: Permit,
    pub repeat: Repeat,
}

const fn route(method: &'static str, path: &'static str, action: Action, repeat: Repeat) -> Route {
    Route { method, path, permit: Permit::Token(action), repeat }
}

const fn open(path: &'static str) -> Route {
    Route { method: "GET", path, permit: Permit::Anyone, repeat: Repeat::Harmless }
}

const fn knock(path: &'static str) -> Route {
    Route { method: "POST", path, permit: Permit::Anyone, repeat: Repeat::Harmless }
}

const fn own(method: &'static str, path: &'static str) -> Route {
    Route { method, path, permit: Permit::Session, repeat: Repeat::Harmless }
}

/// The one route that ends to exist.
pub const SETUP: &str = "/api/v1/setup";
const SESSION: &str = "/api/v1/session";
const TOTP: &str = "/api/v1/session/totp";
const OPERATORS: &str = "/api/v1/operators";
const OPERATOR: &str = "/api/v1/operators/{id}";
const AGENTS: &str = "/api/v1/agents";
const AGENT: &str = "/api/v1/agents/{id}";
const TUNNELS: &str = "/api/v1/tunnels";
const TUNNEL: &str = "/api/v1/tunnels/{id}";
const PIN: &str = "/api/v1/tunnels/{id}/pin";
const CONTENT: &str = "/api/v1/agents/{id}/files/content";
const KEYS: &str = "/api/v1/enrolment-keys";
const TOKENS: &str = "/api/v1/tokens";

/// Every route of the internal socket.
pub const ROUTES: &[Route] = &[
    open("/healthz"),
    open("/readyz"),
    open("/api/v1/openapi.json"),
    route("GET", AGENTS, Action::AgentsList, Repeat::Harmless),
    route("POST", AGENTS, Action::AgentAdd, Repeat::AnsweredSecretly),
    route("GET", AGENT, Action::AgentRead, Repeat::Harmless),
    route("PATCH", AGENT, Action::AgentChange, Repeat::Answered),
    route("DELETE", AGENT, Action::AgentRemove, Repeat::Answered),
    route("GET", "/api/v1/agents/{id}/timeline", Action::EventsRead, Repeat::Harmless),
    route("GET", "/api/v1/agents/{id}/samples", Action::AgentRead, Repeat::Harmless),
    route("GET", "/api/v1/live", Action::AgentsList, Repeat::Harmless),
    route("POST", "/api/v1/agents/{id}/secret", Action::AgentResecret, Repeat::AnsweredSecretly),
    route("POST", "/api/v1/agents/{id}/rotate", Action::AgentRotate, Repeat::Answered),
    route("POST", "/api/v1/agents/{id}/commands", Action::CommandRun, Repeat::Answered),
    route("POST", "/api/v1/agents/{id}/exec", Action::ExecRun, Repeat::Refused),
    route("GET", "/api/v1/agents/{id}/execs", Action::ExecRead, Repeat::Harmless),
    route("GET", "/api/v1/execs", Action::ExecRead, Repeat::Harmless),
    route("GET", "/api/v1/execs/{id}", Action::ExecRead, Repeat::Harmless),
    route("DELETE", "/api/v1/execs/{id}", Action::ExecCancel, Repeat::Answered),
    route("GET", "/api/v1/execs/{id}/output", Action::ExecRead, Repeat::Harmless),
    route("PUT", "/api/v1/execs/{id}/stdin", Action::ExecRun, Repeat::Harmless),
    route("GET", TUNNELS, Action::TunnelsList, Repeat::Harmless),
    route("POST", TUNNELS, Action::TunnelOpen, Repeat::Own),
    route("GET", TUNNEL, Action::TunnelRead, Repeat::Harmless),
    route("DELETE", TUNNEL, Action::TunnelClose, Repeat::Answered),
    route("POST", "/api/v1/tunnels/{id}/heartbeat", Action::TunnelBeat, Repeat::Answered),
    route("POST", "/api/v1/tunnels/{id}/extend", Action::TunnelExtend, Repeat::Answered),
    route("POST", "/api/v1/tunnels/{id}/ticket", Action::TunnelEnter, Repeat::AnsweredSecretly),
    route("GET", PIN, Action::TunnelRead, Repeat::Harmless),
    route("POST", PIN, Action::TunnelTrust, Repeat::Answered),
    route("GET", "/api/v1/presence", Action::TunnelBeat, Repeat::Harmless),
    route("GET", "/api/v1/agents/{id}/shells", Action::ShellsList, Repeat::Harmless),
    route("POST", "/api/v1/agents/{id}/shells", Action::ShellOpen, Repeat::Answered),
    route("GET", "/api/v1/shells", Action::ShellsList, Repeat::Harmless),
    route("GET", "/api/v1/shells/{id}", Action::ShellRead, Repeat::Harmless),
    route("DELETE", "/api/v1/shells/{id}", Action::ShellClose, Repeat::Answered),
    route("GET", "/api/v1/shells/{id}/recording", Action::RecordingRead, Repeat::Harmless),
    route("GET", "/api/v1/shells/{id}/attach", Action::ShellAttach, Repeat::Harmless),
    route("GET", "/api/v1/agents/{id}/connect", Action::Connect, Repeat::Harmless),
    route("GET", CONTENT, Action::FilesRead, Repeat::Harmless),
    route("PUT", CONTENT, Action::FilesWrite, Repeat::Harmless),
    route("POST", "/api/v1/agents/{id}/files/{operation}", Action::FilesRead, Repeat::Answered),
    route("GET", "/api/v1/agents/{id}/files/tree", Action::FilesRead, Repeat::Harmless),
    route("GET", "/api/v1/agents/{id}/files/upload", Action::FilesWrite, Repeat::Harmless),
    route("GET", "/api/v1/events", Action::EventsRead, Repeat::Harmless),
    route("GET", KEYS, Action::EnrolList, Repeat::Harmless),
    route("POST", KEYS, Action::EnrolKeyCreate, Repeat::AnsweredSecretly),
    route("DELETE", "/api/v1/enrolment-keys/{id}", Action::EnrolKeyRevoke, Repeat::Answered),
    route("GET", "/api/v1/enrolments", Action::EnrolList, Repeat::Harmless),
    route("POST", "/api/v1/enrolments/{id}/approve", Action::EnrolDecide, Repeat::Answered),
    route("POST", "/api/v1/enrolments/{id}/reject", Action::EnrolDecide, Repeat::Answered),
    route("GET", TOKENS, Action::TokensList, Repeat::Harmless),
    route("POST", TOKENS, Action::TokenCreate, Repeat::AnsweredSecretly),
    route("DELETE", "/api/v1/tokens/{id}", Action::TokenRevoke, Repeat::Answered),
    route("GET", "/api/v1/audit", Action::AuditRead, Repeat::Harmless),
    route("GET", "/api/v1/audit/verify", Action::AuditVerify, Repeat::Harmless),
    route("GET", "/api/v1/audit/export", Action::AuditRead, Repeat::Harmless),
    knock(SETUP),
    knock("/api/v1/login"),
    own("GET", SESSION),
    own("DELETE", SESSION),
    own("POST", "/api/v1/session/step-up"),
    own("POST", "/api/v1/session/password"),
    own("POST", TOTP),
    own("PUT", TOTP),
    own("DELETE", TOTP),
    own("GET", "/api/v1/session/mine"),
    own("DELETE", "/api/v1/session/mine/{id}"),
    route("GET", OPERATORS, Action::OperatorsList, Repeat::Harmless),
    route("POST", OPERATORS, Action::OperatorAdd, Repeat::Answered),
    route("GET", OPERATOR, Action::OperatorRead, Repeat::Harmless),
    route("PATCH", OPERATOR, Action::OperatorChange, Repeat::Answered),
    route("DELETE", OPERATOR, Action::OperatorRemove, Repeat::Answered),
    route("GET", "/api/v1/operators/{id}/sessions", Action::OperatorRead, Repeat::Harmless),
    route("DELETE", "/api/v1/operators/{id}/sessions/{session}", Action::OperatorChange, Repeat::Answered),
];

/// The names of the original panel's calls, each taken with and without `.php`, as GET and as POST.
pub const PANEL_CALLS: [&str; 4] = ["quickconnect_check", "tunnel_status", "tunnel_heartbeat", "tunnel_close"];

/// What the table says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Known(Permit, Repeat),
    /// The path is known, with these methods.
    OtherMethods(&'static str),
    Missing,
}

/// Looks up a method and the router's pattern of a path. HEAD is GET without its body.
pub fn entry(method: &Method, pattern: &str) -> Entry {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some(call) = pattern.strip_prefix("/api/").map(|call| call.strip_suffix(".php").unwrap_or(call))
        && PANEL_CALLS.contains(&call)
    {
        return match method {
            "GET" | "POST" => Entry::Known(Permit::Token(Action::PanelCall), Repeat::Harmless),
            _ => Entry::OtherMethods("GET, HEAD, POST"),
        };
    }
    if let Some(found) = ROUTES.iter().find(|route| route.method == method && route.path == pattern) {
        return Entry::Known(found.permit, found.repeat);
    }
    allowed(pattern).map_or(Entry::Missing, Entry::OtherMethods)
}

/// The methods of a path, as the `Allow` header has them.
fn allowed(pattern: &str) -> Option<&'static str> {
    let has = |method: &str| ROUTES.iter().any(|route| route.method == method && route.path == pattern);
    allow(has("GET"), has("POST"), has("PUT"), has("PATCH"), has("DELETE"))
}

fn allow(get: bool, post: bool, put: bool, patch: bool, delete: bool) -> Option<&'static str> {
    match (get, post, put, patch, delete) {
        (true, true, false, false, false) => Some("GET, HEAD, POST"),
        (true, false, true, false, false) => Some("GET, HEAD, PUT"),
        (true, false, false, true, true) => Some("GET, HEAD, PATCH, DELETE"),
        (true, false, false, false, true) => Some("GET, HEAD, DELETE"),
        (true, false, false, false, false) => Some("GET, HEAD"),
        (false, true, true, false, true) => Some("POST, PUT, DELETE"),
        (false, true, false, false, false) => Some("POST"),
        (false, false, true, false, false) => Some("PUT"),
        (false, false, false, false, true) => Some("DELETE"),
        (false, false, false, false, false) => None,
        _ => Some("GET, HEAD, POST, PUT, PATCH, DELETE"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_holds_each_route_once_and_each_documented_one() {
        let table: BTreeSet<_> = ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        assert_eq!(table.len(), ROUTES.len());
        let document = serde_json::to_value(crate::api::openapi::document()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in ["get", "post", "put", "patch", "delete", "head", "options", "trace"] {
                if item.get(method).is_some() {
                    documented.insert((path.clone(), method.to_uppercase()));
                }
            }
        }
        let undocumented =
            ["/healthz", "/readyz", "/api/v1/openapi.json"].map(|path| (path.to_owned(), "GET".to_owned()));
        documented.extend(undocumented);
        assert_eq!(table, documented, "routes and table differ");
    }

    #[test]
    fn a_path_that_is_put_says_so() {
        assert_eq!(allow(false, false, true, false, false), Some("PUT"));
        assert_eq!(allow(true, false, true, false, false), Some("GET, HEAD, PUT"));
        assert_eq!(allow(false, false, false, false, false), None);
    }

    #[test]
    fn what_is_not_in_the_table_is_missing() {
        assert_eq!(entry(&Method::GET, "/api/v1/secrets"), Entry::Missing);
        assert_eq!(entry(&Method::PUT, AGENT), Entry::OtherMethods("GET, HEAD, PATCH, DELETE"));
        assert_eq!(entry(&Method::HEAD, AGENT), Entry::Known(Permit::Token(Action::AgentRead), Repeat::Harmless));
        for path in ["/api/tunnel_close", "/api/tunnel_close.php"] {
            let panel = Entry::Known(Permit::Token(Action::PanelCall), Repeat::Harmless);
            assert_eq!(entry(&Method::POST, path), panel);
            assert!(matches!(entry(&Method::DELETE, path), Entry::OtherMethods(_)));
        }
    }

    #[test]
    fn only_health_the_document_and_the_doors_need_nobody_known() {
        let open: Vec<_> =
            ROUTES.iter().filter(|route| route.permit == Permit::Anyone).map(|route| route.path).collect();
        assert_eq!(open, ["/healthz", "/readyz", "/api/v1/openapi.json", "/api/v1/setup", "/api/v1/login"]);
    }
}
