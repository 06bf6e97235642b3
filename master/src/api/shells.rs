//! `/agents/{id}/shells` and `/shells`: terminals on an agent. On the WebSocket, binary messages are output behind its
//! offset (8 bytes, big-endian) and input as it is; text messages are JSON.

use axum::{
    Json as Reply,
    body::{Body, Bytes},
    extract::{
        State,
        ws::{Message, WebSocket},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{self, SplitStream},
};
use proto::{
    id::{AgentId, ShellId},
    shell::{ShellSpec, Size},
};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    agents::page,
    dto::{
        Page, Time,
        shell::{AttachMode, AttachQuery, FromViewer, LineState, NewShell, SessionsQuery, Shell, ToViewer},
    },
    exec::program,
    extract::{Id, Json, NoQuery, Query, not_found},
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
    websocket::{PING_EVERY, Upgrade, close},
};
use crate::{
    access::Action,
    session::shell::{Session, Told, Viewer},
    store::sessions::{SessionFilter, SessionKind, SessionRow},
};

const TERM: &str = "xterm-256color";
/// A viewer that answered no ping for this long is gone, whatever TCP says.
const SILENT_AFTER: std::time::Duration = std::time::Duration::from_secs(70);
/// Input pieces between the socket and the program's queue.
const PIECES: usize = 4;

/// Open a shell
#[utoipa::path(post, path = "/agents/{id}/shells", tag = "shells", operation_id = "openShell", request_body = NewShell,
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 201, description = "It runs; attach to it", body = Shell),
              (status = 409, description = "agent_offline", body = Problem, content_type = "application/problem+json"),
              (status = 502, description = "agent_failed", body = Problem, content_type = "application/problem+json"),
              (status = 504, description = "agent_timeout", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn open(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
    Json(new): Json<NewShell>,
) -> Result<(StatusCode, Reply<Shell>), Problem> {
    api.agent(&caller, Action::ShellOpen, &id).await?;
    let session = api.shells.open(caller.did("shell.start").agent(&id), &id, spec(new)?).await?;
    let opened = named(&api, vec![live(&session)]).await?.remove(0);
    Ok((StatusCode::CREATED, Reply(opened)))
}

/// List the shells of an agent
#[utoipa::path(get, path = "/agents/{id}/shells", tag = "shells", operation_id = "listAgentShells",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"), SessionsQuery),
    responses((status = 200, description = "One page, newest first", body = Page<Shell>)))]
pub(super) async fn list_of_agent(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    Query(query): Query<SessionsQuery>,
) -> Result<Reply<Page<Shell>>, Problem> {
    api.agent(&caller, Action::ShellsList, &id).await?;
    listed(&api, &caller, Some(id), query).await
}

/// List shells
#[utoipa::path(get, path = "/shells", tag = "shells", operation_id = "listShells", params(SessionsQuery),
    responses((status = 200, description = "One page, newest first", body = Page<Shell>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> Result<Reply<Page<Shell>>, Problem> {
    listed(&api, &caller, None, query).await
}

async fn listed(
    api: &Api,
    caller: &Caller,
    agent_id: Option<AgentId>,
    query: SessionsQuery,
) -> Result<Reply<Page<Shell>>, Problem> {
    let page = page(query.limit, query.cursor)?;
    let filter = SessionFilter { kind: Some(SessionKind::Shell), agent_id, running: query.running };
    let paged = api.store.sessions().list(&filter, &page).await?;
    let mut items = Vec::with_capacity(paged.items.len());
    for row in paged.items {
        // What the token does not cover is not there; a page may hold fewer than its limit.
        if api.allow(caller, Action::ShellsList, &row.agent_id).await.is_ok() {
            items.push(shown(api, row));
        }
    }
    Ok(Reply(Page { items: named(api, items).await?, next_cursor: paged.next_cursor }))
}

/// Show a shell
#[utoipa::path(get, path = "/shells/{id}", tag = "shells", operation_id = "showShell",
    params(("id" = uuid::Uuid, Path, description = "The session's id")),
    responses((status = 200, description = "The session", body = Shell)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ShellId>,
    _: Query<NoQuery>,
) -> Result<Reply<Shell>, Problem> {
    let row = row(&api, &caller, Action::ShellRead, id).await?;
    Ok(Reply(named(&api, vec![shown(&api, row)]).await?.remove(0)))
}

/// End a shell: it is hung up, and killed where that does not help
#[utoipa::path(delete, path = "/shells/{id}", tag = "shells", operation_id = "closeShell",
    params(("id" = uuid::Uuid, Path, description = "The session's id")),
    responses((status = 204, description = "The agent is being told; the session's state says when it is over")))]
pub(super) async fn end(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ShellId>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    row(&api, &caller, Action::ShellClose, id).await?;
    if let Some(session) = api.shells.find(id) {
        session.close(caller.actor().to_string());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The recording of a shell, as asciicast v2; of a running one what there is so far
#[utoipa::path(get, path = "/shells/{id}/recording", tag = "shells", operation_id = "shellRecording",
    params(("id" = uuid::Uuid, Path, description = "The session's id")),
    responses((status = 200, description = "One JSON text a line", body = String, content_type = "application/x-asciicast")))]
