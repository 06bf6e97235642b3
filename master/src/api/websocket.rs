//! WebSockets of the API: who may upgrade, how large a message may be.
//! What is said on one is its route's business.

use std::time::Duration;

use super::{
    guard::Hosts,
    problem::{Kind, Problem},
    state::Api,
};
use axum::{
    extract::{
        FromRequestParts,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, header, request::Parts},
    response::Response,
};

/// Largest message and frame taken, bytes.
pub(super) const MESSAGE_MAX: usize = 256 * 1024;
/// What is sent may wait for so many bytes of the socket before sending waits itself.
const WRITE_BUFFER: usize = 64 * 1024;
/// A ping goes out this often while nothing else does: proxies in between forget silent connections.
pub(super) const PING_EVERY: Duration = Duration::from_secs(25);
/// A close code for reasons of ours; the reason text is the stable word.
const CLOSE_OURS: u16 = 4000;
const CLOSE_DONE: u16 = 1000;

/// A request to become a WebSocket, by a program or by a page of our own (SECURITY R51): a page of another origin is
/// refused, whatever it carries.
pub(super) struct Upgrade(WebSocketUpgrade);

impl FromRequestParts<Api> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if !is_own_origin(&parts.headers, &Hosts::new(&api.settings.hosts)) {
            return Err(Kind::Forbidden.problem("a page of another origin may not connect here"));
        }
        match WebSocketUpgrade::from_request_parts(parts, api).await {
            Ok(upgrade) => Ok(Self(upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX))),
            Err(error) => {
                Err(Kind::BadRequest.problem(format!("this path speaks WebSocket: {}", error.body_text().trim())))
            }
        }
    }
}

impl Upgrade {
    /// Answers with the upgrade and hands the socket to `serve`, which runs until it returns or the master stops; a place
    /// among [`super::state::WEBSOCKETS_MAX`] is held for it.
    pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        api: &Api,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Result<Response, Problem> {
        let full = |_| Kind::Busy.problem("too many WebSockets are open").retry_after(5);
        let permit = api.websockets.clone().try_acquire_owned().map_err(full)?;
        let (tracked, stop) = (api.tasks.token(), api.stop.clone());
        let upgrade = self.0.write_buffer_size(0).max_write_buffer_size(WRITE_BUFFER + MESSAGE_MAX);
        Ok(upgrade.on_upgrade(async move |socket| {
            let (_permit, _tracked) = (permit, tracked);
            stop.run_until_cancelled(serve(socket)).await;
        }))
    }
}

/// Programs send no Origin. A page's must be exactly the host that it asks, and that host one of ours.
fn is_own_origin(headers: &HeaderMap, hosts: &Hosts) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let (Ok(origin), Some(host), None) = (origin.to_str(), host, origins.next()) else { return false };
    let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    named.is_some_and(|named| named.eq_ignore_ascii_case(host)) && hosts.allows(host)
}

/// A close frame with a stable word: `done` is the clean end.
pub(super) fn close(reason: &str) -> Message {
    let code = if reason == "done" { CLOSE_DONE } else { CLOSE_OURS };
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_and_own_pages_may_upgrade() {
        let hosts = Hosts::new(&["panel.example".to_owned()]);
        let from = |origins: &[&str], host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            for origin in origins {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            is_own_origin(&headers, &hosts)
        };
        assert!(from(&[], "127.0.0.1:7800"));
        assert!(from(&["http://127.0.0.1:7800"], "127.0.0.1:7800"));
        assert!(from(&["https://panel.example"], "panel.example"));
        for (origins, host) in [
            (&["http://127.0.0.1:8000"][..], "127.0.0.1:7800"),
            (&["http://evil.example"], "127.0.0.1:7800"),
            (&["http://evil.example"], "evil.example"),
            (&["null"], "127.0.0.1:7800"),
            (&["http://127.0.0.1:7800", "http://evil.example"], "127.0.0.1:7800"),
        ] {
            assert!(!from(origins, host), "{origins:?} {host}");
        }
    }
}
