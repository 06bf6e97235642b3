//! A machine's own web page in an operator's browser: each tunnel gets an origin of its own, and what is asked there goes
//! through the tunnel to its target. Owns the HTTP in between; tunnels, visits and pins are `tunnel`'s. Bodies are never
//! rewritten.

mod answer;
mod body;
mod cookies;
mod guard;
mod host;
mod location;
mod outward;
mod page;
mod page_text;
mod reach;
mod tls;
mod trouble;
mod upgrade;
mod upstream;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    host::Site,
    page::{Asker, tell},
    trouble::Trouble,
    upstream::Upstream,
};
use crate::{
    access::Access,
    fleet::Fleet,
    metrics::Metrics,
    store::Store,
    tunnel::{
        Tunnels,
        origin::Origin,
        pins::Pins,
        presence::Presence,
        visits::{Visit, Visits},
    },
};

/// Paths of ours on each origin.
const OURS: &str = "/.landline/";
/// Where a ticket is exchanged for a visit.
pub const ENTER: &str = "/.landline/enter";
/// Upgraded connections at once.
const UPGRADES_MAX: usize = 1024;

/// What the gateway stands on.
pub struct GatewayParts {
    pub origin: Origin,
    pub first_byte: Duration,
    pub access: Access,
    pub fleet: Arc<Fleet>,
    pub tunnels: Arc<Tunnels>,
    pub visits: Arc<Visits>,
    pub pins: Arc<Pins>,
    pub presence: Arc<Presence>,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    /// Cancelled when the master stops: long answers end.
    pub stop: CancellationToken,
}

/// The gateway. Clones share it.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    parts: GatewayParts,
    upstream: Upstream,
    upgrades: Arc<Semaphore>,
    /// Connections to targets, and upgraded ones.
    tasks: TaskTracker,
}

impl Gateway {
    pub fn new(parts: GatewayParts) -> Result<Self, rustls::Error> {
        let tasks = TaskTracker::new();
        let upstream = Upstream::new(parts.tunnels.clone(), parts.pins.clone(), tasks.clone(), parts.stop.clone())?;
        let upgrades = Arc::new(Semaphore::new(UPGRADES_MAX));
        Ok(Self(Arc::new(Inner { parts, upstream, upgrades, tasks })))
    }

    /// Whether a host name is one of the gateway's, its domain itself included.
    pub fn serves(&self, host: &str) -> bool {
        self.0.parts.origin.serves(host)
    }

    /// Answers one request to one of the gateway's hosts.
    pub async fn handle(&self, request: Request) -> Response {
        let asker = Asker::of(&request);
        let gateway = &self.0;
        let answer = match Site::of(&request, &gateway.parts.origin) {
            Some(site) => gateway.answer(&site, &asker, request).await,
            None => Err(Trouble::Misdirected),
        };
        match answer {
            Ok(response) => {
                gateway.parts.metrics.gateway_request("ok");
                response
            }
            Err(trouble) => {
                gateway.parts.metrics.gateway_request(trouble.word());
                tracing::debug!(trouble = trouble.word(), detail = ?trouble, "the gateway answers for the target");
                tell(&trouble, &asker)
            }
        }
    }
}

impl Inner {
    async fn answer(self: &Arc<Self>, site: &Site, asker: &Asker, request: Request) -> Result<Response, Trouble> {
        guard::not_from_a_sibling(&request, site, &self.parts.origin)?;
        if request.uri().path().starts_with(OURS) {
            return self.own(site, &request);
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) || !request.uri().path().starts_with('/') {
            return Err(Trouble::Method);
        }
        let visit = cookies::visit_secrets(request.headers(), site)
            .find_map(|secret| self.parts.visits.find(site.tunnel, secret))
            .ok_or(Trouble::NoVisit)?;
        self.may(&visit).await?;
        self.carry(site, asker, visit, request).await
    }

    /// Paths that are never the target's.
    fn own(&self, site: &Site, request: &Request) -> Result<Response, Trouble> {
        if request.uri().path() != ENTER || *request.method() != Method::GET {
            return Err(Trouble::NotOurs);
        }
        let query = request.uri().query().unwrap_or_default();
        let ticket = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket");
        let ticket = ticket.map(|(_, ticket)| ticket).ok_or(Trouble::NoVisit)?;
        let secret = self.parts.visits.enter(site.tunnel, &ticket).ok_or(Trouble::Ticket)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, HeaderValue::from_static("/"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::SET_COOKIE, cookies::set_visit(&secret, site));
        Ok(response)
    }

    /// To the target and back.
    async fn carry(
        self: &Arc<Self>,
        site: &Site,
        asker: &Asker,
        visit: Arc<Visit>,
        mut request: Request,
    ) -> Result<Response, Trouble> {
        let row = self.target(&visit).await?;
        let target = host::Target::of(&row);
        let upgrade = upgrade::wanted(&request).then(|| hyper::upgrade::on(&mut request));
        let presence = self.parts.presence.request(visit.tunnel);
        let (request, sent) = outward::prepare(request, site, &target, upgrade.is_some())?;
        let answer = self.upstream.send(&row, &visit, request, &sent, self.parts.first_byte);
        let response = tokio::select! {
            biased;
            response = answer => response,
            // A page can be asked for again; anything else waits for as long as the line may come back.
            () = self.until_away(&visit), if asker.navigates => Err(Trouble::Reconnecting),
        };
        let response = match response {
            Ok(response) => response,
            Err(trouble) => return Err(self.explain(trouble, &visit).await),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = upgrade.ok_or(Trouble::Broken("it switched protocols without being asked".to_owned()))?;
            return self.switch(response, upgrade, visit, presence);
        }
        location::check_loop(&visit, asker, response.status())?;
        let (parts, inner) = answer::prepare(response, site, &target, asker)?.into_parts();
        let mut body = body::Guarded::new(inner, self, &visit, presence);
        body.look_ahead().await;
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}
