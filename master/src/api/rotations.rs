//! `/agents/{id}/rotate`: a new key for an agent that is connected.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};
use proto::id::AgentId;

use super::{
    agents::NoBody,
    extract::{Id, NoQuery, OptionalJson, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::access::Action;

/// For an agent to make a key, have it certified and use it.
const ROTATED_WITHIN: Duration = Duration::from_secs(20);

/// Give a connected agent a new key
#[utoipa::path(post, path = "/agents/{id}/rotate", tag = "agents", operation_id = "rotateAgentKey",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 204, description = "It uses a new key, and its old one is refused. Its line stayed up"),
              (status = 409, description = "agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout: it made none within 20 s; the old key is still good, ask again",
               body = Problem, content_type = "application/problem+json")))]
pub(super) async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    OptionalJson(NoBody {}): OptionalJson<NoBody>,
) -> Result<StatusCode, Problem> {
    api.agent(&caller, Action::AgentRotate, &id).await?;
    api.store.audit(&caller.did("agent.rotate").agent(&id)).await?;
    let Some(rotated) = api.fleet.rotate_key(&id) else {
        return Err(Kind::AgentOffline.problem("an agent makes its new key itself, and this one is not connected"));
    };
    match tokio::time::timeout(ROTATED_WITHIN, rotated.cancelled()).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(_) => Err(Kind::AgentTimeout.problem("no new key within 20 s; the old one is still good")),
    }
}
