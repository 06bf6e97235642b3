//! `/agents`: registration, state, labels, secrets, timeline.

use axum::{Json as Reply, extract::State, http::StatusCode};
use certs::join::{JoinToken, generate_secret, secret_sha256};
use proto::{code::Code, id::AgentId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{
    dto::{
        Page, Time,
        agent::{
            Agent, AgentChange, AgentFilter, AgentStatus, CarrierReason, ConnectionMode, ConnectionType, Credentials,
            NewAgent, Presence, Stats, WantedStatus, check_external_id,
        },
        event::{Event, PageQuery},
    },
    events::{event, event_id},
    extract::{Id, Json, NoQuery, OptionalJson, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::{Action, Labels, Object, Selector, authorise},
    clock::millis,
    events::Draft,
    fleet::{LinkState, Visits},
    store::{
        self, LIMIT_DEFAULT, LIMIT_MAX,
        agents::{AgentPatch, NewSecret},
        events::EventFilter,
    },
};

/// Rows looked at per round while presence, which is not in the database, thins out a page.
const SCAN: u32 = 500;
const SELECTOR_MAX: usize = 1024;
const SEARCH_MAX: usize = 63;

/// List agents
#[utoipa::path(get, path = "/agents", tag = "agents", operation_id = "listAgents", params(AgentFilter),
    responses((status = 200, description = "One page, ordered by id", body = Page<Agent>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<AgentFilter>,
) -> Result<Reply<Page<Agent>>, Problem> {
    let filter = store::agents::AgentFilter {
        selector: caller.selector.and(&selector(query.selector.as_deref())?),
        status: query.status.map(status_of),
        search: query.q.map(search).transpose()?,
    };
    let page = page(query.limit, query.cursor)?;
    let Some(wanted) = query.presence else {
        let paged = api.store.agents().list(&filter, &page).await?;
        let items = paged.items.into_iter().map(|agent| shown(&api, agent)).collect();
        return Ok(Reply(Page { items, next_cursor: paged.next_cursor }));
    };
    // The database knows no presence: pages are read until one is full. A page may come out short, never wrong.
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let mut scan = store::Page { cursor: page.cursor, limit: page.limit };
    let (mut items, mut seen) = (Vec::new(), 0);
    loop {
        let paged = api.store.agents().list(&filter, &scan).await?;
        seen += paged.items.len();
        items.extend(paged.items.into_iter().map(|agent| shown(&api, agent)).filter(|agent| agent.presence == wanted));
        scan.cursor = paged.next_cursor;
        if scan.cursor.is_none() || items.len() >= limit || seen >= SCAN as usize * 20 {
            return Ok(Reply(Page { items, next_cursor: scan.cursor }));
        }
        // Never more than fit: the cursor stands behind the last row read.
        scan.limit = u32::try_from(limit - items.len()).unwrap_or(SCAN).clamp(1, SCAN);
    }
}

/// Register an agent
#[utoipa::path(post, path = "/agents", tag = "agents", operation_id = "createAgent", request_body = NewAgent,
    responses((status = 201, description = "Registered; the secret is shown once", body = Credentials),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    Json(new): Json<NewAgent>,
) -> Result<(StatusCode, Reply<Credentials>), Problem> {
    let id: AgentId = new.id.parse().map_err(|error| Kind::Invalid.problem(format!("id: {error}")))?;
    let labels = Labels::try_from(new.labels.unwrap_or_default())?;
    new.external_id.map_or(Ok(()), check_external_id)?;
    if authorise(&caller, Action::AgentAdd, Object::Agent(&labels)).is_err() {
        return Err(Kind::Forbidden.problem(format!("this token may only add agents with labels {}", caller.selector)));
    }
    let secret = generate_secret();
    let now_ms = api.now_ms();
    let new_secret = new_secret(&api, &secret, now_ms);
    let row =
        store::agents::NewAgent { id: id.clone(), external_id: new.external_id, labels, secret: new_secret, now_ms };
    api.store.agents().add(row, &caller.did("agent.add").agent(&id)).await?;
    api.events.publish(Draft::new("agent.added").agent(&id).detail(json!({ "by": caller.actor().to_string() })));
    let agent = api.store.agents().find(&id).await?.ok_or_else(not_found)?;
    Ok((StatusCode::CREATED, Reply(credentials(&api, agent, &secret, new_secret.expires_at_ms))))
}

/// Show an agent
#[utoipa::path(get, path = "/agents/{id}", tag = "agents", operation_id = "showAgent",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "The agent", body = Agent)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
) -> Result<Reply<Agent>, Problem> {
    let agent = api.agent(&caller, Action::AgentRead, &id).await?;
    Ok(Reply(shown(&api, agent)))
}

/// Change an agent: labels, external id, suspend, resume
#[utoipa::path(patch, path = "/agents/{id}", tag = "agents", operation_id = "changeAgent", request_body = AgentChange,
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "The agent as it is now", body = Agent),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    Json(change): Json<AgentChange>,
) -> Result<Reply<Agent>, Problem> {
    api.agent(&caller, Action::AgentChange, &id).await?;
    let labels = change.labels.map(Labels::try_from).transpose()?;
    if let Some(labels) = &labels
        && authorise(&caller, Action::AgentChange, Object::Agent(labels)).is_err()
    {
        return Err(Kind::Forbidden.problem(format!("this token must leave the labels {}", caller.selector)));
    }
    change.external_id.flatten().map_or(Ok(()), check_external_id)?;
    let status = change.status.map(|status| match status {
        WantedStatus::Active => store::agents::AgentStatus::Active,
        WantedStatus::Suspended => store::agents::AgentStatus::Suspended,
    });
    let (action, event) = match change.status {
        Some(WantedStatus::Suspended) => ("agent.suspend", "agent.suspended"),
        Some(WantedStatus::Active) => ("agent.resume", "agent.resumed"),
        None => ("agent.change", "agent.changed"),
    };
    let patch = AgentPatch { labels, external_id: change.external_id, status };
    api.store.agents().patch(&id, &patch, &caller.did(action).agent(&id)).await?;
    api.events.publish(Draft::new(event).agent(&id).detail(json!({ "by": caller.actor().to_string() })));
    if change.status == Some(WantedStatus::Suspended) {
        api.fleet.cut(&id, Code::SUSPENDED);
    }
    let agent = api.store.agents().find(&id).await?.ok_or_else(not_found)?;
    Ok(Reply(shown(&api, agent)))
}

