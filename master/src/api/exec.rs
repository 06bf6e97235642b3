//! `/agents/{id}/exec` and `/execs/{id}`: one command line, its output as NDJSON while it comes. A caller that leaves
//! ends the run; one whose token is revoked is cut off within seconds (SECURITY R15).

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::Engine;
use futures_util::stream;
use proto::{
    exec::{End, ExecSpec, Program},
    id::{AgentId, ExecId},
    limits::EXEC_ITEMS_MAX,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    dto::exec::{ExecCall, ExecLine, Exit, Piece},
    extract::{Id, Json, NoQuery, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
};
use crate::{
    access::Action,
    session::exec::{ExecEvent, ExecRun},
};

/// Input comes with the call.
const BODY: usize = 4 << 20;
const STDIN_MAX: usize = 2 << 20;
const TIMEOUT_MAX_S: u32 = 31_536_000;

/// Run one command line
#[utoipa::path(post, path = "/agents/{id}/exec", tag = "agents", operation_id = "exec", request_body = ExecCall,
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "NDJSON, one line per event: started, stdout, stderr, exit or error",
               body = ExecLine, content_type = "application/x-ndjson"),
              (status = 409, description = "agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    Json(call): Json<ExecCall, BODY>,
) -> Result<Response, Problem> {
    api.agent(&caller, Action::ExecRun, &id).await?;
    let (spec, stdin) = spec(call)?;
    let run = api.execs.start(&caller.actor().to_string(), &id, spec, stdin).await?;
    let mut again = interval_at(Instant::now() + RECHECK, RECHECK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = Following { api, caller, run, again };
    let lines = stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        let (line, last) = following.next().await?;
        Some((Ok::<_, Infallible>(encoded(&line)), (!last).then_some(following)))
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// Cancel an exec: its whole process group is killed
#[utoipa::path(delete, path = "/execs/{id}", tag = "agents", operation_id = "cancelExec",
    params(("id" = uuid::Uuid, Path, description = "As told by the line `started`")),
    responses((status = 204, description = "The agent was asked to kill it; its stream tells how it ended")))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ExecId>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    let agent = api.execs.agent_of(id).ok_or_else(not_found)?;
    api.allow(&caller, Action::ExecCancel, &agent).await?;
    if api.execs.cancel(id) { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}

/// One run while somebody reads it. Dropping it makes the agent kill the program.
struct Following {
    api: Api,
    caller: Caller,
    run: ExecRun,
    again: Interval,
}

impl Following {
    /// The next line, and whether it is the last.
    async fn next(&mut self) -> Option<(ExecLine, bool)> {
        loop {
            tokio::select! {
                biased;
                _ = self.again.tick() => {
                    if let Err(problem) = self.api.still(&self.caller, Action::ExecRun).await {
                        return Some((ExecLine::Error { code: problem.code, message: problem.detail }, true));
                    }
                }
                event = self.run.next() => return event.map(|event| line(self.run.id, event)),
            }
        }
    }
}

fn line(exec_id: ExecId, event: ExecEvent) -> (ExecLine, bool) {
    match event {
        ExecEvent::Started { pid } => (ExecLine::Started { exec_id: exec_id.to_string(), pid }, false),
        ExecEvent::Stdout(bytes) => (ExecLine::Stdout(Piece::from_bytes(bytes)), false),
        ExecEvent::Stderr(bytes) => (ExecLine::Stderr(Piece::from_bytes(bytes)), false),
        ExecEvent::Ended(outcome) => {
            let mut exit = Exit { truncated: outcome.truncated, ..Exit::default() };
            match outcome.end {
                End::Exited(code) => exit.code = Some(code),
                End::Signalled(signal) => exit.signal = Some(signal),
                End::Killed(code) => exit.killed = Some(code.to_string()),
            }
            (ExecLine::Exit(exit), true)
        }
        ExecEvent::Lost(code) => {
            let message = format!("the line was lost ({code}): whether and how the program ended is not known");
            (ExecLine::Error { code: "outcome_unknown".to_owned(), message }, true)
        }
    }
}

fn encoded(line: &ExecLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn spec(call: ExecCall) -> Result<(ExecSpec, Vec<u8>), Problem> {
    let invalid = |what: &str| Kind::Invalid.problem(what);
    let program = program(call.argv, call.shell)?;
    let texts = match &program {
        Program::Argv(argv) => argv.iter().collect::<Vec<_>>(),
        Program::Shell(line) => vec![line],
    };
    let variables = call.env.iter().flat_map(|(name, value)| [name, value]);
    if texts.into_iter().chain(variables).chain(&call.cwd).any(|text| text.contains('\0')) {
        return Err(invalid("a NUL byte cannot stand in arguments, variables or paths"));
    }
    if call.env.len() > EXEC_ITEMS_MAX || matches!(&program, Program::Argv(argv) if argv.len() > EXEC_ITEMS_MAX) {
        return Err(invalid("at most 1024 arguments and variables"));
    }
    if call.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err(invalid("a variable's name is empty or holds '='"));
    }
    if call.cwd.as_ref().is_some_and(|cwd| cwd.is_empty() || cwd.len() > 4096) {
        return Err(invalid("cwd is 1 to 4096 bytes"));
    }
    let timeout_s = call.timeout_s.unwrap_or(0);
    if timeout_s > TIMEOUT_MAX_S {
        return Err(invalid("timeout_s is at most a year"));
    }
    let stdin = stdin(call.stdin, call.stdin_base64)?;
    let spec = ExecSpec {
        program,
        cwd: call.cwd,
        env: call.env.into_iter().collect(),
        timeout_ms: u64::from(timeout_s) * 1000,
        stdin: !stdin.is_empty(),
        output_max: call.output_max.unwrap_or(0),
    };
    Ok((spec, stdin))
}

/// The one of the two that was given.
pub(super) fn program(argv: Option<Vec<String>>, shell: Option<String>) -> Result<Program, Problem> {
    let invalid = |what: &str| Kind::Invalid.problem(what);
    match (argv, shell) {
        (Some(argv), None) if argv.is_empty() || argv[0].is_empty() => Err(invalid("argv is empty")),
        (Some(argv), None) => Ok(Program::Argv(argv)),
        (None, Some(line)) if line.is_empty() => Err(invalid("shell is empty")),
        (None, Some(line)) => Ok(Program::Shell(line)),
        (None, None) | (Some(_), Some(_)) => Err(invalid("give argv or shell, one of the two")),
    }
}

fn stdin(text: Option<String>, encoded: Option<String>) -> Result<Vec<u8>, Problem> {
    let bytes = match (text, encoded) {
        (Some(_), Some(_)) => return Err(Kind::Invalid.problem("give stdin or stdin_base64, not both")),
        (Some(text), None) => text.into_bytes(),
        (None, Some(encoded)) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|_| Kind::Invalid.problem("stdin_base64 is not base64 with padding"))?,
        (None, None) => Vec::new(),
    };
    if bytes.len() > STDIN_MAX {
        return Err(Kind::TooLarge.problem(format!("stdin is longer than {STDIN_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let call: ExecCall = serde_json::from_str(text).unwrap();
        spec(call).err().map(|problem| problem.code).unwrap_or_default()
    }

    #[test]
    fn what_cannot_run_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"argv":[]}"#,
            r#"{"argv":[""]}"#,
            r#"{"argv":["a"],"shell":"a"}"#,
            r#"{"shell":"a\u0000b"}"#,
            r#"{"argv":["a"],"env":{"A=B":"x"}}"#,
            r#"{"argv":["a"],"env":{"A":"\u0000"}}"#,
            r#"{"argv":["a"],"cwd":""}"#,
            r#"{"argv":["a"],"stdin":"x","stdin_base64":"eA=="}"#,
            r#"{"argv":["a"],"stdin_base64":"%"}"#,
            r#"{"argv":["a"],"timeout_s":40000000}"#,
        ] {
            assert_eq!(refused(bad), "invalid", "{bad}");
        }
        assert_eq!(refused(r#"{"argv":["a","b"],"stdin":"x","timeout_s":1}"#), "");
    }
}
