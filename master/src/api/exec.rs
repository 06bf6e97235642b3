//! `/agents/{id}/exec`: one command line, its output as NDJSON while it comes. A caller that leaves lets it run; one whose
//! token is revoked is cut off within seconds (SECURITY R15).

use std::{convert::Infallible, pin::pin};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::Engine;
use futures_util::stream;
use proto::{
    code::Code,
    exec::{End, ExecSpec, Program},
    id::{AgentId, ExecId},
    limits::EXEC_ITEMS_MAX,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    dto::{
        exec::{ExecCall, ExecLine, Exit, Piece},
        shell::LineState,
    },
    extract::{Id, Json, NoQuery, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
};
use crate::{
    access::Action,
    session::exec::{ExecEvent, ExecRun, Stdin},
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
    let run = api.execs.start(caller.did("exec.start").agent(&id), &id, spec, stdin).await?;
    Ok(followed(api, caller, run))
}

/// The events of a run as NDJSON, to its end or the caller's.
pub(super) fn followed(api: Api, caller: Caller, run: ExecRun) -> Response {
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
    response
}

/// One run while somebody reads it. Dropping it lets the program run.
struct Following {
    api: Api,
    caller: Caller,
    run: ExecRun,
    again: Interval,
}

impl Following {
    /// The next line, and whether it is the last.
    async fn next(&mut self) -> Option<(ExecLine, bool)> {
        let id = self.run.id;
        let mut next = pin!(self.run.next());
        loop {
            tokio::select! {
                biased;
                _ = self.again.tick() => {
                    if let Err(problem) = self.api.still(&self.caller, Action::ExecRun).await {
                        return Some((ExecLine::Error { code: problem.code, message: problem.detail }, true));
                    }
                }
                event = &mut next => return event.map(|event| line(id, event)),
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
        ExecEvent::Line { up } => {
            let state = if up { LineState::Back } else { LineState::Lost };
            (ExecLine::Line { state }, false)
        }
        ExecEvent::Lost(code) => {
            let (code, message) = why_lost(code);
            (ExecLine::Error { code: code.to_string(), message: message.to_owned() }, true)
        }
    }
}

/// Why a run cannot be followed any more, and what to do about it.
fn why_lost(code: Code) -> (Code, &'static str) {
    match code {
        Code::NO_SESSION => (
            Code::OUTCOME_UNKNOWN,
            "the agent does not know this exec any more, it was restarted: whether and how the program ended is not known",
        ),
        Code::SUPERSEDED => (code, "another call reads this output now"),
        Code::SHUTDOWN => (code, "the master is going away; the program runs on: read on by its id when it is back"),
        Code::SUSPENDED | Code::REMOVED => (code, "the agent was sent away, and ended the program"),
        Code::OUTPUT_GONE => (code, "the agent does not keep the output at this offset any more"),
        code => (code, code.meaning().unwrap_or("the run cannot be followed any more")),
    }
}

fn encoded(line: &ExecLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn spec(call: ExecCall) -> Result<(ExecSpec, Stdin), Problem> {
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
    let stdin = Stdin { bytes: stdin(call.stdin, call.stdin_base64)?.into(), ends: !call.stdin_open };
    let spec = ExecSpec {
        program,
        cwd: call.cwd,
        env: call.env.into_iter().collect(),
        timeout_ms: u64::from(timeout_s) * 1000,
        stdin: call.stdin_open || !stdin.bytes.is_empty(),
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
