//! The HTTP API of the internal socket, and the dashboard that calls it: extract → domain → map. Owns routes, shapes and
//! errors; decides nothing about agents or tunnels itself.

mod agents;
mod audit;
mod commands;
mod connect;
pub(crate) mod content;
mod cookie;
mod dashboard;
pub mod dto;
mod enrol;
mod events;
mod exec;
mod execs;
pub mod extract;
mod failure;
mod files;
mod gate;
pub mod guard;
mod health;
pub mod install;
mod live;
mod login;
mod once;
pub mod openapi;
mod operators;
mod origin;
mod panel;
mod presence;
pub mod problem;
mod rotations;
pub mod routes;
mod session;
mod shells;
pub mod state;
mod tokens;
mod tunnels;
mod unread;
mod web;
mod websocket;

pub use self::health::{is_health, shutting_down};
pub use crate::http::server;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    guard::{Hosts, check_host, problems_everywhere},
    problem::Kind,
    state::Api,
};
use crate::access::Socket;

/// Everything the internal socket serves.
pub fn router(api: Api) -> Router {
    let hosts = Hosts::new(&api.settings.hosts);
    let (described, document) = described().split_for_parts();
    let document = openapi::finish(document);
    let panics = api.clone();
    let router = described
        .merge(panel::router())
        .merge(health::router())
        .route("/api/v1/openapi.json", axum::routing::get(openapi::serve))
        .layer(axum::Extension(openapi::Document::new(&document)))
        .route_layer(middleware::from_fn_with_state(gate(&api, Socket::Internal, hosts.clone()), gate::pass))
        .fallback_service(dashboard::router())
        .with_state(api);
    around(router, hosts, move || panics.metrics.panicked())
}

/// What the public listener serves of it under the dashboard's host names (SECURITY R19): the dashboard and its calls, by a
/// session alone. Tokens are refused, and health, metrics, setup and the panel's calls do not exist there.
pub fn public_router(api: Api, dashboard_hosts: &[String]) -> Router {
    let hosts = Hosts::only(dashboard_hosts.iter().cloned());
    let (described, _) = described().split_for_parts();
    let panics = api.clone();
    let router = described
        .route_layer(middleware::from_fn_with_state(gate(&api, Socket::Public, hosts.clone()), gate::pass))
        .fallback_service(dashboard::router())
        .with_state(api);
    around(router, hosts, move || panics.metrics.panicked())
}

fn gate(api: &Api, socket: Socket, hosts: Hosts) -> gate::Gate {
    gate::Gate { api: api.clone(), surface: origin::Surface { socket, hosts } }
}

/// What every listener has around its routes. `panicked` is called for each handler that panicked.
fn around(router: Router, hosts: Hosts, panicked: impl Fn() + Clone + Send + Sync + 'static) -> Router {
    let caught = move |panic: Box<dyn std::any::Any + Send>| {
        panicked();
        axum::response::IntoResponse::into_response(guard::panicked(panic.as_ref()))
    };
    router
        .layer(CatchPanicLayer::custom(caught))
        // Bodies are bounded by the extractors, with a problem in place of bare text.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(hosts, check_host))
        .layer(middleware::from_fn(problems_everywhere))
}

/// The metrics socket: nothing else is on it, so its root shows them too. The same guards.
pub fn metrics_router(metrics: std::sync::Arc<crate::metrics::Metrics>, hosts: &[String]) -> Router {
    let panics = metrics.clone();
    let router = Router::new()
        .route("/", axum::routing::get(health::metrics))
        .route("/metrics", axum::routing::get(health::metrics))
        .fallback(|| async { Kind::NotFound.problem("metrics are at /metrics") })
        .with_state(metrics);
    around(router, Hosts::new(hosts), move || panics.panicked())
}

/// The documented routes: what the OpenAPI document is made from.
fn described() -> OpenApiRouter<Api> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(agents::list, agents::create))
        .routes(routes!(agents::show, agents::change, agents::remove))
        .routes(routes!(agents::timeline))
        .routes(routes!(agents::secret))
        .routes(routes!(rotations::rotate))
        .routes(routes!(live::samples))
        .routes(routes!(live::live))
        .routes(routes!(commands::call))
        .routes(routes!(exec::start))
        .routes(routes!(execs::list_of_agent))
        .routes(routes!(execs::list))
        .routes(routes!(execs::show, execs::cancel))
        .routes(routes!(execs::output))
        .routes(routes!(execs::feed))
        .routes(routes!(tunnels::list, tunnels::create))
        .routes(routes!(tunnels::show, tunnels::close))
        .routes(routes!(tunnels::heartbeat))
        .routes(routes!(tunnels::extend))
        .routes(routes!(web::ticket))
        .routes(routes!(web::pin, web::trust))
        .routes(routes!(presence::presence))
        .routes(routes!(connect::connect))
        .routes(routes!(shells::list_of_agent, shells::open))
        .routes(routes!(shells::list))
        .routes(routes!(shells::show, shells::end))
        .routes(routes!(shells::recording))
        .routes(routes!(shells::attach))
        .routes(routes!(content::download, content::upload))
        .routes(routes!(content::held))
        .routes(routes!(files::tree))
        .routes(routes!(files::operate))
        .routes(routes!(events::follow))
        .routes(routes!(enrol::list, enrol::create))
        .routes(routes!(enrol::revoke))
        .routes(routes!(enrol::waiting))
        .routes(routes!(enrol::approve))
        .routes(routes!(enrol::reject))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::export))
        .routes(routes!(login::setup))
        .routes(routes!(login::login))
        .routes(routes!(session::show, session::end))
        .routes(routes!(session::step_up))
        .routes(routes!(session::password))
        .routes(routes!(session::offer_totp, session::totp_on, session::totp_off))
        .routes(routes!(session::mine))
        .routes(routes!(session::end_mine))
        .routes(routes!(operators::list, operators::create))
        .routes(routes!(operators::show, operators::change, operators::remove))
        .routes(routes!(operators::sessions))
        .routes(routes!(operators::end_session));
    OpenApiRouter::with_openapi(openapi::base()).nest("/api/v1", v1)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use axum::{body::Body, extract::Request, http::header, routing::get};
    use tower::ServiceExt;

    use super::*;

    async fn fails() {
        panic!("the secret of the panic");
    }

    #[tokio::test]
    async fn a_panic_in_a_handler_is_counted_and_told_without_its_text() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let router = Router::new().route("/fails", get(fails)).route("/works", get(|| async {}));
        let router = around(router, Hosts::new(&[]), move || _ = counted.fetch_add(1, Ordering::Relaxed));
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        let (status, body) = ask("/fails").await;
        assert!(status == 500 && body.contains("\"internal\"") && !body.contains("secret"), "{body}");
        assert_eq!(ask("/works").await.0, 200);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
