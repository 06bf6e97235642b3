//! Every route × everyone who may come (SECURITY R13). What each gets is written down here, apart from the code that
//! decides it: a route without a row fails, and so does one whose row says otherwise.

use landline::api::routes::{PANEL_CALLS, ROUTES};
use reqwest::Method;

use crate::master::Master;

/// Who gets past the gate: from the least on, everyone above too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Least {
    Anyone,
    Viewer,
    Operator,
    Admin,
    /// An admin whom no selector narrows.
    WholeFleet,
}

use Least::{Admin, Anyone, Operator, Viewer, WholeFleet};

#[rustfmt::skip]
const EXPECTED: &[(&str, &str, Least)] = &[
    ("GET", "/healthz", Anyone),
    ("GET", "/readyz", Anyone),
    ("GET", "/api/v1/openapi.json", Anyone),
    ("POST", "/api/v1/setup", Anyone),
    ("POST", "/api/v1/login", Anyone),
    ("GET", "/api/v1/session", Viewer),
    ("DELETE", "/api/v1/session", Viewer),
    ("POST", "/api/v1/session/step-up", Viewer),
    ("POST", "/api/v1/session/password", Viewer),
    ("POST", "/api/v1/session/totp", Viewer),
    ("PUT", "/api/v1/session/totp", Viewer),
    ("DELETE", "/api/v1/session/totp", Viewer),
    ("GET", "/api/v1/session/mine", Viewer),
    ("DELETE", "/api/v1/session/mine/{id}", Viewer),
    ("GET", "/api/v1/agents", Viewer),
    ("POST", "/api/v1/agents", Admin),
    ("GET", "/api/v1/agents/{id}", Viewer),
    ("PATCH", "/api/v1/agents/{id}", Admin),
    ("DELETE", "/api/v1/agents/{id}", Admin),
    ("GET", "/api/v1/agents/{id}/timeline", Viewer),
    ("GET", "/api/v1/agents/{id}/samples", Viewer),
    ("GET", "/api/v1/live", Viewer),
    ("POST", "/api/v1/agents/{id}/secret", Admin),
    ("POST", "/api/v1/agents/{id}/rotate", Admin),
    ("POST", "/api/v1/agents/{id}/commands", Operator),
    ("POST", "/api/v1/agents/{id}/exec", Operator),
    ("GET", "/api/v1/agents/{id}/execs", Operator),
    ("GET", "/api/v1/execs", Operator),
    ("GET", "/api/v1/execs/{id}", Operator),
    ("DELETE", "/api/v1/execs/{id}", Operator),
    ("GET", "/api/v1/execs/{id}/output", Operator),
    ("PUT", "/api/v1/execs/{id}/stdin", Operator),
    ("GET", "/api/v1/tunnels", Viewer),
    ("POST", "/api/v1/tunnels", Operator),
    ("GET", "/api/v1/tunnels/{id}", Viewer),
    ("DELETE", "/api/v1/tunnels/{id}", Operator),
    ("POST", "/api/v1/tunnels/{id}/heartbeat", Operator),
    ("POST", "/api/v1/tunnels/{id}/extend", Operator),
    ("POST", "/api/v1/tunnels/{id}/ticket", Operator),
    ("GET", "/api/v1/tunnels/{id}/pin", Viewer),
    ("POST", "/api/v1/tunnels/{id}/pin", Operator),
    ("GET", "/api/v1/presence", Operator),
    ("GET", "/api/v1/agents/{id}/shells", Viewer),
    ("POST", "/api/v1/agents/{id}/shells", Operator),
    ("GET", "/api/v1/shells", Viewer),
    ("GET", "/api/v1/shells/{id}", Viewer),
    ("DELETE", "/api/v1/shells/{id}", Operator),
    ("GET", "/api/v1/shells/{id}/recording", Viewer),
    ("GET", "/api/v1/shells/{id}/attach", Viewer),
    ("GET", "/api/v1/agents/{id}/connect", Operator),
    ("GET", "/api/v1/agents/{id}/files/content", Operator),
    ("PUT", "/api/v1/agents/{id}/files/content", Operator),
    ("POST", "/api/v1/agents/{id}/files/{operation}", Operator),
    ("GET", "/api/v1/agents/{id}/files/tree", Operator),
    ("GET", "/api/v1/agents/{id}/files/upload", Operator),
    ("GET", "/api/v1/events", Viewer),
    ("GET", "/api/v1/enrolment-keys", Operator),
    ("POST", "/api/v1/enrolment-keys", Admin),
    ("DELETE", "/api/v1/enrolment-keys/{id}", Admin),
    ("GET", "/api/v1/enrolments", Operator),
    ("POST", "/api/v1/enrolments/{id}/approve", Admin),
    ("POST", "/api/v1/enrolments/{id}/reject", Admin),
    ("GET", "/api/v1/audit", Admin),
    ("GET", "/api/v1/audit/verify", WholeFleet),
    ("GET", "/api/v1/audit/export", Admin),
    ("GET", "/api/v1/tokens", Operator),
    ("POST", "/api/v1/tokens", Operator),
    ("DELETE", "/api/v1/tokens/{id}", Operator),
    ("GET", "/api/v1/operators", WholeFleet),
    ("POST", "/api/v1/operators", WholeFleet),
    ("GET", "/api/v1/operators/{id}", WholeFleet),
    ("PATCH", "/api/v1/operators/{id}", WholeFleet),
    ("DELETE", "/api/v1/operators/{id}", WholeFleet),
    ("GET", "/api/v1/operators/{id}/sessions", WholeFleet),
    ("DELETE", "/api/v1/operators/{id}/sessions/{session}", WholeFleet),
];