/// Remove an agent, its key and its tunnels
#[utoipa::path(delete, path = "/agents/{id}", tag = "agents", operation_id = "removeAgent",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 204, description = "Removed")))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    api.agent(&caller, Action::AgentRemove, &id).await?;
    if !api.store.agents().remove(&id, &caller.did("agent.remove").agent(&id)).await? {
        return Err(not_found());
    }
    api.pins.forget(&id);
    api.events.publish(Draft::new("agent.removed").agent(&id).detail(json!({ "by": caller.actor().to_string() })));
    api.fleet.cut(&id, Code::REMOVED);
    Ok(StatusCode::NO_CONTENT)
}

/// What happened to an agent, newest first
#[utoipa::path(get, path = "/agents/{id}/timeline", tag = "agents", operation_id = "agentTimeline",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), PageQuery),
    responses((status = 200, description = "One page", body = Page<Event>)))]
pub(super) async fn timeline(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<PageQuery>,
) -> Result<Reply<Page<Event>>, Problem> {
    api.agent(&caller, Action::EventsRead, &id).await?;
    let page = page(query.limit, query.cursor)?;
    let before = page.cursor.as_deref().map(event_id).transpose()?;
    let filter = EventFilter { agent_id: Some(id), ..EventFilter::default() };
    let rows = api.store.events().before(before, &filter, page.limit).await?;
    let full = u32::try_from(rows.len()).is_ok_and(|rows| rows >= page.limit);
    let next_cursor = rows.last().filter(|_| full).map(|row| row.id.to_string());
    Ok(Reply(Page { items: rows.iter().map(event).collect(), next_cursor }))
}

/// Issue a new secret for an agent that must enrol again
#[utoipa::path(post, path = "/agents/{id}/secret", tag = "agents", operation_id = "resecretAgent",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "The new secret, shown once; older ones are void", body = Credentials),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn secret(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    OptionalJson(NoBody {}): OptionalJson<NoBody>,
) -> Result<Reply<Credentials>, Problem> {
    api.agent(&caller, Action::AgentResecret, &id).await?;
    let secret = generate_secret();
    let now_ms = api.now_ms();
    let row = new_secret(&api, &secret, now_ms);
    if !api.store.agents().set_secret(&id, row, now_ms, &caller.did("agent.resecret").agent(&id)).await? {
        return Err(not_found());
    }
    let agent = api.store.agents().find(&id).await?.ok_or_else(not_found)?;
    Ok(Reply(credentials(&api, agent, &secret, row.expires_at_ms)))
}

/// A body that says nothing.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoBody {}

fn new_secret(api: &Api, secret: &SecretString, now_ms: i64) -> NewSecret {
    let expires_at_ms = now_ms.saturating_add(millis(api.settings.secret_ttl));
    NewSecret { sha256: secret_sha256(secret.expose_secret()), expires_at_ms }
}

