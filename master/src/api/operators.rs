//! `/operators`: accounts of people and their sessions. Nobody makes or touches an account above their own permissions.

use axum::{Json as Reply, extract::State, http::StatusCode};
use secrecy::SecretString;

use super::{
    agents::{page, selector},
    dto::{
        Page, Time,
        event::PageQuery,
        operator::{NewOperator, Operator, OperatorChange, OperatorSession, Person, Role},
    },
    extract::{Id, Json, NoQuery, PathOf, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::{self, Action, NewPerson, Object, PersonChange, authorise},
    store,
};

const BODY: usize = 8192;

/// List people
#[utoipa::path(get, path = "/operators", tag = "people", operation_id = "listOperators", params(PageQuery),
    responses((status = 200, description = "One page, newest first", body = Page<Operator>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Reply<Page<Operator>>, Problem> {
    let paged = api.store.operators().list(&page(query.limit, query.cursor)?).await?;
    let items = paged.items.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(Reply(Page { items, next_cursor: paged.next_cursor }))
}

/// Make an account
#[utoipa::path(post, path = "/operators", tag = "people", operation_id = "createOperator", request_body = NewOperator,
    responses((status = 201, description = "The account", body = Operator),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    Json(new): Json<NewOperator, BODY>,
) -> Result<(StatusCode, Reply<Operator>), Problem> {
    let new = NewPerson {
        name: new.name,
        password: SecretString::from(new.password),
        role: role(new.role),
        selector: selector(new.selector.as_deref())?,
    };
    let made = api.people.add(&caller, new, api.now_ms(), caller.did("operator.add")).await?;
    Ok((StatusCode::CREATED, Reply(shown(&made)?)))
}

/// Show an account
#[utoipa::path(get, path = "/operators/{id}", tag = "people", operation_id = "showOperator",
    params(("id" = uuid::Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "The account", body = Operator)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
) -> Result<Reply<Operator>, Problem> {
    authorise(&caller, Action::OperatorRead, Object::Operator)?;
    let found = api.store.operators().find(&id.to_string()).await?.ok_or_else(not_found)?;
    Ok(Reply(shown(&found)?))
}

/// Change an account: role, selector, password; take TOTP off
#[utoipa::path(patch, path = "/operators/{id}", tag = "people", operation_id = "changeOperator",
    request_body = OperatorChange, params(("id" = uuid::Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "The account as it is now", body = Operator),
              (status = 409, description = "last_admin", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
    Json(change): Json<OperatorChange, BODY>,
) -> Result<Reply<Operator>, Problem> {
    authorise(&caller, Action::OperatorChange, Object::Operator)?;
    if change.totp == Some(true) {
        return Err(Kind::Invalid.problem("totp: only the person can turn it on, with a code"));
    }
    let change = PersonChange {
        role: change.role.map(role),
        selector: change.selector.as_deref().map(|text| selector(Some(text))).transpose()?,
        password: change.password.map(SecretString::from),
        totp_off: change.totp == Some(false),
    };
    let changed = api.people.change(&caller, &id.to_string(), change, caller.did("operator.change")).await?;
    Ok(Reply(shown(&changed)?))
}

/// Remove an account: its sessions and tokens end
#[utoipa::path(delete, path = "/operators/{id}", tag = "people", operation_id = "removeOperator",
    params(("id" = uuid::Uuid, Path, description = "The account's id")),
    responses((status = 204, description = "Removed"),
              (status = 409, description = "last_admin", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    authorise(&caller, Action::OperatorRemove, Object::Operator)?;
    api.people.remove(&caller, &id.to_string(), api.now_ms(), caller.did("operator.remove")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List an account's sessions
#[utoipa::path(get, path = "/operators/{id}/sessions", tag = "people", operation_id = "listOperatorSessions",
    params(("id" = uuid::Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "Newest first; there are never more than one page", body = Page<OperatorSession>)))]
pub(super) async fn sessions(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
) -> Result<Reply<Page<OperatorSession>>, Problem> {
    authorise(&caller, Action::OperatorRead, Object::Operator)?;
    let id = id.to_string();
    api.store.operators().find(&id).await?.ok_or_else(not_found)?;
    Ok(Reply(sessions_of(&api, &caller, &id).await?))
}

/// End a session of an account
#[utoipa::path(delete, path = "/operators/{id}/sessions/{session}", tag = "people", operation_id = "endOperatorSession",
    params(("id" = uuid::Uuid, Path, description = "The account's id"),
           ("session" = uuid::Uuid, Path, description = "The session's id")),
    responses((status = 204, description = "Ended; its streams end within seconds")))]
pub(super) async fn end_session(
    State(api): State<Api>,
    caller: Caller,
    PathOf((id, session)): PathOf<(uuid::Uuid, uuid::Uuid)>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    authorise(&caller, Action::OperatorChange, Object::Operator)?;
    let id = id.to_string();
    api.people.touchable(&caller, &id).await?;
    let ended = api.people.end_session(&id, &session.to_string(), caller.did("operator.session_end")).await?;
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}

/// The sessions of one person, as the caller sees them.
pub(super) async fn sessions_of(api: &Api, caller: &Caller, id: &str) -> Result<Page<OperatorSession>, Problem> {
    let rows = api.store.operator_sessions().list(id).await?;
    let own = caller.session().map(|session| session.id.clone());
    let items = rows.into_iter().map(|row| OperatorSession {
        current: own.as_ref() == Some(&row.id),
        id: row.id,
        created_at: Time::from_ms(row.created_at_ms),
        seen_at: Time::from_ms(row.seen_at_ms),
        expires_at: Time::from_ms(row.expires_at_ms),
        source: row.source,
        user_agent: row.user_agent,
        socket: row.socket,
    });
    Ok(Page { items: items.collect(), next_cursor: None })
}

fn shown(row: &store::operators::Operator) -> Result<Operator, Problem> {
    Ok(Operator {
        person: person(row)?,
        created_at: Time::from_ms(row.created_at_ms),
        last_login_at: row.last_login_at_ms.map(Time::from_ms),
    })
}

/// Who it is.
pub(super) fn person(row: &store::operators::Operator) -> Result<Person, Problem> {
    let role = match row.role.parse().map_err(store::StoreError::Corrupt)? {
        access::Role::Viewer => Role::Viewer,
        access::Role::Operator => Role::Operator,
        access::Role::Admin => Role::Admin,
    };
    Ok(Person {
        id: row.id.clone(),
        name: row.name.clone(),
        role,
        selector: Some(row.selector.clone()).filter(|selector| !selector.is_empty()),
        totp: row.totp_secret.is_some(),
    })
}

fn role(role: Role) -> access::Role {
    match role {
        Role::Viewer => access::Role::Viewer,
        Role::Operator => access::Role::Operator,
        Role::Admin => access::Role::Admin,
    }
}
