//! `/audit`: the trail by page, the verdict on its chain, and all of it as one stream. Owns who may see which rows: under
//! a selector those of agents that it selects now, and none that belongs to no agent.

use std::collections::HashMap;

use axum::{
    Json as Reply,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;

use super::{
    agents::page,
    dto::{
        Page, Time,
        audit::{AuditExportQuery, AuditFault, AuditFormat, AuditLine, AuditQuery, AuditRow, AuditVerdict},
    },
    extract::{NoQuery, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
};
use crate::{
    access::Action,
    audit::{self, AuditFilter, Outcome, Verdict},
    foreign,
};

/// Rows of an export read at a time.
const BATCH: u32 = 500;
/// Longest filter text, bytes.
const TEXT_MAX: usize = 400;
/// Columns of the CSV form.
const HEAD: [&str; 12] = [
    "seq",
    "at",
    "actor",
    "actor_name",
    "action",
    "agent_id",
    "object",
    "source",
    "result",
    "detail",
    "previous",
    "hash",
];

/// Read the audit trail
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listAudit", params(AuditQuery),
    responses((status = 200, description = "One page, newest first", body = Page<AuditRow>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Reply<Page<AuditRow>>, Problem> {
    let page = page(query.limit, query.cursor.clone())?;
    let filter = filter(&caller, query.clone())?;
    let (rows, next_cursor) = match query.after {
        Some(_) if query.cursor.is_some() => return Err(Kind::Invalid.problem("either after or cursor")),
        Some(after) => (api.store.audit_after(after, &filter, page.limit).await?, None),
        None => {
            let paged = api.store.audit_rows(&filter, &page).await?;
            (paged.items, paged.next_cursor)
        }
    };
    let names = api.store.actor_names(rows.iter().map(|row| row.entry.actor.as_str())).await?;
    Ok(Reply(Page { items: rows.into_iter().map(|row| shown(row, &names)).collect(), next_cursor }))
}

/// Verify the chain
#[utoipa::path(get, path = "/audit/verify", tag = "audit", operation_id = "verifyAudit",
    responses((status = 200, description = "The verdict; a broken chain is no error of the call", body = AuditVerdict)))]
pub(super) async fn verify(State(api): State<Api>, _: Query<NoQuery>) -> Result<Reply<AuditVerdict>, Problem> {
    let Ok(_alone) = api.verifying.try_acquire() else {
        return Err(Kind::Busy.problem("the chain is being verified for another caller").retry_after(1));
    };
    Ok(Reply(match api.store.verify_audit().await? {
        Verdict::Whole { first, last, hash } => {
            AuditVerdict { whole: true, first: Some(first), last: Some(last), hash: Some(hash), broken: None }
        }
        Verdict::Broken { seq, why } => {
            tracing::error!(seq, why, "the audit chain is broken");
            let broken = Some(AuditFault { seq, why: why.to_owned() });
            AuditVerdict { whole: false, first: None, last: None, hash: None, broken }
        }
    }))
}

/// Export the audit trail, oldest first
#[utoipa::path(get, path = "/audit/export", tag = "audit", operation_id = "exportAudit", params(AuditExportQuery),
    responses((status = 200, description = "All rows, streamed; one that breaks off is not ended",
               content((AuditLine = "application/x-ndjson"), (String = "text/csv")))))]
pub(super) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<AuditExportQuery>,
) -> Result<Response, Problem> {
    let format = query.format.unwrap_or(AuditFormat::Jsonl);
    let filter = filter(&caller, as_list(query))?;
    let word = match format {
        AuditFormat::Jsonl => "jsonl",
        AuditFormat::Csv => "csv",
    };
    api.store.audit(&caller.did("audit.export").detail(json!({ "format": word }))).await?;
    let export = Export { api, caller, filter, format, after: 0, checked: Instant::now(), stage: Stage::Begin };
    let pieces = stream::try_unfold(export, |mut export| async move {
        match export.next().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, export))),
            Err(problem) => {
                tracing::warn!(problem = problem.detail, "an export of the audit trail breaks off");
                Err(std::io::Error::other(problem.detail))
            }
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let (kind, disposition) = match format {
        AuditFormat::Jsonl => ("application/x-ndjson", "attachment; filename=\"landline-audit.jsonl\""),
        AuditFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"landline-audit.csv\""),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    Ok(response)
}

