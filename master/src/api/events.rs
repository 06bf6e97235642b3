//! `/events`: what happens, as server-sent events with a cursor. Reading on from a cursor misses nothing that is kept;
//! the caller's right to it is asked again every few seconds (SECURITY R15).

use std::{collections::VecDeque, convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    dto::{
        Time,
        event::{Event, EventQuery},
    },
    extract::Query,
    gate::Caller,
    problem::{Kind, Problem},
    state::{Api, RECHECK},
};
use crate::{
    access::Action,
    events::{self, NextError, Subscription},
    store::events::EventFilter,
};

/// So that proxies and readers know that somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events read from the store at a time.
const BATCH: u32 = 500;
/// Cursors stay exact in JavaScript.
const CURSOR_MAX: u64 = (1 << 53) - 1;

/// Follow events
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "followEvents", params(EventQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As `cursor`, sent by browsers that reconnect")),
    responses((status = 200, description = "Server-sent events; `id` is the cursor, `data` an Event", body = Event,
               content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Result<Response, Problem> {
    let cursor = cursor(&headers, query.cursor.as_deref())?;
    let mut again = interval_at(Instant::now() + RECHECK, RECHECK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let live = cursor.is_none().then(|| api.events.subscribe());
    let cursor = cursor.unwrap_or_else(|| api.events.last_id());
    let mut following = Following { api, caller, live, cursor, waiting: VecDeque::new(), again, alive };
    following.fill().await?;
    let pieces = stream::unfold((following, true), |(mut following, first)| async move {
        // Something at once, so that a reader knows it is connected.
        let piece = if first { Some(Bytes::from_static(b": connected\n\n")) } else { following.next().await };
        piece.map(|piece| (Ok::<_, Infallible>(piece), (following, false)))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn cursor(headers: &HeaderMap, query: Option<&str>) -> Result<Option<u64>, Problem> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    // A browser that reconnects sends the header beside its old URL: the header is newer.
    let Some(text) = header.or(query) else { return Ok(None) };
    event_id(text).map(Some)
}

/// An event's id as a cursor.
pub(super) fn event_id(text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(cursor) if digits && cursor <= CURSOR_MAX => Ok(cursor),
        _ => Err(Kind::Invalid.problem("a cursor of events is the `id` of one")),
    }
}

/// One reader's place. Dropping it costs nobody anything.
struct Following {
    api: Api,
    caller: Caller,
    /// `None` while reading up from the store.
    live: Option<Subscription>,
    cursor: u64,
    waiting: VecDeque<Bytes>,
    again: Interval,
    alive: Interval,
}

impl Following {
    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.waiting.pop_front() {
                return Some(piece);
            }
            let Some(live) = &mut self.live else {
                if let Err(problem) = self.fill().await {
                    tracing::warn!(problem = problem.detail, "an event stream ends");
                    return None;
                }
                continue;
            };
            let stop = self.api.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                _ = self.again.tick() => self.api.still(&self.caller, Action::EventsRead).await.ok()?,
                _ = self.alive.tick() => return Some(Bytes::from_static(b": keep-alive\n\n")),
                batch = live.next_batch(BATCH as usize) => match batch {
                    Ok(batch) => self.take(&batch).await.ok()?,
                    Err(NextError::Lagged(_)) => self.live = None,
                    Err(NextError::Closed) => return None,
                },
            }
        }
    }

    /// Catches up from the store until the bus can go on.
    async fn fill(&mut self) -> Result<(), Problem> {
        if self.live.is_some() {
            return Ok(());
        }
        let oldest = match self.api.events.subscribe_from(self.cursor) {
            Ok(live) => {
                self.live = Some(live);
                return Ok(());
            }
            Err(lagged) => lagged.oldest,
        };
        let filter = EventFilter { selector: self.caller.selector.clone(), ..EventFilter::default() };
        let stored = self.api.store.events().after(self.cursor, &filter, BATCH).await?;
        let full = stored.len() >= BATCH as usize;
        self.cursor = stored.last().map_or(self.cursor, |event| event.id);
        if !full {
            // All that the store has: what is left is in memory.
            self.cursor = self.cursor.max(oldest.saturating_sub(1));
        }
        self.waiting.extend(stored.iter().map(encoded));
        Ok(())
    }

    async fn take(&mut self, batch: &[Arc<events::Event>]) -> Result<(), Problem> {
        for event in batch {
            self.cursor = event.id;
            if self.sees(event).await? {
                self.waiting.push_back(encoded(event));
            }
        }
        Ok(())
    }

    async fn sees(&self, event: &events::Event) -> Result<bool, Problem> {
        if self.caller.selector.is_everything() {
            return Ok(true);
        }
        let Some(agent) = &event.agent_id else { return Ok(false) };
        let labels = self.api.store.agents().labels(agent).await?;
        Ok(labels.is_some_and(|labels| Api::sees(&self.caller, Action::EventsRead, &labels)))
    }
}

fn encoded(stored: &events::Event) -> Bytes {
    let mut text = format!("id: {}\ndata: ", stored.id);
    // JSON of serde_json is one line: control characters are escaped.
    let _ = write!(text, "{}", serde_json::to_string(&event(stored)).unwrap_or_default());
    text.push_str("\n\n");
    text.into()
}

pub(super) fn event(stored: &events::Event) -> Event {
    Event {
        id: stored.id,
        at: Time::from_ms(stored.at_ms),
        kind: stored.kind.clone(),
        agent_id: stored.agent_id.as_ref().map(ToString::to_string),
        tunnel_id: stored.tunnel_id.map(|id| id.to_string()),
        reason: stored.reason.clone(),
        detail: stored.detail.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_newer_than_the_url() {
        let mut headers = HeaderMap::new();
        assert_eq!(cursor(&headers, None).unwrap(), None);
        assert_eq!(cursor(&headers, Some("7")).unwrap(), Some(7));
        headers.insert("last-event-id", HeaderValue::from_static("9"));
        assert_eq!(cursor(&headers, Some("7")).unwrap(), Some(9));
        for bad in ["", "x", "-1", "+1", "9007199254740992", "99999999999999999999"] {
            assert!(cursor(&HeaderMap::new(), Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_event_is_one_record() {
        let mut stored = events::Event {
            id: 7,
            at_ms: 0,
            kind: "a".to_owned(),
            agent_id: None,
            tunnel_id: None,
            reason: Some("x\n\ndata: forged".to_owned()),
            detail: serde_json::Value::Null,
        };
        let text = String::from_utf8(encoded(&stored).to_vec()).unwrap();
        assert_eq!(text.matches("\n\n").count(), 1);
        assert!(text.starts_with("id: 7\ndata: {"), "{text}");
        stored.reason = None;
        assert_eq!(event(&stored).at.0, "1970-01-01T00:00:00.000Z");
    }
}
