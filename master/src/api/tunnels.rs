//! `/tunnels`: open, see, beat, extend, close.

use std::time::Duration;

use axum::{
    Json as Reply,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use proto::id::{AgentId, TunnelId};
use serde_json::json;

use super::{
    agents::{NoBody, page},
    dto::{
        Page, Time,
        tunnel::{
            Extend, Health, KeepAlive, Listen, NewTunnel, Scheme, Target, Tunnel, TunnelFilter, TunnelStatus, WaitQuery,
        },
    },
    extract::{Id, Json, NoQuery, OptionalJson, Query, not_found},
    gate::Caller,
    once,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::Action,
    store::tunnels as rows,
    tunnel::{self, By, CloseReason, View},
};

const WAIT_MAX_S: u64 = 60;
const TTL_MAX_S: u32 = 31_536_000;

/// List tunnels
#[utoipa::path(get, path = "/tunnels", tag = "tunnels", operation_id = "listTunnels", params(TunnelFilter),
    responses((status = 200, description = "One page, newest first", body = Page<Tunnel>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<TunnelFilter>,
) -> Result<Reply<Page<Tunnel>>, Problem> {
    let page = page(query.limit, query.cursor)?;
    let agent_id = match query.agent_id.as_deref().map(str::parse::<AgentId>) {
        Some(Err(error)) => return Err(Kind::Invalid.problem(format!("agent_id: {error}"))),
        Some(Ok(id)) => Some(id),
        None => None,
    };
    let filter = rows::TunnelFilter {
        agent_id,
        status: query.status.map(stored_status),
        open: query.open.unwrap_or(false),
        owner: None,
        selector: caller.selector.clone(),
    };
    let paged = api.tunnels.list(&filter, &page).await?;
    let items = paged.items.into_iter().map(shown).collect();
    Ok(Reply(Page { items, next_cursor: paged.next_cursor }))
}

/// Open a tunnel, or find the one that is open to this very target
#[utoipa::path(post, path = "/tunnels", tag = "tunnels", operation_id = "openTunnel", request_body = NewTunnel,
    params(WaitQuery),
    responses((status = 201, description = "Made; with `wait` it is active or final by now, or still pending", body = Tunnel),
              (status = 200, description = "It was there already", body = Tunnel),
              (status = 409, description = "agent_suspended, ports_exhausted", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<WaitQuery>,
    Json(new): Json<NewTunnel>,
) -> Result<(StatusCode, Reply<Tunnel>), Problem> {
    let wait = wait(query.wait.as_deref())?;
    let agent: AgentId = new.agent_id.parse().map_err(|_| not_found())?;
    api.agent(&caller, Action::TunnelOpen, &agent).await?;
    let request = tunnel::NewTunnel {
        agent,
        target: target(new.target)?,
        listen: match new.listen.unwrap_or(Listen::Tcp) {
            Listen::Tcp => rows::ListenKind::Tcp,
            Listen::Unix => rows::ListenKind::Unix,
        },
        standing: new.standing,
        ttl: ttl(new.ttl_s)?,
        heartbeat: new.heartbeat.unwrap_or(true),
        idempotency_key: once::key(&headers)?,
        owner: caller.owner(),
        by: by(&caller),
    };
    let created = api.tunnels.create(request).await?;
    let view = match wait {
        Some(within) => api.tunnels.settled(created.id, within).await?,
        None => api.tunnels.find(created.id).await?,
    };
    let status = if created.fresh { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Reply(shown(view.ok_or_else(not_found)?))))
}

/// Show a tunnel
#[utoipa::path(get, path = "/tunnels/{id}", tag = "tunnels", operation_id = "showTunnel",
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id"), WaitQuery),
    responses((status = 200, description = "The tunnel", body = Tunnel)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    Query(query): Query<WaitQuery>,
) -> Result<Reply<Tunnel>, Problem> {
    let wait = wait(query.wait.as_deref())?;
    let mut view = visible(&api, &caller, Action::TunnelRead, id).await?;
    if let Some(within) = wait {
        view = api.tunnels.settled(id, within).await?.ok_or_else(not_found)?;
    }
    Ok(Reply(shown(view)))
}

/// Close a tunnel and every connection through it
#[utoipa::path(delete, path = "/tunnels/{id}", tag = "tunnels", operation_id = "closeTunnel",
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 204, description = "Closed, also if it was before")))]
pub(super) async fn close(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    visible(&api, &caller, Action::TunnelClose, id).await?;
    api.tunnels.close(id, CloseReason::ClosedByUser, by(&caller)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Beat: the caller still wants it
#[utoipa::path(post, path = "/tunnels/{id}/heartbeat", tag = "tunnels", operation_id = "beatTunnel",
    params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 200, description = "Whether to go on", body = KeepAlive)))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
    OptionalJson(NoBody {}): OptionalJson<NoBody>,
) -> Result<Reply<KeepAlive>, Problem> {
    visible(&api, &caller, Action::TunnelBeat, id).await?;
    let keep_alive = api.tunnels.heartbeat(id).await?.ok_or_else(not_found)?;
    Ok(Reply(KeepAlive { keep_alive }))
}

