//! `/execs`: coming back to a command line that runs, or ended a while ago. Its output and its input are its owner's.

use axum::{
    Json as Reply,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use futures_util::StreamExt;
use proto::{
    code::Code,
    id::{AgentId, ExecId},
};

use super::{
    agents::page,
    content::linger,
    dto::{
        Page, Time,
        exec::{Exec, ExecNow, Fed, InputQuery, OutputQuery},
        shell::SessionsQuery,
    },
    exec::followed,
    extract::{Id, NoQuery, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::Action,
    fleet::OpenError,
    session::exec::FeedError,
    store::sessions::{SessionFilter, SessionKind, SessionRow},
};

/// List the execs of an agent
#[utoipa::path(get, path = "/agents/{id}/execs", tag = "execs", operation_id = "listAgentExecs",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), SessionsQuery),
    responses((status = 200, description = "One page, newest first", body = Page<Exec>)))]
pub(super) async fn list_of_agent(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<SessionsQuery>,
) -> Result<Reply<Page<Exec>>, Problem> {
    api.agent(&caller, Action::ExecRead, &id).await?;
    listed(&api, &caller, Some(id), query).await
}

/// List execs
#[utoipa::path(get, path = "/execs", tag = "execs", operation_id = "listExecs", params(SessionsQuery),
    responses((status = 200, description = "One page, newest first", body = Page<Exec>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> Result<Reply<Page<Exec>>, Problem> {
    listed(&api, &caller, None, query).await
}

async fn listed(
    api: &Api,
    caller: &Caller,
    agent_id: Option<AgentId>,
    query: SessionsQuery,
) -> Result<Reply<Page<Exec>>, Problem> {
    let page = page(query.limit, query.cursor)?;
    let filter = SessionFilter { kind: Some(SessionKind::Exec), agent_id, running: query.running };
    let paged = api.store.sessions().list(&filter, &page).await?;
    let mut items = Vec::with_capacity(paged.items.len());
    for row in paged.items {
        // What the token does not cover is not there; a page may hold fewer than its limit.
        if api.allow(caller, Action::ExecRead, &row.agent_id).await.is_ok() {
            items.push(shown(row, None));
        }
    }
    Ok(Reply(Page { items, next_cursor: paged.next_cursor }))
}

/// Show an exec
#[utoipa::path(get, path = "/execs/{id}", tag = "execs", operation_id = "showExec",
    params(("id" = uuid::Uuid, Path, description = "As told by the line `started`")),
    responses((status = 200, description = "What the master knows, and the agent where it answers", body = Exec)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecId>,
    _: Query<NoQuery>,
) -> Result<Reply<Exec>, Problem> {
    let found = row(&api, &caller, Action::ExecRead, id).await?;
    let now = api.execs.look(&found).await.ok().map(|attached| ExecNow {
        pid: attached.pid,
        kept_from: attached.kept_from,
        output: attached.output,
        stdin: attached.stdin,
        stdin_open: attached.stdin_open,
    });
    Ok(Reply(shown(found, now)))
}

/// The output of an exec from a byte on, while it comes
#[utoipa::path(get, path = "/execs/{id}/output", tag = "execs", operation_id = "execOutput",
    params(("id" = uuid::Uuid, Path, description = "As told by the line `started`"), OutputQuery),
    responses((status = 200, description = "NDJSON as of the call that started it; who read before is superseded",
               body = super::dto::exec::ExecLine, content_type = "application/x-ndjson"),
              (status = 409, description = "output_gone; session_over: the agent does not keep it any more; agent_offline",
               body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn output(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecId>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, Problem> {
    let row = own(&api, &caller, Action::ExecRead, id).await?;
    let run = api.execs.follow(&row, query.offset).await.map_err(gone)?;
    Ok(followed(api, caller, run))
}

/// Feed an exec
#[utoipa::path(put, path = "/execs/{id}/stdin", tag = "execs", operation_id = "feedExec",
    params(("id" = uuid::Uuid, Path, description = "As told by the line `started`"), InputQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "Taken as fast as the program reads"),
    responses((status = 200, description = "The agent has all of it", body = Fed),
              (status = 409, description = "bad_offset, with the right one; session_over: the program takes no more; agent_offline",
               body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn feed(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecId>,
    Query(query): Query<InputQuery>,
    request: Request,
) -> Result<Reply<Fed>, Problem> {
    let mut body = request.into_body().into_data_stream();
    let fed = async {
        let row = own(&api, &caller, Action::ExecRun, id).await?;
        let mut feeder = api.execs.feed(&row, query.offset).await.map_err(unfed)?;
        let feeding = async {
            while let Some(piece) = body.next().await {
                let piece = piece.map_err(|_| Kind::BadRequest.problem("the body was cut off"))?;
                feeder.push(&piece).await.map_err(unfed)?;
            }
            feeder.finish(query.end).await.map_err(unfed)
        };
        tokio::select! {
            biased;
            problem = api.not_any_more(&caller, Action::ExecRun) => Err(problem),
            fed = feeding => fed,
        }
    };
    match fed.await {
        Ok(offset) => Ok(Reply(Fed { offset })),
        Err(problem) => {
            linger(body).await;
            Err(problem)
        }
    }
}

/// Cancel an exec: everything it started is killed
#[utoipa::path(delete, path = "/execs/{id}", tag = "execs", operation_id = "cancelExec",
    params(("id" = uuid::Uuid, Path, description = "As told by the line `started`")),
    responses((status = 204, description = "The agent was told; its state says how it ended"),
              (status = 409, description = "session_over, agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecId>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    let row = row(&api, &caller, Action::ExecCancel, id).await?;
    if row.ended_at_ms.is_some() {
        return Err(Kind::SessionOver.problem("it is over already"));
    }
    api.store.audit(&caller.did("exec.cancel").agent(&row.agent_id).object(id)).await?;
    api.execs.cancel(&row).await.map_err(gone)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The exec's row, if the caller may do this to its agent (SECURITY R14).
async fn row(api: &Api, caller: &Caller, action: Action, id: ExecId) -> Result<SessionRow, Problem> {
    let row = api.store.sessions().find(id.0).await?.filter(|row| row.kind == SessionKind::Exec);
    let row = row.ok_or_else(not_found)?;
    api.allow(caller, action, &row.agent_id).await?;
    Ok(row)
}

/// The same for what only its owner may.
async fn own(api: &Api, caller: &Caller, action: Action, id: ExecId) -> Result<SessionRow, Problem> {
    let row = row(api, caller, action, id).await?;
    if row.owner != caller.actor().to_string() {
        return Err(Kind::NotOwner.problem("only the token that started it may read its output and feed it"));
    }
    Ok(row)
}

fn gone(error: OpenError) -> Problem {
    match error {
        OpenError::Refused(refused) if refused.code == Code::NO_SESSION => {
            Kind::SessionOver.problem("the agent does not keep this exec any more: it ended more than ten minutes ago, or the agent was restarted")
        }
        OpenError::Refused(refused) if refused.code == Code::OUTPUT_GONE => Kind::OutputGone.problem(refused.message),
        error => error.into(),
    }
}

fn unfed(error: FeedError) -> Problem {
    match error {
        FeedError::Open(error) => gone(error),
        FeedError::Offset(offset) => Kind::BadOffset.problem(error.to_string()).offset(offset),
        FeedError::Closed => Kind::SessionOver.problem(error.to_string()),
    }
}

fn shown(row: SessionRow, now: Option<ExecNow>) -> Exec {
    let number = |key: &str| row.detail[key].as_i64().and_then(|number| i32::try_from(number).ok());
    Exec {
        id: row.id.to_string(),
        agent_id: row.agent_id.to_string(),
        exit_code: number("code"),
        signal: number("signal"),
        program: row.detail["program"].clone(),
        owner: row.owner,
        created_at: Time::from_ms(row.created_at_ms),
        ended_at: row.ended_at_ms.map(Time::from_ms),
        end_reason: row.end_reason,
        now,
    }
}
