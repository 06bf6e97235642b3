//! The four calls of the original panel, with and without `.php`, so that a panel can move over by URL. Owns their
//! shapes; the token is as everywhere, `request_id` is the tunnel's id, `firewall_id` the agent's external id.

use std::{collections::BTreeMap, str::FromStr};

use axum::{
    Json as Reply, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use proto::id::TunnelId;
use serde_json::{Value, json};

use super::{
    extract::{BODY_MAX, read_body},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
    tunnels::{by, visible},
};
use crate::{
    access::Action,
    store::{
        Page,
        tunnels::{TunnelFilter, TunnelStatus},
    },
    tunnel::CloseReason,
};

/// A call's name and what makes its handlers.
type Call = (&'static str, fn() -> MethodRouter<Api>);

pub(super) fn router() -> Router<Api> {
    let calls: [Call; 4] = [
        ("quickconnect_check", || get(quickconnect_check).post(quickconnect_check)),
        ("tunnel_status", || get(tunnel_status).post(tunnel_status)),
        ("tunnel_heartbeat", || get(tunnel_heartbeat).post(tunnel_heartbeat)),
        ("tunnel_close", || get(tunnel_close).post(tunnel_close)),
    ];
    calls.into_iter().fold(Router::new(), |router, (name, handlers)| {
        router.route(&format!("/api/{name}"), handlers()).route(&format!("/api/{name}.php"), handlers())
    })
}

/// A failure in the panel's own shape; everything else is a problem as elsewhere.
struct Failed(StatusCode, String);

impl Failed {
    fn unknown() -> Self {
        Self(StatusCode::NOT_FOUND, "there is no such id".to_owned())
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem.detail)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Reply(json!({ "success": false, "error": self.1 }))).into_response()
    }
}

/// Whether somebody waits for this agent: for a tunnel to come up, or, while it is away, for anything.
async fn quickconnect_check(State(api): State<Api>, caller: Caller, request: Request) -> Result<Reply<Value>, Failed> {
    let fields = Fields::read(request).await?;
    let external_id: i64 = fields.parsed("firewall_id")?.ok_or_else(|| missing("firewall_id"))?;
    let found = api.store.agents().by_external_id(external_id).await.map_err(Problem::from)?;
    let agent = found.ok_or_else(Failed::unknown)?;
    api.allow(&caller, Action::PanelCall, &agent.id).await?;
    let waits = api.fleet.is_needed(&agent.id) && api.fleet.line(&agent.id).is_none();
    let filter =
        TunnelFilter { agent_id: Some(agent.id), status: Some(TunnelStatus::Pending), ..TunnelFilter::default() };
    let pending = api.tunnels.list(&filter, &Page { cursor: None, limit: 1 }).await.map_err(Problem::from)?;
    Ok(Reply(json!({ "has_requests": waits || !pending.items.is_empty() })))
}

/// What the panel sees of its end. It never forces a state: a final word closes the tunnel, the rest is noted.
async fn tunnel_status(State(api): State<Api>, caller: Caller, request: Request) -> Result<Reply<Value>, Failed> {
    let fields = Fields::read(request).await?;
    let id = fields.tunnel()?;
    visible(&api, &caller, Action::PanelCall, id).await?;
    let (pid, port) = (fields.parsed("tunnel_pid")?, fields.parsed("tunnel_port")?);
    if pid.is_some() || port.is_some() {
        api.tunnels.report(id, pid, port).await.map_err(Problem::from)?;
    }
    match fields.text("status") {
        None | Some("pending" | "active" | "connected") => {}
        Some("disconnected" | "timeout" | "expired" | "closed" | "failed" | "error") => {
            api.tunnels.close(id, CloseReason::ClosedByUser, by(&caller)).await.map_err(Problem::from)?;
        }
        Some(_) => {
            let words = "status is pending, active, disconnected, timeout or expired";
            return Err(Failed(StatusCode::UNPROCESSABLE_ENTITY, words.to_owned()));
        }
    }
    Ok(Reply(json!({ "success": true })))
}

async fn tunnel_heartbeat(State(api): State<Api>, caller: Caller, request: Request) -> Result<Reply<Value>, Failed> {
    let id = Fields::read(request).await?.tunnel()?;
    visible(&api, &caller, Action::PanelCall, id).await?;
    let alive = api.tunnels.heartbeat(id).await.map_err(Problem::from)?.ok_or_else(Failed::unknown)?;
    Ok(Reply(json!({ "keep_alive": alive })))
}

async fn tunnel_close(State(api): State<Api>, caller: Caller, request: Request) -> Result<Reply<Value>, Failed> {
    let id = Fields::read(request).await?.tunnel()?;
    visible(&api, &caller, Action::PanelCall, id).await?;
    api.tunnels.close(id, CloseReason::ClosedByUser, by(&caller)).await.map_err(Problem::from)?;
    Ok(Reply(json!({ "success": true })))
}

/// The fields of a call: from its query, and from its body as a form or as JSON, which weighs more. What is not known is
/// ignored: old panels send more.
struct Fields(BTreeMap<String, String>);

impl Fields {
    async fn read(request: Request) -> Result<Self, Problem> {
        let content = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let content = content.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut fields = form(request.uri().query().unwrap_or_default().as_bytes());
        let body = read_body(request, BODY_MAX).await?;
        if body.is_empty() {
            return Ok(Self(fields));
        }
        match content.as_str() {
            "application/x-www-form-urlencoded" => fields.extend(form(&body)),
            // Scripts post JSON under any name, or none.
            _ => fields.extend(json_fields(&body)?),
        }
        Ok(Self(fields))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failed> {
        let wrong = |_| Failed(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is no number"));
        self.text(name).map(str::parse).transpose().map_err(wrong)
    }

    /// An id that cannot be one is unknown like any other.
    fn tunnel(&self) -> Result<TunnelId, Failed> {
        let text = self.text("request_id").ok_or_else(|| missing("request_id"))?;
        text.parse().map_err(|_| Failed::unknown())
    }
}

fn missing(name: &str) -> Failed {
    Failed(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is missing"))
}

fn form(bytes: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(bytes).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Numbers and texts of an object; the rest of it is nobody's field.
fn json_fields(body: &[u8]) -> Result<BTreeMap<String, String>, Problem> {
    let object: BTreeMap<String, Value> = serde_json::from_slice(body)
        .map_err(|_| Kind::BadRequest.problem("the body is neither a form nor a JSON object"))?;
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    Ok(object.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn fields(target: &str, kind: &str, body: &str) -> BTreeMap<String, String> {
        let request = Request::builder().uri(target).header(header::CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Fields::read(request).await.unwrap_or_else(|problem| panic!("{}", problem.detail)).0
    }

    #[tokio::test]
    async fn fields_come_from_query_form_and_json() {
        let expected = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x y".to_owned())]);
        assert_eq!(fields("/?a=1&b=x+y", "", "").await, expected);
        assert_eq!(fields("/?a=1", "application/x-www-form-urlencoded", "b=x%20y").await, expected);
        assert_eq!(fields("/", "application/json", r#"{"a":1,"b":"x y","c":null}"#).await, expected);
        assert_eq!(fields("/?a=9", "text/plain", r#"{"a":1,"b":"x y"}"#).await, expected);
    }
}
