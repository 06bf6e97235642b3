//! WebSockets of the API: who may upgrade, how large a message may be.
//! What is said on one is its route's business.

use std::time::Duration;

use super::{
    origin::{Origin, Surface},
    problem::{Kind, Problem},
    state::Api,
};
use axum::{
    extract::{
        FromRequestParts,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::request::Parts,
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
        // The gate refused a cookie without its page; programs and tokens come without one.
        let origin =
            parts.extensions.get::<Surface>().map_or(Origin::Foreign, |surface| surface.origin(&parts.headers));
        if origin == Origin::Foreign {
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
        let stop = api.stop.clone();
        self.accept_to_the_end(api, |socket| async move {
            stop.run_until_cancelled(serve(socket)).await;
        })
    }

    /// The same for what has its time when the master stops: `serve` must end when the agent's line does.
    pub(super) fn accept_to_the_end<F: Future<Output = ()> + Send + 'static>(
        self,
        api: &Api,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Result<Response, Problem> {
        let full = |_| Kind::Busy.problem("too many WebSockets are open").retry_after(5);
        let permit = api.websockets.clone().try_acquire_owned().map_err(full)?;
        let tracked = api.tasks.token();
        let upgrade = self.0.write_buffer_size(0).max_write_buffer_size(WRITE_BUFFER + MESSAGE_MAX);
        Ok(upgrade.on_upgrade(async move |socket| {
            let (_permit, _tracked) = (permit, tracked);
            serve(socket).await;
        }))
    }
}

/// A close frame with a stable word: `done` is the clean end.
pub(super) fn close(reason: &str) -> Message {
    let code = if reason == "done" { CLOSE_DONE } else { CLOSE_OURS };
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}
