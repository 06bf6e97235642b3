//! `/agents/{id}/files/content` and `/files/upload`: whole files as bodies, from an offset where that is wanted. Bytes pass
//! through; nothing is spooled.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    Json as Reply,
    body::{Body, BodyDataStream, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proto::{
    id::AgentId,
    transfer::{ReadBegin, ReadSpec, WriteSpec},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{
    dto::content::{DownloadQuery, Held, UploadQuery, Uploaded, file_path},
    extract::{Id, Query},
    gate::Caller,
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::Action,
    transfer::{Download, Stored},
};

/// Bytes of the whole file, whatever part of it the body is.
pub(crate) const SIZE: HeaderName = HeaderName::from_static("landline-size");
/// Nanoseconds since 1970.
pub(crate) const MODIFIED: HeaderName = HeaderName::from_static("landline-modified-ns");
/// Permission bits, octal.
pub(crate) const MODE: HeaderName = HeaderName::from_static("landline-mode");
/// In the trailer: BLAKE3, hexadecimal.
pub(crate) const BLAKE3: HeaderName = HeaderName::from_static("landline-blake3");
/// Pieces between the agent's stream and the caller's connection.
const PIECES: usize = 2;
/// A refused body is read on for this long at most, so that its sender gets to read why.
const LINGER: Duration = Duration::from_secs(2);

/// Read a file
///
/// With `TE: trailers` the body is chunked and `Landline-Blake3` follows it: of the body, or with `whole` of the file from its
/// beginning to the body's end. A body that ends early (the connection breaks)
/// is not the file: the line was lost, or the file changed meanwhile; go on with `Range` and `If-Match`.
#[utoipa::path(get, path = "/agents/{id}/files/content", tag = "files", operation_id = "readFile",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), DownloadQuery),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream"),
              (status = 206, description = "The part that Range asked for", body = Vec<u8>, content_type = "application/octet-stream"),
              (status = 412, description = "precondition_failed: If-Match names another state of the file", body = Problem, content_type = "application/problem+json"),
              (status = 416, description = "bad_range", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed, io_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn download(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    api.agent(&caller, Action::FilesRead, &id).await?;
    let path = file_path(query.path, query.path_base64)?;
    let condition = headers.get(header::IF_MATCH).filter(|condition| *condition != "*");
    let mut part = None;
    if method == Method::HEAD || condition.is_some() || headers.contains_key(header::RANGE) {
        let begin = api.transfers.look(&id, path.clone()).await?;
        fulfils(condition, &begin)?;
        if method == Method::HEAD {
            let mut response = described(Response::new(Body::empty()), &begin);
            response.headers_mut().insert(header::CONTENT_LENGTH, begin.size.into());
            return Ok(response);
        }
        part = match range(&headers, &begin) {
            Ok(part) => part,
            Err(problem) => return Ok(unsatisfiable(problem, begin.size)),
        };
    }
    let (offset, length) = part.map_or((0, None), |(from, length)| (from, Some(length)));
    let spec = ReadSpec { path, offset, length, whole: query.whole };
    let download = api.transfers.read(caller.did("file.read"), &id, spec).await?;
    let begin = download.begin.clone();
    // It may have become another since it was looked at.
    fulfils(condition, &begin)?;
    let trailers = headers.get_all(header::TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let mut response = described(Response::new(body(api, caller, download, trailers)), &begin);
    let headers = response.headers_mut();
    if trailers {
        headers.insert(header::TRAILER, BLAKE3.into());
    } else {
        headers.insert(header::CONTENT_LENGTH, begin.length.into());
    }
    if part.is_some() {
        let last = (offset + begin.length).saturating_sub(1);
        headers.insert(header::CONTENT_RANGE, value(&format!("bytes {offset}-{last}/{}", begin.size)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Write a file
///
/// The body is the file from `offset` on. With `blake3` it is verified before it takes its place, and a body that was cut off
/// can be gone on with: ask `/files/upload` for the offset. Until then, and whatever goes wrong, the old file stays as it is.
#[utoipa::path(put, path = "/agents/{id}/files/content", tag = "files", operation_id = "writeFile",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The file was replaced", body = Uploaded),
              (status = 201, description = "The file was made", body = Uploaded),
              (status = 202, description = "The body was not all of it; go on at `offset`", body = Uploaded),
              (status = 409, description = "bad_offset, with `offset`; not_a_file, not_a_folder, agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 411, description = "length_required", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed, io_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json"),
              (status = 507, description = "no_space; the old file is as it was", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn upload(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let length = content_length(request.headers());
    let mut body = request.into_body().into_data_stream();
    let stored = async {
        api.agent(&caller, Action::FilesWrite, &id).await?;
        let spec = write_spec(query, length)?;
        let (offset, size) = (spec.offset, spec.size);
        let upload = api.transfers.write(caller.did("file.write"), &id, spec).await?;
        let stored = tokio::select! {
            biased;
            problem = api.not_any_more(&caller, Action::FilesWrite) => return Err(problem),
            stored = upload.carry(&mut body) => stored?,
        };
        Ok(answer(stored, offset, size))
    };
    match stored.await {
        Ok(response) => Ok(response),
        Err(problem) => {
            linger(body).await;
            Err(problem)
        }
    }
}

/// Ask how much of a file the agent holds from bodies that were cut off
#[utoipa::path(get, path = "/agents/{id}/files/upload", tag = "files", operation_id = "askUpload",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), UploadQuery),
    responses((status = 200, description = "Where the next body begins; 0 if there is nothing", body = Held),
              (status = 502, description = "agent_failed, io_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn held(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<UploadQuery>,
) -> Result<Reply<Held>, Problem> {
    api.agent(&caller, Action::FilesWrite, &id).await?;
    if query.blake3.is_none() || query.size.is_none() {
        return Err(Kind::Invalid.problem("a file is found again by its size and its blake3: give both"));
    }
    let spec = write_spec(query, None)?;
    Ok(Reply(Held { offset: api.transfers.held(&id, spec).await? }))
}

fn write_spec(query: UploadQuery, length: Option<u64>) -> Result<WriteSpec, Problem> {
    let invalid = |text: &str| Kind::Invalid.problem(text);
    let offset = query.offset.unwrap_or(0);
    let end = length.and_then(|length| offset.checked_add(length));
    let size = query.size.or(end).ok_or_else(|| {
        Kind::LengthRequired.problem("give `size`, the bytes of the whole file, or send a Content-Length")
    })?;
    if offset > size || end.is_some_and(|end| end > size) {
        return Err(invalid("the body would go beyond `size`"));
    }
    let blake3 = match query.blake3 {
        None => None,
        Some(text) => {
            let mut hash = [0; 32];
            hex::decode_to_slice(text, &mut hash).map_err(|_| invalid("blake3 is 64 hexadecimal digits"))?;
            Some(hash)
        }
    };
    let mode = match query.mode {
        None => None,
        Some(text) => {
            let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777 && text.len() <= 4);
            Some(mode.ok_or_else(|| invalid("mode is three or four octal digits, e.g. 644"))?)
        }
    };
    let path = file_path(query.path, query.path_base64)?;
    Ok(WriteSpec { path, offset, size, blake3, key: None, mode, modified_ns: query.modified_ns, ask: false })
}

fn answer(stored: Stored, offset: u64, size: u64) -> Response {
    match stored {
        Stored::Done { created, blake3 } => {
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            let blake3 = Some(hex::encode(blake3));
            (status, Reply(Uploaded { complete: true, created, offset: size, blake3 })).into_response()
        }
        Stored::Partial { offset: kept } => {
            let uploaded = Uploaded { complete: false, created: false, offset: kept, blake3: None };
            tracing::debug!(offset, kept, "a file was delivered in part");
            (StatusCode::ACCEPTED, Reply(uploaded)).into_response()
        }
    }
}

/// A connection that is closed with bytes unread takes the answer with it.
pub(super) async fn linger(mut body: BodyDataStream) {
    let rest = async { while let Some(Ok(_)) = body.next().await {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// What passes between the agent's stream and the caller's connection. Without an `End` the body was cut off.
enum Passed {
    Piece(Bytes),
    End(Option<[u8; 32]>),
}

/// The download as a body. It is pulled by a task, so that a caller who does not read is noticed and lent a window.
fn body(api: Api, caller: Caller, download: Download, trailers: bool) -> Body {
    let (passed, pieces) = mpsc::channel(PIECES);
    let pump = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = api.not_any_more(&caller, Action::FilesRead) => {}
            () = pump(download, passed) => {}
        }
    }));
    let frames = stream::unfold(Some((pieces, pump)), move |state| async move {
        let (mut pieces, pump) = state?;
        match pieces.recv().await {
            Some(Passed::Piece(piece)) => Some((Ok(Frame::data(piece)), Some((pieces, pump)))),
            Some(Passed::End(hash)) => {
                let hash = hash.filter(|_| trailers)?;
                let trailer = HeaderMap::from_iter([(BLAKE3, value(&hex::encode(hash)))]);
                Some((Ok(Frame::trailers(trailer)), None))
            }
            None => Some((Err(std::io::Error::other("the file could not be read to its end")), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

async fn pump(mut download: Download, passed: mpsc::Sender<Passed>) {
    let credit = download.credit();
    loop {
        let next = match download.next().await {
            Ok(Some(piece)) => Passed::Piece(piece),
            Ok(None) => Passed::End(download.blake3()),
            Err(error) => {
                tracing::info!(%error, "a file did not arrive whole");
                return;
            }
        };
        let last = matches!(next, Passed::End(_));
        // The line may need back what a caller that does not read holds up; then the body is cut off.
        if !matches!(credit.lend_while(passed.send(next)).await, Some(Ok(()))) || last {
            return;
        }
    }
}

/// The headers that tell of a file.
fn described(mut response: Response, begin: &ReadBegin) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // A page among an agent's files is a file here, whatever a browser makes of its bytes (SECURITY R53).
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, etag(begin));
    if let Ok(seconds) = u64::try_from(begin.modified_ns / 1_000_000_000)
        && let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        // Beyond the year 9999 the format has no digits.
        && seconds < 253_402_300_800
    {
        headers.insert(header::LAST_MODIFIED, value(&httpdate::fmt_http_date(time)));
    }
    headers.insert(SIZE, begin.size.into());
    headers.insert(MODIFIED, begin.modified_ns.into());
    headers.insert(MODE, value(&format!("{:03o}", begin.mode)));
    response
}

fn etag(begin: &ReadBegin) -> HeaderValue {
    value(&format!("\"{}\"", hex::encode(begin.version.0)))
}

/// For text that is made here: digits and letters only.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn fulfils(condition: Option<&HeaderValue>, begin: &ReadBegin) -> Result<(), Problem> {
    match condition {
        Some(condition) if *condition != etag(begin) => {
            Err(Kind::PreconditionFailed.problem("the file is another one by now: begin again from its start"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The one part that is asked for, as offset and length. Several at once, units we do not know and what cannot be read are
/// answered with the whole, as RFC 9110 wants.
fn range(headers: &HeaderMap, begin: &ReadBegin) -> Result<Option<(u64, u64)>, Problem> {
    let Some(text) = headers.get(header::RANGE).and_then(|range| range.to_str().ok()) else { return Ok(None) };
    if headers.get(header::IF_RANGE).is_some_and(|state| *state != etag(begin)) {
        return Ok(None);
    }
    let Ok(ranges) = http_range_header::parse_range_header(text) else { return Ok(None) };
    let none = || Kind::BadRange.problem(format!("the file has {} bytes", begin.size));
    let ranges = ranges.validate(begin.size).map_err(|_| none())?;
    match ranges.as_slice() {
        [part] => Ok(Some((*part.start(), part.end() - part.start() + 1))),
        _ => Ok(None),
    }
}

fn unsatisfiable(problem: Problem, size: u64) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
    response
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proto::transfer::Version;

    use super::*;

    fn begin(size: u64) -> ReadBegin {
        ReadBegin { size, modified_ns: 1_700_000_000_123_456_789, mode: 0o640, version: Version([7; 16]), length: size }
    }

    fn part(range_of: &str, size: u64) -> Result<Option<(u64, u64)>, String> {
        let headers = HeaderMap::from_iter([(header::RANGE, value(range_of))]);
        range(&headers, &begin(size)).map_err(|problem| problem.code)
    }

    #[test]
    fn one_range_is_a_part_and_the_rest_is_the_whole() {
        assert_eq!(part("bytes=0-0", 10), Ok(Some((0, 1))));
        assert_eq!(part("bytes=4-", 10), Ok(Some((4, 6))));
        assert_eq!(part("bytes=-3", 10), Ok(Some((7, 3))));
        assert_eq!(part("bytes=4-99", 10), Ok(Some((4, 6))));
        assert_eq!(part("bytes=10-", 10), Err("bad_range".into()));
        assert_eq!(part("bytes=0-", 0), Err("bad_range".into()));
        for whole in ["lines=1-2", "bytes=x", "bytes=0-1,4-5"] {
            assert_eq!(part(whole, 10), Ok(None), "{whole}");
        }
    }

    #[test]
    fn a_range_of_another_state_is_the_whole() {
        let with = |state: HeaderValue| {
            let headers = HeaderMap::from_iter([(header::RANGE, value("bytes=4-")), (header::IF_RANGE, state)]);
            range(&headers, &begin(10)).unwrap()
        };
        assert_eq!(with(etag(&begin(10))), Some((4, 6)));
        assert_eq!(with(value("\"other\"")), None);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let spec = |query: &str, length: Option<u64>| {
            let query = serde_json::from_str(query).unwrap();
            write_spec(query, length).map(|spec| (spec.offset, spec.size)).map_err(|problem| problem.code)
        };
        assert_eq!(spec(r#"{"path":"/f"}"#, Some(5)), Ok((0, 5)));
        assert_eq!(spec(r#"{"path":"/f","offset":2}"#, Some(5)), Ok((2, 7)));
        assert_eq!(spec(r#"{"path":"/f","size":9,"offset":2,"mode":"0644"}"#, None), Ok((2, 9)));
        assert_eq!(spec(r#"{"path":"/f"}"#, None), Err("length_required".into()));
        for bad in [
            r#"{"path":"/f","size":4}"#,
            r#"{"path":"/f","offset":18446744073709551615}"#,
            r#"{"path":"/f","blake3":"00"}"#,
            r#"{"path":"/f","mode":"9"}"#,
            r#"{"path":"/f","mode":"077777"}"#,
            r#"{"path":"f"}"#,
        ] {
            let code = spec(bad, Some(5)).unwrap_err();
            assert!(code == "invalid" || code == "length_required", "{bad}: {code}");
        }
    }
}