pub(super) async fn recording(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ShellId>,
    _: Query<NoQuery>,
) -> Result<Response, Problem> {
    let row = row(&api, &caller, Action::RecordingRead, id).await?;
    let path = api.shells.recordings().path(id, row.created_at_ms);
    let file = tokio::fs::File::open(&path)
        .await
        .map_err(|_| Kind::NotFound.problem("there is no recording of this session, or retention has removed it"))?;
    let length = file.metadata().await.map_err(|_| not_found())?.len();
    api.store.audit(&caller.did("recording.read").agent(&row.agent_id).object(id)).await?;
    // Up to where it was when asked: one that grows has an end all the same.
    let pieces = stream::unfold(file.take(length), async |mut file| {
        let mut piece = bytes::BytesMut::with_capacity(64 * 1024);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-asciicast"));
    Ok(response)
}

/// Look at a shell, or type: a WebSocket
#[utoipa::path(get, path = "/shells/{id}/attach", tag = "shells", operation_id = "attachShell",
    params(("id" = uuid::Uuid, Path, description = "The session's id"), AttachQuery),
    responses((status = 101, description = "Output, input and state; see docs/API.md"),
              (status = 409, description = "output_gone: the output has not come this far; session_over", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn attach(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<ShellId>,
    Query(query): Query<AttachQuery>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let row = row(&api, &caller, Action::ShellAttach, id).await?;
    let writes = query.mode.unwrap_or_default() == AttachMode::Write;
    if writes && row.owner != caller.actor().to_string() {
        return Err(Kind::NotOwner.problem("only the token that opened it may type; watch it with mode=watch"));
    }
    let session = api
        .shells
        .find(id)
        .ok_or_else(|| Kind::SessionOver.problem("the session is over; its recording is what is left of it"))?;
    let entry = caller.did("shell.attach").agent(&row.agent_id).object(id);
    let entry = entry.detail(serde_json::json!({ "writes": writes, "offset": query.offset }));
    api.store.audit(&entry).await?;
    let viewer = session.join(query.offset, writes).ok_or_else(|| {
        Kind::OutputGone.problem("the output has not come this far; leave offset out to begin with the oldest held")
    })?;
    let state = api.clone();
    upgrade.accept(&api, async move |websocket| serve(state, caller, session, viewer, writes, websocket).await)
}

async fn serve(
    api: Api,
    caller: Caller,
    session: std::sync::Arc<Session>,
    mut viewer: Viewer,
    writes: bool,
    websocket: WebSocket,
) {
    let (mut sink, source) = websocket.split();
    let size = session.size();
    let attached = ToViewer::Attached {
        offset: viewer.joined.begin,
        lost: viewer.joined.lost,
        end: viewer.joined.end,
        writer: writes,
        cols: size.cols,
        rows: size.rows,
    };
    if sink.send(text(&attached)).await.is_err() {
        return;
    }
    let (heard, mut said) = mpsc::channel(PIECES);
    let listening = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(listen(source, heard)));
    let mut again = interval_at(Instant::now() + RECHECK, RECHECK);
    let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    for timer in [&mut again, &mut ping] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut heard_at = Instant::now();
    let mut typing: Option<Bytes> = None;
    let reason = loop {
        let typed = async {
            match &typing {
                Some(bytes) => session.type_in(bytes).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = again.tick() => {
                if api.still(&caller, Action::ShellAttach).await.is_err() {
                    break "unauthorized";
                }
            }
            _ = ping.tick() => {
                if heard_at.elapsed() > SILENT_AFTER || sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    break "silent";
                }
            }
            () = typed => typing = None,
            message = said.recv(), if typing.is_none() => {
                heard_at = Instant::now();
                match message {
                    None => break "abandoned",
                    Some(Message::Binary(bytes)) if writes => typing = Some(bytes),
                    Some(Message::Text(message)) => match command(&message, writes, &caller, &session, &viewer) {
                        Ok(()) => {}
                        Err(reason) => break reason,
                    },
                    Some(Message::Binary(_)) => break "read_only",
                    Some(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => {}
                }
            }
            told = viewer.next() => {
                let (message, last) = message(told);
                if let Some(message) = message && sink.send(message).await.is_err() {
                    break "abandoned";
                }
                if let Some(reason) = last {
                    break reason;
                }
            }
        }
    };
    drop(listening);
    let _ = tokio::time::timeout(RECHECK, sink.send(close(reason))).await;
}

/// Messages of the one who looks, apart from what is sent to it: a full socket must not hold an interrupt up.
async fn listen(mut source: SplitStream<WebSocket>, heard: mpsc::Sender<Message>) {
    while let Some(Ok(message)) = source.next().await {
        if heard.send(message).await.is_err() {
            return;
        }
    }
}

fn command(
    message: &str,
    writes: bool,
    caller: &Caller,
    session: &Session,
    viewer: &Viewer,
) -> Result<(), &'static str> {
    match serde_json::from_str(message).map_err(|_| "malformed")? {
        FromViewer::Ack { offset } if viewer.acked(offset) => Ok(()),
        FromViewer::Ack { .. } => Err("unexpected"),
        FromViewer::Resize { .. } | FromViewer::Close if !writes => Err("read_only"),
        FromViewer::Resize { cols, rows } => {
            let size = Size { cols, rows };
            size.check().map_err(|_| "invalid")?;
            viewer.resize(size);
            Ok(())
        }
        FromViewer::Close => {
            session.close(caller.actor().to_string());
            Ok(())
        }
    }
}

/// What is sent, and why it is the last.
fn message(told: Told) -> (Option<Message>, Option<&'static str>) {
    match told {
        Told::Output { offset, bytes } => {
            let mut framed = Vec::with_capacity(8 + bytes.len());
            framed.extend_from_slice(&offset.to_be_bytes());
            framed.extend_from_slice(&bytes);
            (Some(Message::Binary(framed.into())), None)
        }
        Told::Lost { bytes, offset } => (Some(text(&ToViewer::Lost { bytes, offset })), None),
        Told::Line { up } => {
            let state = if up { LineState::Back } else { LineState::Lost };
            (Some(text(&ToViewer::Line { state })), None)
        }
        Told::Resized(size) => (Some(text(&ToViewer::Resized { cols: size.cols, rows: size.rows })), None),
        Told::TakenOver => (None, Some("taken_over")),
        Told::Ended(ended) => {
            let exit = ToViewer::Exit { reason: ended.reason, code: ended.code, signal: ended.signal };
            (Some(text(&exit)), Some("done"))
        }
    }
}

fn text(message: &ToViewer) -> Message {
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

/// The session's row, if the caller may do this to its agent (SECURITY R14).
async fn row(api: &Api, caller: &Caller, action: Action, id: ShellId) -> Result<SessionRow, Problem> {
    let row = api.store.sessions().find(id.0).await?.filter(|row| row.kind == SessionKind::Shell);
    let row = row.ok_or_else(not_found)?;
    api.allow(caller, action, &row.agent_id).await?;
    Ok(row)
}

/// The same with their owners' names, where they still have one.
async fn named(api: &Api, mut shells: Vec<Shell>) -> Result<Vec<Shell>, Problem> {
    let names = api.store.actor_names(shells.iter().map(|shell| shell.owner.as_str())).await?;
    for shell in &mut shells {
        shell.owner_name = names.get(&shell.owner).cloned();
    }
    Ok(shells)
}

fn shown(api: &Api, row: SessionRow) -> Shell {
    let live = api.shells.find(ShellId(row.id)).filter(|session| session.ended().is_none());
    let size = match &live {
        Some(session) => session.size(),
        None => serde_json::from_value(row.detail["size"].clone()).unwrap_or(Size { cols: 80, rows: 24 }),
    };
    let number = |key: &str| row.detail[key].as_i64().and_then(|number| i32::try_from(number).ok());
    Shell {
        id: row.id.to_string(),
        agent_id: row.agent_id.to_string(),
        owner: row.owner,
        owner_name: None,
        created_at: Time::from_ms(row.created_at_ms),
        ended_at: row.ended_at_ms.map(Time::from_ms),
        end_reason: row.end_reason,
        exit_code: number("code"),
        signal: number("signal"),
        cols: size.cols,
        rows: size.rows,
        viewers: live.map_or(0, |session| u32::try_from(session.viewers()).unwrap_or(u32::MAX)),
        recorded: row.detail["recorded"].as_bool().unwrap_or(true),
    }
}

fn live(session: &Session) -> Shell {
    let size = session.size();
    Shell {
        id: session.id.to_string(),
        agent_id: session.agent.to_string(),
        owner: session.owner.clone(),
        owner_name: None,
        created_at: Time::from_ms(session.created_ms),
        ended_at: None,
        end_reason: None,
        exit_code: None,
        signal: None,
        cols: size.cols,
        rows: size.rows,
        viewers: 0,
        recorded: session.is_recorded(),
    }
}

fn spec(new: NewShell) -> Result<ShellSpec, Problem> {
    let program = match (&new.argv, &new.shell) {
        (None, None) => None,
        _ => Some(program(new.argv, new.shell)?),
    };
    let spec = ShellSpec {
        program,
        size: Size { cols: new.cols, rows: new.rows },
        term: new.term.unwrap_or_else(|| TERM.to_owned()),
        cwd: new.cwd,
        env: new.env.into_iter().collect(),
        idle_ms: u64::from(new.idle_s.unwrap_or(0)) * 1000,
    };
    spec.check().map_err(|invalid| Kind::Invalid.problem(invalid.0))?;
    Ok(spec)
}