/// Give a tunnel more time
#[utoipa::path(post, path = "/tunnels/{id}/extend", tag = "tunnels", operation_id = "extendTunnel",
    request_body = Option<Extend>, params(("id" = uuid::Uuid, Path, description = "The tunnel's id")),
    responses((status = 200, description = "The tunnel as it is now", body = Tunnel),
              (status = 409, description = "tunnel_closed, not_extendable", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn extend(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<TunnelId>,
    _: Query<NoQuery>,
    OptionalJson(extend): OptionalJson<Option<Extend>>,
) -> Result<Reply<Tunnel>, Problem> {
    let ttl = ttl(extend.unwrap_or_default().ttl_s)?;
    let view = visible(&api, &caller, Action::TunnelExtend, id).await?;
    let detail = json!({ "ttl_s": ttl.map(|ttl| ttl.as_secs()) });
    api.store.audit(&caller.did("tunnel.extend").agent(&view.row.agent_id).object(id).detail(detail)).await?;
    Ok(Reply(shown(api.tunnels.extend(id, ttl).await?)))
}

/// The tunnel, if it exists and the caller may do this to its agent.
pub(super) async fn visible(api: &Api, caller: &Caller, action: Action, id: TunnelId) -> Result<View, Problem> {
    let view = api.tunnels.find(id).await?.ok_or_else(not_found)?;
    api.allow(caller, action, &view.row.agent_id).await?;
    Ok(view)
}

pub(super) fn by(caller: &Caller) -> By {
    By { actor: caller.actor().to_string(), source: caller.source().map(str::to_owned) }
}

fn target(target: Target) -> Result<rows::TunnelTarget, Problem> {
    let shape = proto::open::Target { host: target.host.clone(), port: target.port };
    shape.check().map_err(|invalid| Kind::Invalid.problem(format!("target: {}", invalid.0)))?;
    let scheme = match target.scheme {
        Scheme::Https => rows::Scheme::Https,
        Scheme::Http => rows::Scheme::Http,
        Scheme::Tcp => rows::Scheme::Tcp,
    };
    Ok(rows::TunnelTarget { host: target.host, port: target.port, scheme })
}

fn ttl(seconds: Option<u32>) -> Result<Option<Duration>, Problem> {
    match seconds {
        Some(seconds) if !(1..=TTL_MAX_S).contains(&seconds) => {
            Err(Kind::Invalid.problem(format!("ttl_s is 1 to {TTL_MAX_S}")))
        }
        seconds => Ok(seconds.map(|seconds| Duration::from_secs(seconds.into()))),
    }
}

/// `30s` and the like.
fn wait(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let seconds =
        text.strip_suffix('s').filter(|digits| digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()));
    match seconds.and_then(|digits| digits.parse::<u64>().ok()) {
        Some(seconds) if seconds <= WAIT_MAX_S => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Kind::Invalid.problem(format!("wait is 0s to {WAIT_MAX_S}s"))),
    }
}

fn stored_status(status: TunnelStatus) -> rows::TunnelStatus {
    match status {
        TunnelStatus::Pending => rows::TunnelStatus::Pending,
        TunnelStatus::Active => rows::TunnelStatus::Active,
        TunnelStatus::Disconnected => rows::TunnelStatus::Disconnected,
        TunnelStatus::Timeout => rows::TunnelStatus::Timeout,
        TunnelStatus::Expired => rows::TunnelStatus::Expired,
    }
}

fn shown(view: View) -> Tunnel {
    let View { row, connections_open } = view;
    let time = |ms: Option<i64>| ms.map(Time::from_ms);
    Tunnel {
        id: row.id.to_string(),
        agent_id: row.agent_id.to_string(),
        target: Target {
            host: row.target.host,
            port: row.target.port,
            scheme: match row.target.scheme {
                rows::Scheme::Https => Scheme::Https,
                rows::Scheme::Http => Scheme::Http,
                rows::Scheme::Tcp => Scheme::Tcp,
            },
        },
        status: match row.status {
            rows::TunnelStatus::Pending => TunnelStatus::Pending,
            rows::TunnelStatus::Active => TunnelStatus::Active,
            rows::TunnelStatus::Disconnected => TunnelStatus::Disconnected,
            rows::TunnelStatus::Timeout => TunnelStatus::Timeout,
            rows::TunnelStatus::Expired => TunnelStatus::Expired,
        },
        health: match row.health {
            rows::Health::Unknown => Health::Unknown,
            rows::Health::Ok => Health::Ok,
            rows::Health::Failing => Health::Failing,
        },
        health_since: time(row.health_since_ms),
        health_reason: row.health_reason,
        closed_reason: row.closed_reason,
        listen: row.listen,
        standing: row.standing,
        tunnel_pid: row.tunnel_pid,
        tunnel_port: row.tunnel_port,
        created_at: Time::from_ms(row.created_at_ms),
        tunnel_started_at: time(row.started_at_ms),
        last_heartbeat: time(row.last_heartbeat_ms),
        expires_at: time(row.expires_at_ms),
        closed_at: time(row.closed_at_ms),
        connections_open,
        bytes_in: row.bytes_in,
        bytes_out: row.bytes_out,
        probe: row.probe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds() {
        assert_eq!(wait(None).unwrap(), None);
        assert_eq!(wait(Some("30s")).unwrap(), Some(Duration::from_secs(30)));
        for bad in ["", "s", "30", "61s", "-1s", "1.5s", "+1s", "030s", "30m"] {
            assert!(wait(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
