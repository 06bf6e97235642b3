//! `/agents/{id}/commands`: the command call in its original shapes. A failure at the agent is an answer; what was not
//! sent is a problem.

use std::time::Duration;

use axum::{Json as Reply, extract::State};
use proto::id::AgentId;
use serde_json::Value;

use super::{
    dto::command::{CommandCall, CommandReply, CommandStatus},
    extract::{Id, Json, NoQuery, Query},
    files::{Work, perform},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::Action,
    command::{Answer, Call, TIMEOUT_DEFAULT, TIMEOUT_MAX},
};

/// From here on a timestamp is in milliseconds: as seconds it would lie 30,000 years ahead.
const MILLISECONDS_FROM: i64 = 1_000_000_000_000;
/// The one call of the original panel that names no service.
const GET_STATS: &str = "GET_STATS";
/// The one whose action is an operation on files.
const FILE_ACTION: &str = "FILE_ACTION";
const STATS: (&str, &str) = ("system", "getUsage");
/// A command's payload may fill its frame; the call adds its own fields.
const BODY: usize = 96 * 1024;

/// Send one command
#[utoipa::path(post, path = "/agents/{id}/commands", tag = "agents", operation_id = "sendCommand",
    request_body = CommandCall, params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "The agent's answer, good or bad", body = CommandReply),
              (status = 409, description = "agent_offline, stale, replayed", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn call(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    Json(body): Json<CommandCall, BODY>,
) -> Result<Reply<CommandReply>, Problem> {
    api.agent(&caller, Action::CommandRun, &id).await?;
    let request_id = body.id.clone();
    if body.kind == FILE_ACTION {
        return file_action(&api, &caller, &id, body).await.map(Reply);
    }
    let call = checked(body)?;
    let answer = api.commands.call(&caller.actor().to_string(), &id, call).await?;
    Ok(Reply(match answer {
        Answer::Success(data) => {
            CommandReply { request_id, status: CommandStatus::Success, data, error: None, code: None }
        }
        Answer::Failure { code, message } => CommandReply {
            request_id,
            status: CommandStatus::Error,
            data: Value::Null,
            error: Some(message),
            code: Some(code.to_string()),
        },
    }))
}

/// The original panel's words for operations on files, and ours.
const FILE_ACTIONS: [(&str, &str); 5] = [
    ("ls", "list"),
    ("delete", "remove"),
    ("file_type", "type"),
    ("download_chunked", "read"),
    ("upload_chunk", "upload_chunk"),
];

/// An operation on files in the shape of a command: a failure at the agent is an answer.
async fn file_action(api: &Api, caller: &Caller, id: &AgentId, body: CommandCall) -> Result<CommandReply, Problem> {
    check_id(&body.id)?;
    let action = body.action.as_deref().unwrap_or_default();
    let operation = FILE_ACTIONS.iter().find(|(theirs, _)| *theirs == action).map_or(action, |(_, ours)| ours);
    let payload = body.payload.unwrap_or_else(|| serde_json::json!({}));
    let file_call = serde_json::from_value(payload)
        .map_err(|error| Kind::Invalid.problem(format!("the payload does not fit: {error}")))?;
    let work = Work::of(operation, file_call)?;
    let work = work
        .ok_or_else(|| Kind::Invalid.problem(format!("{action:?} is no action on files; see docs/tasks/files.md")))?;
    let timestamp = timestamp_ms(body.timestamp);
    let request = api.commands.take(&caller.actor().to_string(), id, &body.id, timestamp)?;
    let result = perform(api, caller, id, request, work).await;
    let (request_id, status) = (body.id, CommandStatus::Success);
    match result {
        Ok(answer) => {
            let data = serde_json::to_value(answer).unwrap_or_default();
            Ok(CommandReply { request_id, status, data, error: None, code: None })
        }
        // What the agent said is an answer, what kept it from being asked is not.
        Err(problem) if is_of_the_agent(&problem) => Ok(CommandReply {
            request_id,
            status: CommandStatus::Error,
            data: problem.offset.map_or(Value::Null, |offset| serde_json::json!({ "offset": offset })),
            error: Some(problem.detail),
            code: Some(problem.code),
        }),
        Err(problem) => Err(problem),
    }
}

fn is_of_the_agent(problem: &Problem) -> bool {
    let kinds = [
        Kind::FileNotFound,
        Kind::OutsideRoots,
        Kind::ReadOnly,
        Kind::NoAccess,
        Kind::FileExists,
        Kind::NotAFile,
        Kind::NotAFolder,
        Kind::NotEmpty,
        Kind::SourceChanged,
        Kind::BadOffset,
        Kind::WrongHash,
        Kind::BadArchive,
        Kind::IoFailed,
        Kind::NoSpace,
        Kind::AgentRefused,
        Kind::AgentFailed,
    ];
    kinds.iter().any(|kind| kind.code() == problem.code)
}

fn check_id(id: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
        return Err(Kind::Invalid.problem("id is 1 to 128 of A-Z a-z 0-9 . _ : -"));
    }
    Ok(())
}

