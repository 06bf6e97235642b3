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
use tokio::time::{Instant, interval_at, timeout};

use super::{
    extract::{NoQuery, Query},
    gate::Caller,
    problem::Problem,
    state::{Api, RECHECK},
    tunnels::visible,
    websocket::{Upgrade, close},
};
use crate::{access::Action, tunnel::presence::Holder};

/// How often a dashboard is asked: browsers slow the clocks of pages in the background down to a tick a minute, but let
/// them answer.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A dashboard that said nothing for so long is gone; so is one that takes nothing.
const SILENT: Duration = Duration::from_secs(20);
/// Windows of one dashboard.
const OPEN_MAX: usize = 256;

/// What a dashboard says: every window it has open.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    open: Vec<String>,
}

/// What it is told: those of them that are over, or not the caller's to see; and whether it is asked to say again.
#[derive(Debug, Default, Serialize)]
struct Answer {
    over: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ask: bool,
}

/// Say which tunnels' windows are open: a WebSocket
#[utoipa::path(get, path = "/presence", tag = "tunnels", operation_id = "presence",
    responses((status = 101, description = "Send `{\"open\": [ids]}` at each change and when asked (`ask`, every 2 s); the answer names those that are `over`")))]
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
    let _ = timeout(RECHECK, websocket.send(close(reason))).await;
}

/// Until the dashboard leaves; why it is over.
async fn listen(api: &Api, caller: &Caller, holder: &mut Holder, websocket: &mut WebSocket) -> &'static str {
    let mut asks = interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
    let mut heard = Instant::now();
    loop {
        let received = tokio::select! {
            received = websocket.recv() => received,
            _ = asks.tick() => {
                if heard.elapsed() > SILENT {
                    return "silent";
                }
                if !say(websocket, &Answer { ask: true, ..Answer::default() }).await {
                    return "gone";
                }
                continue;
            }
        };
        match received {
            Some(Ok(Message::Text(text))) => {
                heard = Instant::now();
                let told = serde_json::from_str::<Told>(&text).ok().filter(|told| told.open.len() <= OPEN_MAX);
                let Some(told) = told else { return "invalid" };
                if !say(websocket, &take(api, caller, holder, told).await).await {
                    return "gone";
                }
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => return "invalid",
            Some(Ok(Message::Close(_)) | Err(_)) | None => return "gone",
        }
    }
}

/// False where nobody takes it.
async fn say(websocket: &mut WebSocket, answer: &Answer) -> bool {
    let text = serde_json::to_string(answer).unwrap_or_default();
    matches!(timeout(SILENT, websocket.send(Message::text(text))).await, Ok(Ok(())))
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
    Answer { over, ask: false }
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
