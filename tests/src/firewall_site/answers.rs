//! The shapes of its answers.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Response, StatusCode, header};

pub(super) type Body = BoxBody<Bytes, std::io::Error>;
pub(super) type Answer = Response<Body>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

pub(super) fn text(status: StatusCode, words: &str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", words.to_owned())
}

pub(super) fn html(words: String) -> Answer {
    with_type(StatusCode::OK, "text/html; charset=utf-8", words)
}

pub(super) fn with_type(status: StatusCode, kind: &'static str, words: String) -> Answer {
    let mut answer = Response::new(full(words));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

pub(super) fn redirect(to: &str) -> Answer {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(header::LOCATION, to.parse().expect("an address"));
    answer
}
