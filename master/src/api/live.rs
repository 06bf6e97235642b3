//! `/live`: the whole fleet and every change of it on one WebSocket, for pages that show thousands of agents. Changes are
//! gathered for a moment, so that a busy fleet costs a page few messages. Owns pace and batches; rows are `agents`' shapes.

mod view;

use std::time::Duration;

use axum::{
    extract::{
        State,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use proto::id::AgentId;
use tokio::time::{MissedTickBehavior, interval};

use self::view::View;
use super::{
    dto::live::{LiveMessage, Sample, Samples},
    extract::{Id, NoQuery, Query},
    gate::Caller,
    problem::Problem,
    state::Api,
    websocket::{Upgrade, close},
};
use crate::{
    access::Action,
    events::{NextError, Subscription},
};

/// Changes are gathered this long.
const GATHER: Duration = Duration::from_millis(250);
/// Heartbeats are looked for once in so many rounds.
const PULSE_EVERY: u32 = 4;
/// Something is said at least once in so many rounds.
const QUIET_MAX: u32 = 20;
/// Items in a message: a page must not stall on one.
const ITEMS_MAX: usize = 250;
/// A reader that takes nothing for so long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// Events read at once.
const EVENTS_MAX: usize = 500;

/// Follow the fleet: a WebSocket with every agent and each change
#[utoipa::path(get, path = "/live", tag = "agents", operation_id = "live",
    responses((status = 101, description = "Text messages, each a LiveMessage: `rows` for all agents, `ready`, then changes",
               body = LiveMessage)))]
pub(super) async fn live(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let state = api.clone();
    upgrade.accept(&api, async move |websocket| serve(state, caller, websocket).await)
}

/// An agent's latest samples
#[utoipa::path(get, path = "/agents/{id}/samples", tag = "agents", operation_id = "agentSamples",
    params(("id" = String, Path, description = "The agent's name", pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")),
    responses((status = 200, description = "One for each heartbeat of the last half hour", body = Samples)))]
pub(super) async fn samples(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<AgentId>,
    _: Query<NoQuery>,
) -> Result<axum::Json<Samples>, Problem> {
    api.agent(&caller, Action::AgentRead, &id).await?;
    Ok(axum::Json(Samples { items: api.fleet.samples(&id).into_iter().map(Sample::from).collect() }))
}

async fn serve(api: Api, caller: Caller, websocket: WebSocket) {
    let (sink, mut source) = websocket.split();
    let mut out = Out { sink, quiet: 0 };
    // A page says nothing here; its end is heard.
    let left = async {
        while let Some(Ok(message)) = source.next().await
            && !matches!(message, Message::Close(_))
        {}
    };
    let reason = tokio::select! {
        biased;
        _ = api.not_any_more(&caller, Action::AgentsList) => "unauthorized",
        () = left => return,
        ended = follow(&api, &caller, &mut out) => ended.reason(),
    };
    let _ = tokio::time::timeout(SEND_WITHIN, out.sink.send(close(reason))).await;
}

/// Why it ends while the caller is still there.
enum Ended {
    /// It reads too slowly, or the bus went on without it: it comes again and begins anew.
    Lagged,
    Store(Problem),
    Gone,
}

impl Ended {
    fn reason(&self) -> &'static str {
        match self {
            Self::Lagged => "lagged",
            Self::Store(problem) => {
                tracing::warn!(problem = problem.detail, "a live view ends");
                "store_unavailable"
            }
            Self::Gone => "done",
        }
    }
}

async fn follow(api: &Api, caller: &Caller, out: &mut Out) -> Ended {
    // First subscribed, then read: what happens in between is told twice rather than never.
    let mut events = api.events.subscribe();
    let mut view = View::new(api.clone(), caller.clone());
    match begin(&mut view, out).await {
        Ok(()) => {}
        Err(ended) => return ended,
    }
    let mut round = interval(GATHER);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = 0u32;
    loop {
        round.tick().await;
        rounds = rounds.wrapping_add(1);
        if let Err(ended) = tell(&mut view, &mut events, rounds.is_multiple_of(PULSE_EVERY), out).await {
            return ended;
        }
    }
}

async fn begin(view: &mut View, out: &mut Out) -> Result<(), Ended> {
    let mut cursor = None;
    loop {
        let (rows, next) = view.page(cursor).await.map_err(Ended::Store)?;
        out.each(rows, |rows| LiveMessage::Rows { rows }).await?;
        cursor = next;
        if cursor.is_none() {
            return out.send(&LiveMessage::Ready).await;
        }
    }
}

async fn tell(view: &mut View, events: &mut Subscription, pulse: bool, out: &mut Out) -> Result<(), Ended> {
    let batch = match tokio::time::timeout(Duration::ZERO, events.next_batch(EVENTS_MAX)).await {
        Err(_) => Vec::new(),
        Ok(Ok(batch)) => batch,
        Ok(Err(NextError::Lagged(_))) => return Err(Ended::Lagged),
        Ok(Err(NextError::Closed)) => return Err(Ended::Gone),
    };
    let seen = view.take(&batch);
    let (rows, gone) = view.changed().await.map_err(Ended::Store)?;
    out.each(rows, |rows| LiveMessage::Rows { rows }).await?;
    out.each(gone, |ids| LiveMessage::Gone { ids }).await?;
    out.each(seen, |events| LiveMessage::Events { events }).await?;
    let pulses = if pulse { view.pulses() } else { Vec::new() };
    out.each(pulses, |pulses| LiveMessage::Pulse { pulses }).await?;
    out.quiet += 1;
    if out.quiet >= QUIET_MAX { out.send(&LiveMessage::Pulse { pulses: Vec::new() }).await } else { Ok(()) }
}

struct Out {
    sink: SplitSink<WebSocket, Message>,
    /// Rounds since the last message.
    quiet: u32,
}

impl Out {
    async fn send(&mut self, message: &LiveMessage) -> Result<(), Ended> {
        self.quiet = 0;
        let text = serde_json::to_string(message).unwrap_or_default();
        match tokio::time::timeout(SEND_WITHIN, self.sink.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Gone),
        }
    }

    async fn each<T>(&mut self, mut items: Vec<T>, message: impl Fn(Vec<T>) -> LiveMessage) -> Result<(), Ended> {
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(ITEMS_MAX));
            self.send(&message(items)).await?;
            items = rest;
        }
        Ok(())
    }
}
