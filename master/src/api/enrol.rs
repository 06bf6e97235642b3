//! `/enrolment-keys` and `/enrolments`: keys that make agents, and machines that wait for an operator's yes.

use axum::{Json as Reply, extract::State, http::StatusCode};
use certs::join::{EnrolmentKey, generate_secret, secret_sha256};
use secrecy::ExposeSecret;
use serde_json::json;
use uuid::Uuid;

use super::{
    agents::page,
    dto::{
        self, Page, Time,
        enrol::{CreatedKey, Grant, NewKey, WaitingAgent},
        event::PageQuery,
    },
    extract::{Id, Json, NoQuery, OptionalJson, Query, not_found},
    gate::Caller,
    install,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::{Action, Labels, Object, authorise},
    events::Draft,
    store::keys::{self, Decision, WaitingStatus},
};

const USES_MAX: u32 = 10_000;
const NAME_MAX: usize = 100;
const TTL_S: u32 = 86_400;
const TTL_MIN_S: u32 = 60;
const TTL_MAX_S: u32 = 90 * 86_400;
/// The word in the store for an agent that is installed as root.
const AS_ROOT: &str = "root";

/// List enrolment keys
#[utoipa::path(get, path = "/enrolment-keys", tag = "enrolment", operation_id = "listEnrolmentKeys", params(PageQuery),
    responses((status = 200, description = "One page, newest first; secrets are not in it", body = Page<dto::enrol::EnrolmentKey>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Reply<Page<dto::enrol::EnrolmentKey>>, Problem> {
    let paged = api.store.keys().list(&page(query.limit, query.cursor)?).await?;
    let seen = paged.items.into_iter().filter(|key| Api::sees(&caller, Action::EnrolList, &key.labels));
    Ok(Reply(Page { items: seen.map(shown).collect(), next_cursor: paged.next_cursor }))
}

/// Make an enrolment key
#[utoipa::path(post, path = "/enrolment-keys", tag = "enrolment", operation_id = "createEnrolmentKey", request_body = NewKey,
    responses((status = 201, description = "The key, shown once, and the commands that use it", body = CreatedKey),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    Json(new): Json<NewKey>,
) -> Result<(StatusCode, Reply<CreatedKey>), Problem> {
    let labels = Labels::try_from(new.labels.unwrap_or_default())?;
    if authorise(&caller, Action::EnrolKeyCreate, Object::Agent(&labels)).is_err() {
        return Err(Kind::Forbidden.problem(format!("you may only add agents with labels {}", caller.selector)));
    }
    let uses = within("uses", new.uses.unwrap_or(1), 1, USES_MAX)?;
    let ttl_s = within("ttl_s", new.ttl_s.unwrap_or(TTL_S), TTL_MIN_S, TTL_MAX_S)?;
    let (secret, now_ms) = (generate_secret(), api.now_ms());
    let row = keys::EnrolmentKey {
        id: Uuid::new_v4().to_string(),
        name: name(new.name)?,
        sha256: secret_sha256(secret.expose_secret()),
        uses,
        uses_left: uses,
        labels,
        approval: new.approval,
        operations: operations(&new.allow, new.as_root),
        created_by: caller.actor().to_string(),
        created_at_ms: now_ms,
        expires_at_ms: now_ms.saturating_add(i64::from(ttl_s) * 1000),
        revoked_at_ms: None,
    };
    let detail = json!({ "uses": uses, "approval": row.approval, "labels": &row.labels });
    let facts = install::facts(&api).await?;
    api.store.keys().add(&row, &caller.did("enrolment_key.create").object(&row.id).detail(detail)).await?;
    let (address, pin) = (api.settings.master_address.clone(), api.settings.pin);
    let key = EnrolmentKey { address, pin, secret }.expose();
    let info = shown(row);
    let commands = install::commands(&facts, &key, &info.allow, info.as_root);
    Ok((StatusCode::CREATED, Reply(CreatedKey { info, key, commands, platforms: facts.platforms })))
}

/// Revoke an enrolment key: nobody enrols with it any more, agents it made stay
#[utoipa::path(delete, path = "/enrolment-keys/{id}", tag = "enrolment", operation_id = "revokeEnrolmentKey",
    params(("id" = Uuid, Path, description = "The key's id, not its secret")),
    responses((status = 204, description = "Revoked")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<Uuid>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    let id = id.to_string();
    let key = api.store.keys().find(&id).await?.ok_or_else(not_found)?;
    authorise(&caller, Action::EnrolKeyRevoke, Object::Agent(&key.labels))?;
    let audit = caller.did("enrolment_key.revoke").object(&id);
    if api.store.keys().revoke(&id, api.now_ms(), &audit).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found())
    }
}

/// List machines that wait for approval
#[utoipa::path(get, path = "/enrolments", tag = "enrolment", operation_id = "listEnrolments", params(PageQuery),
    responses((status = 200, description = "One page, newest first", body = Page<WaitingAgent>)))]
