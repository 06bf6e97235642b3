//! `/tokens`: make, list, revoke. A new token never holds more than its creator.

use std::time::Duration;

use axum::{Json as Reply, extract::State, http::StatusCode};
use secrecy::ExposeSecret;

use super::{
    agents::{page, selector},
    dto::{
        Page, Time,
        event::PageQuery,
        token::{CreatedToken, NewToken, Token},
    },
    extract::{Id, Json, NoQuery, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::{Action, Object, Permission, TokenRequest, authorise},
    store::tokens::ApiToken,
};

/// List tokens
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "listTokens", params(PageQuery),
    responses((status = 200, description = "One page, newest first; secrets are not in it", body = Page<Token>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Reply<Page<Token>>, Problem> {
    let paged = api.store.tokens().list(caller.tokens_of(), &page(query.limit, query.cursor)?).await?;
    Ok(Reply(Page { items: paged.items.into_iter().map(shown).collect(), next_cursor: paged.next_cursor }))
}

/// Make a token
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "createToken", request_body = NewToken,
    responses((status = 201, description = "The token; its secret is shown once", body = CreatedToken),
              (status = 409, description = "conflict", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Reply<CreatedToken>), Problem> {
    if new.permissions.len() > Permission::ALL.len() * 2 {
        return Err(Kind::Invalid.problem("more permissions than there are"));
    }
    let request = TokenRequest {
        name: new.name,
        permissions: new.permissions.join(" ").parse()?,
        selector: selector(new.selector.as_deref())?,
        ttl: new.expires_in_s.map(|seconds| Duration::from_secs(seconds.into())),
    };
    if request.ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(Kind::Invalid.problem("expires_in_s is at least 1"));
    }
    let created = api.access.create(&caller, request, api.now_ms(), caller.did("token.create")).await?;
    let secret = created.secret.expose_secret().to_owned();
    Ok((StatusCode::CREATED, Reply(CreatedToken { token: shown(created.token), secret })))
}

/// Revoke a token: what runs on it ends within seconds
#[utoipa::path(delete, path = "/tokens/{id}", tag = "tokens", operation_id = "revokeToken",
    params(("id" = uuid::Uuid, Path, description = "The token's id, not its secret")),
    responses((status = 204, description = "Revoked")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    authorise(&caller, Action::TokenRevoke, Object::Token)?;
    let token = api.store.tokens().find(&id.to_string()).await?.ok_or_else(not_found)?;
    if caller.tokens_of().is_some_and(|own| token.operator_id.as_deref() != Some(own)) {
        return Err(not_found());
    }
    let revoked = api.access.revoke(&id.to_string(), api.now_ms(), caller.did("token.revoke")).await?;
    if revoked { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}

fn shown(token: ApiToken) -> Token {
    Token {
        id: token.id,
        name: token.name,
        permissions: token.permissions.split_whitespace().map(str::to_owned).collect(),
        selector: Some(token.selector).filter(|selector| !selector.is_empty()),
        created_at: Time::from_ms(token.created_at_ms),
        operator_id: token.operator_id,
        expires_at: token.expires_at_ms.map(Time::from_ms),
        revoked_at: token.revoked_at_ms.map(Time::from_ms),
    }
}
