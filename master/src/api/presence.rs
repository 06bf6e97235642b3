//! `/presence`: a dashboard says over a WebSocket which windows of tunnels it has open. The master keeps those tunnels'
//! heartbeats, closes what was let go of, and says which are over.

use std::{collections::HashSet, time::Duration};

use axum::{
    extract::{
        State,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use proto::id::TunnelId;
use serde::{Deserialize, Serialize};

use super::{
    extract::{NoQuery, Query},
    gate::Caller,
    problem::Problem,
    state::{Api, RECHECK},
    tunnels::visible,
    websocket::{Upgrade, close},
};
use crate::{access::Action, tunnel::presence::Holder};

/// A dashboard says at least every 5 s what it has open; after this long it is gone.
const SILENT: Duration = Duration::from_secs(20);
/// Windows of one dashboard.
const OPEN_MAX: usize = 256;

/// What a dashboard says: every window it has open.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    open: Vec<String>,
}

/// What it is told: those of them that are over, or not the caller's to see.
#[derive(Debug, Serialize)]
struct Answer {
    over: Vec<String>,
}

/// Say which tunnels' windows are open: a WebSocket
#[utoipa::path(get, path = "/presence", tag = "tunnels", operation_id = "presence",
    responses((status = 101, description = "Send `{\"open\": [ids]}` at each change and at least every 5 s; the answer names those that are `over`")))]
pub(super) async fn presence(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let state = api.clone();
    upgrade.accept(&api, async move |websocket| serve(state, caller, websocket).await)
}

async fn serve(api: Api, caller: Caller, mut websocket: WebSocket) {
    let mut holder = api.presence.holder(caller.owner());
    let reason = tokio::select! {
        biased;
        _ = api.not_any_more(&caller, Action::TunnelBeat) => "unauthorized",
        reason = listen(&api, &caller, &mut holder, &mut websocket) => reason,
    };
    let _ = tokio::time::timeout(RECHECK, websocket.send(close(reason))).await;
}

/// Until the dashboard leaves; why it is over.
async fn listen(api: &Api, caller: &Caller, holder: &mut Holder, websocket: &mut WebSocket) -> &'static str {
    loop {
        match tokio::time::timeout(SILENT, websocket.recv()).await {
            Err(_) => return "silent",
            Ok(Some(Ok(Message::Text(text)))) => {
                let told = serde_json::from_str::<Told>(&text).ok().filter(|told| told.open.len() <= OPEN_MAX);
                let Some(told) = told else { return "invalid" };
                let answer = take(api, caller, holder, told).await;
                let text = serde_json::to_string(&answer).unwrap_or_default();
                if websocket.send(Message::text(text)).await.is_err() {
                    return "gone";
                }
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Binary(_)))) => return "invalid",
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return "gone",
        }
    }
}

async fn take(api: &Api, caller: &Caller, holder: &mut Holder, told: Told) -> Answer {
    let (mut open, mut over) = (HashSet::new(), Vec::new());
    for text in told.open {
        match text.parse::<TunnelId>() {
            Ok(id) if is_open(api, caller, id).await => _ = open.insert(id),
            Ok(_) | Err(_) => over.push(text),
        }
    }
    holder.set(open);
    Answer { over }
}

/// A database that is away for a moment ends no window.
async fn is_open(api: &Api, caller: &Caller, id: TunnelId) -> bool {
    if api.tunnels.status(id).is_none() {
        return false;
    }
    match visible(api, caller, Action::TunnelBeat, id).await {
        Ok(_) => true,
        Err(problem) => problem.status >= 500,
    }
}
