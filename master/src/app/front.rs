//! Which room a request belongs to: the gateway's hosts are told from ours by name, before anything else is looked at.

use axum::{Router, extract::Request, http::header};
use tokio_util::sync::CancellationToken;

use crate::{
    api, config,
    gateway::Gateway,
    http::hosts::{self, Hosts},
    public,
    tunnel::origin::Origin,
};

/// Everything that one listener serves: machines' pages under the gateway's names, `ours` under all others.
pub(super) fn router(ours: Router, gateway: Gateway) -> Router {
    Router::new().fallback(async move |request: Request| {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| gateway.serves(host)) {
            return gateway.handle(request).await;
        }
        let answered = tower::ServiceExt::oneshot(ours.clone(), request).await;
        answered.unwrap_or_else(|never| match never {})
    })
}

/// Says no to every call once `stop` is there; whether the process lives and is ready is told to the end.
pub(super) fn refusing(router: Router, stop: CancellationToken) -> Router {
    Router::new().fallback(async move |request: Request| {
        if stop.is_cancelled() && !api::is_health(request.uri().path()) {
            return api::shutting_down();
        }
        let answered = tower::ServiceExt::oneshot(router.clone(), request).await;
        answered.unwrap_or_else(|never| match never {})
    })
}

/// What the public port serves: the dashboard under its own name, and what machines install from under every name, that one
/// included.
pub(super) fn public(machines: Router, dashboard: Router, host: String) -> Router {
    let name = Hosts::only([host]);
    Router::new().fallback(async move |request: Request| {
        let named = hosts::host(&request).is_some_and(|host| name.allows(host));
        let ours = if named && !public::serves(request.uri().path()) { &dashboard } else { &machines };
        let answered = tower::ServiceExt::oneshot(ours.clone(), request).await;
        answered.unwrap_or_else(|never| match never {})
    })
}

/// How browsers reach the gateway, where the configuration leaves it to the sockets there are.
pub(super) fn origin(config: &config::Gateway, internal_port: u16) -> Origin {
    let port = config.port.unwrap_or(if config.https { 443 } else { internal_port });
    Origin { domain: config.domain.clone(), https: config.https, port }
}
