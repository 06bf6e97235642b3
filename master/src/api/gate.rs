//! The gate before every handler: finds the route in the table, recognises the caller by bearer token or by cookie, and
//! asks `authorise` once before anything of the request is read. Handlers ask again about the object.

use std::{net::SocketAddr, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{
    cookie,
    extract::nothing_here,
    once,
    origin::{Origin, Surface},
    problem::{Kind, Problem},
    routes::{Entry, Permit, SETUP, entry},
    server::{HangUp, Peer},
    state::Api,
    unread,
};
use crate::{
    access::{Action, AuthError, Object, Principal, Sender, Socket, authorise},
    audit::{Actor, AuditEntry},
    clock::millis,
};

/// Longest bearer token looked at, bytes.
const BEARER_MAX: usize = 512;

/// Who calls, and from where. Only the gate makes one.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    source: Option<String>,
    /// Of a session; no secret to the page that holds it.
    csrf: Option<String>,
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

    pub(super) fn csrf(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
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

/// What the middleware stands on: one per listener.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) api: Api,
    pub(super) surface: Surface,
}

/// The middleware of every route.
pub(super) async fn pass(State(gate): State<Gate>, path: MatchedPath, mut request: Request, next: Next) -> Response {
    let Gate { api, surface } = gate;
    // Once there was an admin, setup is as unknown as any path that never was (SECURITY R18).
    if path.as_str() == SETUP && !(api.people.setup_is_open() && surface.socket == Socket::Internal) {
        return nothing_here().into_response();
    }
    let (permit, repeat) = match entry(request.method(), path.as_str()) {
        Entry::Known(permit, repeat) => (permit, repeat),
        Entry::OtherMethods(allow) => return method_not_allowed(allow),
        Entry::Missing => return Kind::Forbidden.problem("this route is not open to anybody").into_response(),
    };
    let sender = sender(&request, &surface);
    request.extensions_mut().insert(surface.clone());
    request.extensions_mut().insert(sender.clone());
    if permit == Permit::Anyone {
        return match (is_safe(request.method()), surface.origin(request.headers())) {
            (false, Origin::Foreign) => foreign().into_response(),
            _ => next.run(request).await,
        };
    }
    let caller = match recognise(&api, &surface, request.headers(), request.method(), &sender).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Err(problem) = admit(&api, &caller, permit, request.method()) {
        return problem.into_response();
    }
    let hang_up = request.extensions().get::<HangUp>().cloned().unwrap_or_default();
    request.extensions_mut().insert(caller.clone());
    let response = once::pass(&api, &caller, repeat, request, next).await;
    match permit {
        Permit::Token(action) => unread::watched(api, caller, action, hang_up, response),
        Permit::Anyone | Permit::Session => response,
    }
}

fn admit(api: &Api, caller: &Caller, permit: Permit, method: &Method) -> Result<(), Problem> {
    match permit {
        Permit::Anyone => Ok(()),
        Permit::Session if caller.session().is_some() => Ok(()),
        Permit::Session => Err(Kind::Forbidden.problem("this is about a session of the dashboard; a token has none")),
        Permit::Token(action) => {
            authorise(caller, action, Object::Everything)?;
            fresh_proof(api, caller, action, method)
        }
    }
}

/// A person's session left open is not enough to act on machines (SECURITY R54).
fn fresh_proof(api: &Api, caller: &Caller, action: Action, method: &Method) -> Result<(), Problem> {
    let Some(session) = caller.session().filter(|_| action.needs_fresh_proof() && *method == Method::POST) else {
        return Ok(());
    };
    if api.now_ms() < session.proved_at_ms.saturating_add(millis(api.access.step_up())) {
        return Ok(());
    }
    Err(Kind::StepUpRequired.problem("the last proof of who you are is too old for this: give your password or a code"))
}

fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = Kind::MethodNotAllowed.problem(format!("this path takes {allow}")).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn sender(request: &Request, surface: &Surface) -> Sender {
    let peer: Option<SocketAddr> = request.extensions().get::<Peer>().map(|peer| peer.0);
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Sender { address: peer.map(|peer| peer.ip()), socket: surface.socket, user_agent: agent.map(str::to_owned) }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn foreign() -> Problem {
    Kind::Forbidden.problem("a page of another origin may not call here")
}

async fn recognise(
    api: &Api,
    surface: &Surface,
    headers: &HeaderMap,
    method: &Method,
    sender: &Sender,
) -> Result<Caller, Problem> {
    let source = sender.address.map(|address| address.to_string());
    if headers.contains_key(header::AUTHORIZATION) {
        if surface.socket == Socket::Public {
            return Err(Kind::Unauthorized.problem("tokens are not taken on this socket; sign in"));
        }
        let principal = by_token(api, headers, sender).await?;
        return Ok(Caller { principal, source, csrf: None });
    }
    let Some(secret) = cookie::secret(headers) else {
        return Err(Kind::Unauthorized.problem("send `Authorization: Bearer TOKEN`, or sign in"));
    };
    let principal = match api.access.session(secret, surface.socket, api.now_ms()).await {
        Ok(principal) => principal,
        Err(AuthError::Invalid) => {
            api.metrics.auth_failure("session");
            return Err(Kind::Unauthorized.problem("the session is over; sign in again"));
        }
        Err(AuthError::Store(error)) => return Err(error.into()),
    };
    let upgrade = headers.contains_key(header::UPGRADE);
    let unsafe_method = !is_safe(method);
    if (unsafe_method || upgrade) && surface.origin(headers) != Origin::Ours {
        return Err(foreign());
    }
    if unsafe_method && !cookie::shows_csrf(headers, secret) {
        return Err(Kind::Forbidden.problem("send the session's `csrf` as X-CSRF-Token"));
    }
    Ok(Caller { principal, source, csrf: Some(cookie::csrf(secret)) })
}

async fn by_token(api: &Api, headers: &HeaderMap, sender: &Sender) -> Result<Arc<Principal>, Problem> {
    match api.access.authenticate(bearer(headers)?, api.now_ms()).await {
        Ok(principal) => Ok(principal),
        Err(AuthError::Invalid) => {
            api.metrics.auth_failure("api");
            if let Some(address) = sender.address {
                // Only refusals are slowed: neighbours behind one address do not pay for each other.
                tokio::time::sleep(api.limiter.failed(None, address, Instant::now())).await;
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