fn checked(body: CommandCall) -> Result<Call, Problem> {
    check_id(&body.id)?;
    let kind = body.kind.as_str();
    if !proto::command::is_name(kind) {
        return Err(Kind::Invalid.problem("type is 1 to 64 of A-Z a-z 0-9 _ -"));
    }
    let (service, action) = match (body.service, body.action) {
        (Some(service), Some(action)) => (service, action),
        (None, None) if kind == GET_STATS => (STATS.0.to_owned(), STATS.1.to_owned()),
        _ => return Err(Kind::Invalid.problem("service and action are both required, except for type GET_STATS")),
    };
    let timeout = body.timeout_s.map_or(TIMEOUT_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(Kind::Invalid.problem(format!("timeout_s is 1 to {}", TIMEOUT_MAX.as_secs())));
    }
    Ok(Call {
        id: body.id,
        service,
        action,
        timestamp_ms: timestamp_ms(body.timestamp),
        payload: body.payload.filter(|payload| !payload.is_null()),
        timeout,
    })
}

/// Unix seconds or milliseconds, as milliseconds.
fn timestamp_ms(timestamp: i64) -> i64 {
    if timestamp >= MILLISECONDS_FROM { timestamp } else { timestamp.saturating_mul(1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Call, Problem> {
        checked(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn timestamps_are_seconds_or_milliseconds() {
        assert_eq!(timestamp_ms(1_795_368_000), 1_795_368_000_000);
        assert_eq!(timestamp_ms(1_795_368_000_123), 1_795_368_000_123);
        assert_eq!(timestamp_ms(i64::MIN), i64::MIN);
    }

    #[test]
    fn only_get_stats_may_leave_service_and_action_out() {
        let stats = body(r#"{"id":"1","type":"GET_STATS","timestamp":1}"#).unwrap();
        assert_eq!((stats.service.as_str(), stats.action.as_str()), STATS);
        assert!(body(r#"{"id":"1","type":"COMMAND","timestamp":1}"#).is_err());
        assert!(body(r#"{"id":"1","type":"COMMAND","timestamp":1,"service":"a"}"#).is_err());
        let named = body(r#"{"id":"1","type":"COMMAND","timestamp":1,"service":"a","action":"b"}"#).unwrap();
        assert_eq!((named.service.as_str(), named.action.as_str()), ("a", "b"));
    }

    #[test]
    fn ids_and_types_are_bounded() {
        for bad in [r#""id":"","type":"GET_STATS""#, r#""id":"a b","type":"GET_STATS""#, r#""id":"1","type":"a\u0000""#]
        {
            assert!(body(&format!(r#"{{{bad},"timestamp":1}}"#)).is_err(), "{bad}");
        }
    }
}