/// One export under way. Nothing is held between two pieces: a slow reader costs nobody anything.
struct Export {
    api: Api,
    caller: Caller,
    filter: AuditFilter,
    format: AuditFormat,
    /// The last row given out.
    after: u64,
    /// When the caller's right was last looked at (SECURITY R15).
    checked: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Middle,
    End,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.stage == Stage::End {
            return Ok(None);
        }
        if self.checked.elapsed() >= RECHECK {
            self.api.still(&self.caller, Action::AuditRead).await?;
            self.checked = Instant::now();
        }
        let rows = self.api.store.audit_after(self.after, &self.filter, BATCH).await?;
        let begin = self.stage == Stage::Begin;
        self.stage = if rows.len() < BATCH as usize { Stage::End } else { Stage::Middle };
        self.after = rows.last().map_or(self.after, |row| row.seq);
        match self.format {
            AuditFormat::Jsonl => Ok(Some(lines(&rows))),
            AuditFormat::Csv => {
                let names = self.api.store.actor_names(rows.iter().map(|row| row.entry.actor.as_str())).await?;
                let cells = csv(begin, &rows, &names);
                cells.map(Some).ok_or_else(|| Kind::Internal.problem("the rows could not be written as CSV"))
            }
        }
    }
}

fn lines(rows: &[audit::AuditRow]) -> Bytes {
    let mut text = String::new();
    for row in rows {
        let (previous, hash, body) = (row.previous.clone(), row.hash.clone(), row.body.clone());
        let line = AuditLine { seq: row.seq, previous, hash, body };
        text.push_str(&serde_json::to_string(&line).unwrap_or_default());
        text.push('\n');
    }
    text.into()
}

/// `None` only if memory could not be written to.
fn csv(begin: bool, rows: &[audit::AuditRow], names: &HashMap<String, String>) -> Option<Bytes> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if begin {
        writer.write_record(HEAD).ok()?;
    }
    for row in rows {
        let entry = &row.entry;
        let detail = if entry.detail.is_null() { String::new() } else { entry.detail.to_string() };
        let (seq, at) = (row.seq.to_string(), Time::from_ms(entry.at_ms).0);
        let agent_id = entry.agent_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let cells = [
            seq.as_str(),
            &at,
            &entry.actor,
            names.get(&entry.actor).map(String::as_str).unwrap_or_default(),
            &entry.action,
            &agent_id,
            entry.object.as_deref().unwrap_or_default(),
            entry.source.as_deref().unwrap_or_default(),
            &entry.result,
            &detail,
            &row.previous,
            &row.hash,
        ];
        writer.write_record(cells.map(|cell| foreign::cell(cell).into_owned())).ok()?;
    }
    writer.into_inner().ok().map(Bytes::from)
}

fn as_list(query: AuditExportQuery) -> AuditQuery {
    let AuditExportQuery { format: _, agent, actor, action, result, since, until } = query;
    AuditQuery { agent, actor, action, result, since, until, ..AuditQuery::default() }
}

fn filter(caller: &Caller, query: AuditQuery) -> Result<AuditFilter, Problem> {
    let AuditQuery { limit: _, cursor: _, after: _, agent, actor, action, result, since, until } = query;
    let agent_id = agent.map(|id| id.parse()).transpose();
    let outcome = match text("result", result)?.as_deref() {
        None => None,
        Some("!ok") => Some(Outcome::Failed),
        Some(word) => Some(Outcome::Word(word.to_owned())),
    };
    Ok(AuditFilter {
        agent_id: agent_id.map_err(|error| Kind::Invalid.problem(format!("agent: {error}")))?,
        selector: caller.selector.clone(),
        actor: text("actor", actor)?,
        action: text("action", action)?,
        outcome,
        since_ms: time("since", since)?,
        until_ms: time("until", until)?,
    })
}

fn text(name: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    match value {
        Some(text) if text.is_empty() || text.len() > TEXT_MAX => {
            Err(Kind::Invalid.problem(format!("{name} has 1 to {TEXT_MAX} bytes")))
        }
        text => Ok(text),
    }
}

fn time(name: &str, value: Option<String>) -> Result<Option<i64>, Problem> {
    let parse = |text| Time(text).ms().ok_or_else(|| Kind::Invalid.problem(format!("{name} is no RFC 3339 time")));
    value.map(parse).transpose()
}

fn shown(row: audit::AuditRow, names: &HashMap<String, String>) -> AuditRow {
    let entry = row.entry;
    AuditRow {
        seq: row.seq,
        at: Time::from_ms(entry.at_ms),
        actor_name: names.get(&entry.actor).cloned(),
        actor: entry.actor,
        action: entry.action,
        agent_id: entry.agent_id.map(|id| id.to_string()),
        object: entry.object,
        source: entry.source,
        result: entry.result,
        detail: entry.detail,
        hash: row.hash,
    }
}
