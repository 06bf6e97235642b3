//! `/agents/{id}/files/{operation}` and `/files/tree`: everything about files but their carriage. The same operations are
//! the original panel's command type `FILE_ACTION`.

use axum::{
    Json as Reply,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use proto::{
    file::{FilePath, FileRequest, FromFile},
    id::{AgentId, RequestId},
    transfer::{ReadSpec, WriteSpec},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    dto::{
        Invalid,
        content::file_path,
        exec::Piece,
        file::{FileAnswer, FileCall, FileEntry, FileLine, Name, TreeLine, format},
    },
    extract::{Id, Json, NoQuery, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::Action,
    api::dto::content::TreeQuery,
    transfer::{Operating, Stored, TransferError},
};

/// Content that goes with a call, bytes.
const CONTENT_MAX: usize = 1 << 20;
/// A call with its content in base64.
const BODY: usize = 2 << 20;
const LIMIT: u32 = 1000;
const LIMIT_MAX: u32 = 10_000;
/// Lines between the agent and a caller of a tree.
const LINES: usize = 256;

/// Do something with files
///
/// The operations and their members stand in docs/API.md. Needs `files:read`, and `files:write` too where something changes.
#[utoipa::path(post, path = "/agents/{id}/files/{operation}", tag = "files", operation_id = "fileOperation",
    request_body = FileCall,
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"),
           ("operation" = String, Path, description = "`list`, `stat`, `exists`, `type`, `read`, `write`, `mkdir`, `remove`, `rename`, `copy`, `chmod`, `chown`, `symlink`, `readlink`, `touch`, `checksum`, `du`, `search`, `grep`, `zip`, `unzip`, `tar`, `untar`, `gzip`, `gunzip`", pattern = "^[a-z]{2,9}$")),
    responses((status = 200, description = "It is done", body = FileAnswer),
              (status = 502, description = "agent_failed, io_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json"),
              (status = 507, description = "no_space; the old file is as it was", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn operate(
    State(api): State<Api>,
    caller: Caller,
    Path((id, operation)): Path<(String, String)>,
    _: Query<NoQuery>,
    Json(call): Json<FileCall, BODY>,
) -> Result<Reply<FileAnswer>, Problem> {
    let id: AgentId = id.parse().map_err(|_| not_found())?;
    let work = Work::of(&operation, call)?.filter(|work| !matches!(work, Work::Chunk { .. })).ok_or_else(not_found)?;
    Ok(Reply(perform(&api, &caller, &id, RequestId::random(), work).await?))
}

/// List a whole tree
#[utoipa::path(get, path = "/agents/{id}/files/tree", tag = "files", operation_id = "fileTree",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), TreeQuery),
    responses((status = 200, description = "NDJSON: one line per thing, a folder before what is in it, links not followed; `done` or `failed` last",
               body = TreeLine, content_type = "application/x-ndjson"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tree(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<TreeQuery>,
) -> Result<Response, Problem> {
    api.agent(&caller, Action::FilesRead, &id).await?;
    let request = FileRequest::Walk { path: file_path(query.path, query.path_base64)? };
    let operating = api.transfers.operate(caller.did("file.change"), RequestId::random(), &id, request).await?;
    let (lines, mut queue) = mpsc::channel(LINES);
    let pump = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            biased;
            problem = api.not_any_more(&caller, Action::FilesRead) => {
                let _ = lines.send(encoded(&TreeLine::Failed { code: problem.code, message: problem.detail })).await;
            }
            () = pump(operating, &lines) => {}
        }
    }));
    let lines = stream::poll_fn(move |context| {
        let _owned = &pump;
        queue.poll_recv(context).map(|line| line.map(Ok::<_, std::convert::Infallible>))
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn pump(mut operating: Operating, lines: &mpsc::Sender<Bytes>) {
    loop {
        let line = match operating.next().await {
            Ok(Some(FromFile::Entries(entries))) => {
                for entry in entries {
                    if lines.send(encoded(&TreeLine::Entry(entry.into()))).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            Ok(Some(FromFile::Done(done))) => {
                let mut answer = FileAnswer::default();
                answer.done(&done);
                TreeLine::Done(answer)
            }
            Ok(Some(_) | None) => TreeLine::Failed { code: "agent_failed".into(), message: "an unknown answer".into() },
            Err(error) => {
                let problem = Problem::from(error);
                TreeLine::Failed { code: problem.code, message: problem.detail }
            }
        };
        let _ = lines.send(encoded(&line)).await;
        return;
    }
}

fn encoded(line: &TreeLine) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// What a call comes down to.
pub(super) enum Work {
    Request(FileRequest),
    Exists(FilePath),
    Read { path: FilePath, offset: u64, length: u64 },
    Write { path: FilePath, content: Vec<u8>, mode: Option<u32> },
    Chunk { path: FilePath, offset: u64, total: u64, content: Vec<u8> },
}

impl Work {
    /// `None` for a word that is no operation.
    pub(super) fn of(operation: &str, mut call: FileCall) -> Result<Option<Self>, Problem> {
        let call = &mut call;
        let work = match operation {
            "exists" => Self::Exists(call.take_path()?),
            "read" => {
                let length = call.length.take().unwrap_or(CONTENT_MAX as u64);
                if length > CONTENT_MAX as u64 {
                    let text = "at most 1 MiB is read with a call; GET files/content carries any size";
                    return Err(Kind::TooLarge.problem(text));
                }
                Self::Read { path: call.take_path()?, offset: call.offset.take().unwrap_or(0), length }
            }
            "write" => Self::Write { path: call.take_path()?, content: content(call)?, mode: call.take_mode()? },
            "upload_chunk" => {
                let total = call.total.take().ok_or_else(|| Kind::Invalid.problem("total: bytes of the whole file"))?;
                let (offset, content) = (call.offset.take().unwrap_or(0), content(call)?);
                if offset.checked_add(content.len() as u64).is_none_or(|end| end > total) {
                    return Err(Kind::Invalid.problem("the chunk goes beyond total"));
                }
                Self::Chunk { path: call.take_path()?, offset, total, content }
            }
            _ => match request(operation, call)? {
                Some(request) => Self::Request(request),
                None => return Ok(None),
            },
        };
        if *call != FileCall::default() {
            let left = serde_json::to_value(&*call).unwrap_or_default();
            let names: Vec<_> = left.as_object().into_iter().flat_map(|left| left.keys().cloned()).collect();
            return Err(Kind::Invalid.problem(format!("{operation} does not take {}", names.join(", "))));
        }
        Ok(Some(work))
    }

    fn action(&self) -> Action {
        let changes = match self {
            Self::Request(request) => request.changes(),
            Self::Exists(_) | Self::Read { .. } => false,
            Self::Write { .. } | Self::Chunk { .. } => true,
        };
        if changes { Action::FilesWrite } else { Action::FilesRead }
    }
}

fn content(call: &mut FileCall) -> Result<Vec<u8>, Problem> {
    let content = call.take_content()?;
    if content.len() > CONTENT_MAX {
        return Err(Kind::TooLarge.problem("at most 1 MiB is written with a call; PUT files/content carries any size"));
    }
    Ok(content)
}

fn request(operation: &str, call: &mut FileCall) -> Result<Option<FileRequest>, Problem> {
    let flag = |flag: &mut Option<bool>| flag.take().unwrap_or(false);
    let pattern = |call: &mut FileCall| {
        let missing = || Invalid { field: "pattern", problem: "say what to look for".into() };
        call.pattern.take().filter(|pattern| !pattern.is_empty()).ok_or_else(missing)
    };
    Ok(Some(match operation {
        "stat" => FileRequest::Stat { path: call.take_path()?, follow: call.follow.take().unwrap_or(true) },
        "list" => FileRequest::List { path: call.take_path()?, after: call.take_after()?, limit: limit(call)? },
        "type" => FileRequest::Type { path: call.take_path()? },
        "mkdir" => {
            FileRequest::Mkdir { path: call.take_path()?, parents: flag(&mut call.parents), mode: call.take_mode()? }
        }
        "remove" => FileRequest::Remove { path: call.take_path()?, recursive: flag(&mut call.recursive) },
        "rename" => {
            FileRequest::Rename { from: call.take_path()?, to: call.take_to()?, replace: flag(&mut call.replace) }
        }
        "copy" => FileRequest::Copy {
            from: call.take_path()?,
            to: call.take_to()?,
            recursive: flag(&mut call.recursive),
            replace: flag(&mut call.replace),
        },
        "chmod" => {
            let missing = || Kind::Invalid.problem("mode: three or four octal digits, e.g. 644");
            FileRequest::Chmod { path: call.take_path()?, mode: call.take_mode()?.ok_or_else(missing)? }
        }
        "chown" => FileRequest::Chown {
            path: call.take_path()?,
            user: call.user.take(),
            group: call.group.take(),
            follow: call.follow.take().unwrap_or(true),
        },
        "symlink" => FileRequest::Symlink { path: call.take_path()?, target: call.take_target()? },
        "readlink" => FileRequest::ReadLink { path: call.take_path()? },
        "touch" => FileRequest::Touch { path: call.take_path()?, modified_ns: call.modified_ns.take() },
        "checksum" => FileRequest::Checksum {
            path: call.take_path()?,
            algorithm: call.algorithm.take().unwrap_or_default().into(),
        },
        "du" => FileRequest::DiskUse { path: call.take_path()? },
        "search" => FileRequest::Search { path: call.take_path()?, pattern: pattern(call)?, limit: limit(call)? },
        "grep" => FileRequest::Grep {
            path: call.take_path()?,
            pattern: pattern(call)?,
            ignore_case: flag(&mut call.ignore_case),
            limit: limit(call)?,
        },
        "zip" | "tar" | "gzip" => {
            let (from, to) = (call.take_sources()?, call.take_to()?);
            let format = format(operation, is_gzip(&to));
            FileRequest::Pack { from, to, format, replace: flag(&mut call.replace) }
        }
        "unzip" | "untar" | "gunzip" => {
            let (from, to) = (call.take_path()?, call.take_to()?);
            let format = format(operation, is_gzip(&from));
            FileRequest::Unpack { from, to, format, replace: flag(&mut call.replace) }
        }
        _ => return Ok(None),
    }))
}

fn limit(call: &mut FileCall) -> Result<u32, Problem> {
    let limit = call.limit.take().unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(Kind::Invalid.problem("limit is 1 to 10000")) }
}

/// A tar archive is compressed if its name says so.
fn is_gzip(path: &FilePath) -> bool {
    path.0.ends_with(b".gz") || path.0.ends_with(b".tgz")
}

/// Does it and tells what came of it.
pub(super) async fn perform(
    api: &Api,
    caller: &Caller,
    id: &AgentId,
    request_id: RequestId,
    work: Work,
) -> Result<FileAnswer, Problem> {
    api.agent(caller, work.action(), id).await?;
    match work {
        Work::Request(request) => requested(api, caller, id, request_id, request).await,
        Work::Exists(path) => {
            let request = FileRequest::Stat { path, follow: true };
            match requested(api, caller, id, request_id, request).await {
                Ok(answer) => Ok(FileAnswer { exists: Some(true), ..answer }),
                Err(problem) if problem.code == Kind::FileNotFound.code() => {
                    Ok(FileAnswer { exists: Some(false), ..FileAnswer::default() })
                }
                Err(problem) => Err(problem),
            }
        }
        Work::Read { path, offset, length } => {
            let spec = ReadSpec { path, offset, length: Some(length), whole: false };
            let mut download = api.transfers.read(caller.did("file.read"), id, spec).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = download.next().await? {
                bytes.extend_from_slice(&piece);
            }
            let (read, size) = (bytes.len() as u64, download.begin.size);
            let mut answer = FileAnswer { size: Some(size), offset: Some(offset + read), ..FileAnswer::default() };
            (answer.files, answer.bytes, answer.more) = (1, read, offset + read < size);
            answer.content = Some(Piece::from_bytes(bytes));
            Ok(answer)
        }
        Work::Write { path, content, mode } => {
            let blake3 = Some(*blake3::hash(&content).as_bytes());
            let size = content.len() as u64;
            let spec = WriteSpec { path, offset: 0, size, blake3, key: None, mode, modified_ns: None, ask: false };
            write(api, caller, id, spec, content).await
        }
        Work::Chunk { path, offset, total, content } => {
            // Whoever delivers chunks does not know the hash of the whole: the caller and the size stand for it.
            let key = blake3::Hasher::new().update(caller.actor().to_string().as_bytes()).finalize();
            let key = Some(*key.as_bytes());
            let spec =
                WriteSpec { path, offset, size: total, blake3: None, key, mode: None, modified_ns: None, ask: false };
            write(api, caller, id, spec, content).await
        }
    }
}

async fn write(
    api: &Api,
    caller: &Caller,
    id: &AgentId,
    spec: WriteSpec,
    content: Vec<u8>,
) -> Result<FileAnswer, Problem> {
    let (size, bytes) = (spec.size, content.len() as u64);
    let upload = api.transfers.write(caller.did("file.write"), id, spec).await?;
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from(content))]);
    let (complete, offset) = match upload.carry(body).await? {
        Stored::Done { .. } => (true, size),
        Stored::Partial { offset } => (false, offset),
    };
    let answer =
        FileAnswer { complete: Some(complete), offset: Some(offset), size: Some(size), ..FileAnswer::default() };
    Ok(FileAnswer { files: 1, bytes, ..answer })
}

async fn requested(
    api: &Api,
    caller: &Caller,
    id: &AgentId,
    request_id: RequestId,
    request: FileRequest,
) -> Result<FileAnswer, Problem> {
    let mut answer = FileAnswer::default();
    match &request {
        FileRequest::Stat { .. } | FileRequest::List { .. } | FileRequest::Search { .. } => {
            answer.entries = Some(Vec::new());
        }
        FileRequest::Grep { .. } => answer.lines = Some(Vec::new()),
        FileRequest::Checksum { algorithm, .. } => answer.algorithm = Some((*algorithm).into()),
        _ => {}
    }
    let mut operating = api.transfers.operate(caller.did("file.change"), request_id, id, request).await?;
    while let Some(said) = operating.next().await? {
        match said {
            FromFile::Entries(entries) => {
                answer.entries.get_or_insert_default().extend(entries.into_iter().map(FileEntry::from));
            }
            FromFile::Lines(lines) => {
                answer.lines.get_or_insert_default().extend(lines.into_iter().map(FileLine::from));
            }
            FromFile::Type { kind, mime } => (answer.kind, answer.mime) = (Some(kind.into()), Some(mime)),
            FromFile::Hash(hash) => answer.hash = Some(hex::encode(hash)),
            FromFile::Target(target) => answer.target = Some(Name::of(target.0)),
            FromFile::Done(done) => answer.done(&done),
            FromFile::Failed { .. } => {}
        }
        let told = answer.entries.as_ref().map_or(0, Vec::len) + answer.lines.as_ref().map_or(0, Vec::len);
        if told > LIMIT_MAX as usize {
            return Err(TransferError::Lost(proto::code::Code::UNEXPECTED).into());
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(operation: &str, call: &str) -> Result<Option<Work>, String> {
        Work::of(operation, serde_json::from_str(call).unwrap()).map_err(|problem| problem.detail)
    }

    #[test]
    fn each_operation_takes_its_own_members() {
        for (operation, call) in [
            ("list", r#"{"path":"/a","after":"b","limit":5}"#),
            ("stat", r#"{"path_base64":"L/8=","follow":false}"#),
            ("write", r#"{"path":"/a","content":"x","mode":"644"}"#),
            ("tar", r#"{"paths":["/a","/b"],"to":"/c.tgz"}"#),
            ("chown", r#"{"path":"/a","user":"0"}"#),
            ("upload_chunk", r#"{"path":"/a","total":3,"content_base64":"AAAA"}"#),
        ] {
            assert!(matches!(work(operation, call), Ok(Some(_))), "{operation} {call}");
        }
        assert!(matches!(work("nothing", r#"{"path":"/a"}"#), Ok(None)));
        for (operation, call, wanted) in [
            ("stat", "{}", "path"),
            ("stat", r#"{"path":"/a","recursive":true}"#, "does not take recursive"),
            ("list", r#"{"path":"/a","limit":0}"#, "limit"),
            ("chmod", r#"{"path":"/a","mode":"9"}"#, "mode"),
            ("chmod", r#"{"path":"/a"}"#, "mode"),
            ("rename", r#"{"path":"/a"}"#, "to"),
            ("grep", r#"{"path":"/a"}"#, "pattern"),
            ("symlink", r#"{"path":"/a","target":""}"#, "target"),
            ("read", r#"{"path":"/a","length":2000000}"#, "1 MiB"),
            ("upload_chunk", r#"{"path":"/a","total":2,"content":"xyz"}"#, "beyond total"),
        ] {
            let detail = work(operation, call).err().unwrap_or_default();
            assert!(detail.contains(wanted), "{operation} {call}: {detail}");
        }
    }
}
