//! The gate before every handler: finds the route in the table, recognises the caller, and asks `authorise` once before
//! anything of the request is read. Handlers ask again about the object.

use std::{net::SocketAddr, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{
    once,
    problem::{Kind, Problem},
    routes::{Entry, Permit, entry},
    server::Peer,
    state::Api,
};
use crate::{
    access::{AuthError, Object, Principal, authorise},
    audit::{Actor, AuditEntry},
};

/// Longest bearer token looked at, bytes.
const BEARER_MAX: usize = 512;

/// Who calls, and from where. Only the gate makes one.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    source: Option<String>,
}

impl Caller {
    /// The caller as the audit trail names it.
    pub(super) fn actor(&self) -> Actor {
        self.principal.actor()
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Begins an audit entry of something this caller does.
    pub(super) fn did(&self, action: &'static str) -> AuditEntry {
        let entry = self.actor().did(action);
        match &self.source {
            Some(source) => entry.source(source),
            None => entry,
        }
    }
}

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Kind::Unauthorized.problem("this needs a token"))
    }
}

/// The middleware of every route.
pub(super) async fn pass(State(api): State<Api>, path: MatchedPath, mut request: Request, next: Next) -> Response {
    let (permit, repeat) = match entry(request.method(), path.as_str()) {
        Entry::Known(permit, repeat) => (permit, repeat),
        Entry::OtherMethods(allow) => return method_not_allowed(allow),
        Entry::Missing => return Kind::Forbidden.problem("this route is not open to anybody").into_response(),
    };
    let Permit::Token(action) = permit else { return next.run(request).await };
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let caller = match recognise(&api, request.headers(), peer).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Err(denied) = authorise(&caller, action, Object::Everything) {
        return Problem::from(denied).into_response();
    }
    request.extensions_mut().insert(caller.clone());
    once::pass(&api, &caller, repeat, request, next).await
}

fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = Kind::MethodNotAllowed.problem(format!("this path takes {allow}")).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

async fn recognise(api: &Api, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Caller, Problem> {
    let bearer = bearer(headers)?;
    match api.access.authenticate(bearer, api.now_ms()).await {
        Ok(principal) => Ok(Caller { principal, source: peer.map(|peer| peer.ip().to_string()) }),
        Err(AuthError::Invalid) => {
            api.metrics.auth_failure("api");
            if let Some(peer) = peer {
                // Only refusals are slowed: neighbours behind one address do not pay for each other.
                tokio::time::sleep(api.limiter.failed(None, peer.ip(), Instant::now())).await;
            }
            Err(Kind::Unauthorized
                .problem("the token is unknown, revoked or expired; make one with `landline token create`"))
        }
        Err(AuthError::Store(error)) => Err(error.into()),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Kind::Unauthorized.problem("send `Authorization: Bearer TOKEN`");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    let plausible = scheme.eq_ignore_ascii_case("bearer") && token.len() <= BEARER_MAX && values.next().is_none();
    if plausible { Ok(token.trim()) } else { Err(missing()) }
}