pub(super) async fn waiting(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Reply<Page<WaitingAgent>>, Problem> {
    let paged = api.store.keys().list_waiting(api.now_ms(), &page(query.limit, query.cursor)?).await?;
    let seen = paged.items.into_iter().filter(|row| Api::sees(&caller, Action::EnrolList, &row.labels));
    Ok(Reply(Page { items: seen.map(shown_waiting).collect(), next_cursor: paged.next_cursor }))
}

/// Approve a machine: it becomes an agent within seconds
#[utoipa::path(post, path = "/enrolments/{id}/approve", tag = "enrolment", operation_id = "approveEnrolment",
    params(("id" = Uuid, Path, description = "The waiting machine")),
    responses((status = 200, description = "Approved", body = WaitingAgent),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn approve(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<Uuid>,
    _: Query<NoQuery>,
    OptionalJson(super::agents::NoBody {}): OptionalJson<super::agents::NoBody>,
) -> Result<Reply<WaitingAgent>, Problem> {
    decide(&api, &caller, id, Decision::Approve).await
}

/// Reject a machine: it is told so, and its use of the key comes back
#[utoipa::path(post, path = "/enrolments/{id}/reject", tag = "enrolment", operation_id = "rejectEnrolment",
    params(("id" = Uuid, Path, description = "The waiting machine")),
    responses((status = 200, description = "Rejected", body = WaitingAgent),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn reject(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<Uuid>,
    _: Query<NoQuery>,
    OptionalJson(super::agents::NoBody {}): OptionalJson<super::agents::NoBody>,
) -> Result<Reply<WaitingAgent>, Problem> {
    decide(&api, &caller, id, Decision::Reject).await
}

async fn decide(api: &Api, caller: &Caller, id: Uuid, decision: Decision) -> Result<Reply<WaitingAgent>, Problem> {
    let (id, now_ms) = (id.to_string(), api.now_ms());
    let row = api.store.keys().waiting(&id, now_ms).await?.ok_or_else(not_found)?;
    authorise(caller, Action::EnrolDecide, Object::Agent(&row.labels))?;
    let (action, event) = match decision {
        Decision::Approve => ("enrolment.approve", "agent.approved"),
        Decision::Reject => ("enrolment.reject", "agent.rejected"),
    };
    let audit = caller.did(action).agent(&row.agent_id).object(&id);
    if row.status != WaitingStatus::Waiting || !api.store.keys().decide(&id, decision, now_ms, &audit).await? {
        return Err(Kind::Conflict.problem("somebody decided about this machine already"));
    }
    api.events.publish(Draft::new(event).agent(&row.agent_id).detail(json!({ "enrolment_id": id })));
    Ok(Reply(shown_waiting(row)))
}

fn within(field: &str, value: u32, least: u32, most: u32) -> Result<u32, Problem> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Kind::Invalid.problem(format!("{field} is {least} to {most}")))
}

fn name(name: Option<String>) -> Result<String, Problem> {
    let Some(name) = name else { return Ok("machines".to_owned()) };
    if (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(name);
    }
    Err(Kind::Invalid.problem(format!("name has 1 to {NAME_MAX} characters, none of them a control character")))
}

fn operations(allow: &[Grant], as_root: bool) -> Vec<String> {
    let granted = [Grant::Shell, Grant::Exec, Grant::Files].into_iter().filter(|grant| allow.contains(grant));
    granted.map(|grant| install::word(grant).to_owned()).chain(as_root.then(|| AS_ROOT.to_owned())).collect()
}

fn shown(key: keys::EnrolmentKey) -> dto::enrol::EnrolmentKey {
    let granted = |grant: &Grant| key.operations.iter().any(|word| word == install::word(*grant));
    dto::enrol::EnrolmentKey {
        allow: [Grant::Shell, Grant::Exec, Grant::Files].into_iter().filter(granted).collect(),
        as_root: key.operations.iter().any(|word| word == AS_ROOT),
        id: key.id,
        name: key.name,
        uses: key.uses,
        uses_left: key.uses_left,
        labels: pairs(&key.labels),
        approval: key.approval,
        created_by: key.created_by,
        created_at: Time::from_ms(key.created_at_ms),
        expires_at: Time::from_ms(key.expires_at_ms),
        revoked_at: key.revoked_at_ms.map(Time::from_ms),
    }
}

fn shown_waiting(row: keys::WaitingAgent) -> WaitingAgent {
    WaitingAgent {
        id: row.id,
        key_id: row.key_id,
        agent_id: row.agent_id.to_string(),
        labels: pairs(&row.labels),
        address: row.address,
        created_at: Time::from_ms(row.created_at_ms),
        expires_at: Time::from_ms(row.expires_at_ms),
    }
}

fn pairs(labels: &Labels) -> dto::Labels {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
