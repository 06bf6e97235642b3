//! `/tunnels/{id}/ticket` and `/tunnels/{id}/pin`: into a tunnel's pages with a browser, and which certificate their
//! target shows.

use axum::{Json as Reply, extract::State, http::StatusCode};
use proto::id::TunnelId;
use secrecy::ExposeSecret;

use super::{
    agents::NoBody,
    dto::{
        Time,
        tunnel::{NewPin, Pin, Ticket},
    },
    extract::{Id, Json, NoQuery, OptionalJson, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
    tunnels::visible,
};
use crate::{
    access::Action,
    clock::millis,
    store::tunnels::{Scheme, Tunnel},
    tunnel::{
        pins::{Known, Pinned},
        visits::TICKET_TTL,
    },
};

/// Where the gateway takes tickets, on each tunnel's own origin.
const ENTER: &str = "/.landline/enter";

/// Get a link that opens the target's pages in a browser, once
#[utoipa::path(post, path = "/tunnels/{id}/ticket", tag = "tunnels", operation_id = "enterTunnel",
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 201, description = "The link; good once and for a minute", body = Ticket),
              (status = 409, description = "tunnel_closed", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn ticket(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
    OptionalJson(NoBody {}): OptionalJson<NoBody>,
) -> Result<(StatusCode, Reply<Ticket>), Problem> {
    let row = visible(&api, &caller, Action::TunnelEnter, id).await?.row;
    if row.status.is_final() {
        return Err(Kind::TunnelClosed.problem("the tunnel is over; open a new one"));
    }
    if row.target.scheme == Scheme::Tcp {
        return Err(Kind::Invalid.problem("only tunnels with the scheme https or http have pages"));
    }
    api.store.audit(&caller.did("tunnel.enter").agent(&row.agent_id).object(id)).await?;
    let ticket = api.visits.ticket(id, row.agent_id, caller.principal().clone());
    let url = format!("{}{ENTER}?ticket={}", api.settings.gateway.of(id), ticket.expose_secret());
    let expires_at = Time::from_ms(api.now_ms() + millis(TICKET_TTL));
    Ok((StatusCode::CREATED, Reply(Ticket { url, expires_at })))
}

/// Show which certificate the target is known by
#[utoipa::path(get, path = "/tunnels/{id}/pin", tag = "tunnels", operation_id = "showPin",
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 200, description = "What is pinned, and what was shown since", body = Pin)))]
pub(super) async fn pin(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
) -> Result<Reply<Pin>, Problem> {
    let row = visible(&api, &caller, Action::TunnelRead, id).await?.row;
    Ok(Reply(shown(api.pins.known(&pinned(row)).await?)))
}

/// Trust the certificate that the target shows now
#[utoipa::path(post, path = "/tunnels/{id}/pin", tag = "tunnels", operation_id = "trustPin", request_body = NewPin,
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 200, description = "What is pinned now", body = Pin)))]
pub(super) async fn trust(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
    Json(new): Json<NewPin>,
) -> Result<Reply<Pin>, Problem> {
    let row = visible(&api, &caller, Action::TunnelTrust, id).await?.row;
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&new.sha256, &mut sha256).map_err(|_| Kind::Invalid.problem("sha256: 64 hex digits"))?;
    let detail =
        serde_json::json!({ "target": format!("{}:{}", row.target.host, row.target.port), "sha256": new.sha256 });
    let audit = caller.did("tunnel.trust").agent(&row.agent_id).object(id).detail(detail);
    let target = pinned(row);
    api.pins.trust(&target, sha256, &audit).await?;
    Ok(Reply(shown(api.pins.known(&target).await?)))
}

fn pinned(row: Tunnel) -> Pinned {
    Pinned { agent: row.agent_id, host: row.target.host, port: row.target.port }
}

fn shown(known: Known) -> Pin {
    Pin {
        sha256: known.pinned.map(hex::encode),
        pinned_at: known.pinned_at_ms.map(Time::from_ms),
        offered_sha256: known.offered.map(hex::encode),
    }
}