fn credentials(api: &Api, agent: store::agents::Agent, secret: &SecretString, expires_at_ms: i64) -> Credentials {
    let settings = &api.settings;
    let token = JoinToken {
        address: settings.master_address.clone(),
        pin: settings.pin,
        agent_id: agent.id.clone(),
        secret: secret.clone(),
    };
    let (pin, master_url) = (settings.pin.to_string(), format!("wss://{}", settings.master_address));
    let env = format!(
        "CONNECTION_MODE=tunnel\nMASTER_URL={master_url}\nMASTER_PIN={pin}\nAGENT_ID={}\nAGENT_SECRET={}\n",
        agent.id,
        secret.expose_secret()
    );
    Credentials {
        agent: shown(api, agent),
        secret: secret.expose_secret().to_owned(),
        join_token: token.expose(),
        pin,
        master_url,
        env,
        secret_expires_at: Time::from_ms(expires_at_ms),
    }
}

/// An agent's row together with its line.
pub(super) fn shown(api: &Api, agent: store::agents::Agent) -> Agent {
    let line = api.fleet.line(&agent.id);
    let link = api.fleet.link(&agent.id);
    let visits = api.fleet.visits(&agent.id);
    let presence = presence(line.is_some(), visits, agent.status);
    let heard_ms = line.as_ref().and_then(|line| line.heartbeat_ms()).max(visits.map(|visits| visits.heard_ms));
    let last_seen = heard_ms.max(agent.last_seen_ms);
    let story = line.as_ref().map(|line| line.carrier_story());
    let disconnect_reason = match link {
        Some(LinkState::Up { .. } | LinkState::Suspect { .. }) => None,
        Some(LinkState::Down { .. }) | None if presence == Presence::Reachable => None,
        Some(LinkState::Down { .. }) | None => agent.disconnect_reason,
    };
    Agent {
        status: match agent.status {
            store::agents::AgentStatus::Unknown => AgentStatus::Unknown,
            store::agents::AgentStatus::Active => AgentStatus::Active,
            store::agents::AgentStatus::Suspended => AgentStatus::Suspended,
        },
        presence,
        connection_type: match agent.connection_type {
            store::agents::ConnectionType::Tunnel => ConnectionType::Tunnel,
            store::agents::ConnectionType::Standard => ConnectionType::Standard,
        },
        connection_mode: match (visits, &line) {
            (Some(_), _) => Some(ConnectionMode::OnDemand),
            (None, Some(_)) => Some(ConnectionMode::Persistent),
            (None, None) => None,
        },
        visits_every_s: visits.map(|visits| visits.every.as_secs_f64()),
        carrier: line.as_ref().map(|line| line.carrier().word().to_owned()),
        carrier_since: story.as_ref().map(|story| Time::from_ms(story.since_ms)),
        carrier_reason: story
            .and_then(|story| story.why)
            .map(|(code, message)| CarrierReason { code: code.to_string(), message }),
        rtt_ms: line.as_ref().map(|line| line.rtt().as_secs_f64() * 1000.0),
        last_seen: last_seen.map(Time::from_ms),
        connected_at: agent.connected_at_ms.filter(|_| line.is_some()).map(Time::from_ms),
        disconnect_reason,
        labels: agent.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        external_id: agent.external_id,
        stats: line.as_ref().and_then(|line| line.stats()).as_ref().map(Stats::from),
        hostname: agent.hostname,
        os: agent.os,
        arch: agent.arch,
        agent_version: agent.agent_version,
        policy: agent.policy,
        created_at: Time::from_ms(agent.created_at_ms),
        id: agent.id.to_string(),
    }
}

fn presence(online: bool, visits: Option<Visits>, status: store::agents::AgentStatus) -> Presence {
    match visits {
        _ if online => Presence::Online,
        Some(visits) if visits.expected && status != store::agents::AgentStatus::Suspended => Presence::Reachable,
        Some(_) | None => Presence::Offline,
    }
}

fn status_of(status: AgentStatus) -> store::agents::AgentStatus {
    match status {
        AgentStatus::Unknown => store::agents::AgentStatus::Unknown,
        AgentStatus::Active => store::agents::AgentStatus::Active,
        AgentStatus::Suspended => store::agents::AgentStatus::Suspended,
    }
}

/// Longer than an id can be, it matches nothing: more likely a mistake.
fn search(text: String) -> Result<String, Problem> {
    if text.chars().count() <= SEARCH_MAX && !text.contains('\0') {
        return Ok(text);
    }
    Err(Kind::Invalid.problem(format!("q has at most {SEARCH_MAX} characters, and no NUL")))
}

pub(super) fn selector(text: Option<&str>) -> Result<Selector, Problem> {
    let text = text.unwrap_or_default();
    if text.len() > SELECTOR_MAX {
        return Err(Kind::Invalid.problem(format!("a selector has at most {SELECTOR_MAX} characters")));
    }
    Ok(text.parse()?)
}

/// A page of a list; a limit out of range is refused rather than bent.
pub(super) fn page(limit: Option<u32>, cursor: Option<String>) -> Result<store::Page, Problem> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Kind::Invalid.problem(format!("limit is 1 to {LIMIT_MAX}")));
    }
    Ok(store::Page { cursor, limit })
}