const NO_ID: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_open_to_whom_the_table_says() {
    let master = Master::start().await;
    let mut who = Vec::new();
    for (role, word) in [(Viewer, "viewer"), (Operator, "operator"), (Admin, "admin")] {
        for selector in ["", "site=home"] {
            let name = format!("{word}-{selector}").replace('=', ".");
            let browser = master.browser(&name, word, selector).await;
            who.push((role, selector, name, browser));
        }
    }
    let panel = PANEL_CALLS.map(|call| ("POST", format!("/api/{call}"), Admin));
    let mut rows: Vec<(&str, String, Least)> = panel.into();
    for route in ROUTES {
        let found = EXPECTED.iter().find(|(method, path, _)| (*method, *path) == (route.method, route.path));
        let Some((_, _, from)) = found else { panic!("{} {} has no row here", route.method, route.path) };
        rows.push((route.method, route.path.to_owned(), *from));
    }
    assert_eq!(EXPECTED.len(), ROUTES.len(), "a row here has no route");
    for (method, path, from) in rows.iter().filter(|(_, path, _)| !path.contains("/setup")) {
        let method: Method = method.parse().unwrap();
        let path = path.replace("{id}", NO_ID).replace("{session}", NO_ID).replace("{operation}", "list");
        let nobody = master.send(master.request(method.clone(), &path)).await;
        let let_in = !matches!(nobody.code(), (401, "unauthorized"));
        assert_eq!(let_in, *from == Anyone, "{method} {path} for nobody: {}", nobody.body);
        let foreign = master.request(method.clone(), &path).header("Cookie", "__Host-landline=lls_unknown");
        assert_eq!(master.send(foreign).await.status == 401, *from != Anyone, "{method} {path} for a made-up cookie");
        for (role, selector, name, browser) in &mut who {
            let response = master.page(browser, method.clone(), &path).send().await.unwrap();
            let status = response.status().as_u16();
            // The event stream does not end by itself.
            let code = match path.as_str() {
                "/api/v1/events" if status == 200 => String::new(),
                _ => {
                    let body: serde_json::Value = response.json().await.unwrap_or_default();
                    body["code"].as_str().unwrap_or_default().to_owned()
                }
            };
            let stands = if *role == Admin && selector.is_empty() { WholeFleet } else { *role };
            let let_in = (status, code.as_str()) != (403, "forbidden");
            assert_eq!(let_in, *from <= stands, "{method} {path} for {name}: {status} {code}");
            assert!(status != 401 && status < 500, "{method} {path} for {name}: {status} {code}");
            if (&method, path.as_str()) == (&Method::DELETE, "/api/v1/session") {
                *browser = master.signed_in(name).await;
            }
        }
    }
    master.app.stop().await;
}
