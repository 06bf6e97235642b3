//! Long answers that are not read. What makes an answer looks at its caller again by itself (SECURITY R15), but is asked
//! for nothing while the socket is full; then the connection is hung up from here.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use http_body_util::BodyExt;
use tokio_util::task::AbortOnDropHandle;

use super::{gate::Caller, state::Api};
use crate::{access::Action, http::server::HangUp};

/// Answers up to this many bytes need no reader: the kernel takes them.
const SHORT: u64 = 64 * 1024;
/// For what makes the answer to end it with a word; with the look before it within the five seconds of R15.
const GRACE: Duration = Duration::from_millis(2_500);

/// The response, whose connection ends when its caller may not have it any more and does not read on either.
pub(super) fn watched(api: Api, caller: Caller, action: Action, hang_up: HangUp, response: Response) -> Response {
    if response.body().size_hint().exact().is_some_and(|bytes| bytes <= SHORT) {
        return response;
    }
    let watch = AbortOnDropHandle::new(tokio::spawn(async move {
        api.not_any_more(&caller, action).await;
        tokio::time::sleep(GRACE).await;
        hang_up.now();
    }));
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // As long as the body.
            let _ = &watch;
            frame
        }))
    })
}
