//! What handlers take from a request, each failing with a documented problem: JSON bodies under a size and a deadline,
//! queries without unknown names, ids in paths.

use std::{str::FromStr, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::access::Sender;

/// Most bytes of a body, unless a route takes more.
pub const BODY_MAX: usize = 64 * 1024;
/// Time for the whole body.
pub const BODY_WITHIN: Duration = Duration::from_secs(15);

/// A JSON body of at most `MAX` bytes, strictly of its shape.
#[derive(Debug)]
pub struct Json<T, const MAX: usize = BODY_MAX>(pub T);

impl<S: Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Json<T, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Kind::MediaType.problem("send the body as JSON with `Content-Type: application/json`"));
        }
        let body = read_body(request, MAX).await?;
        parse(&body).map(Self)
    }
}

/// Like [`Json`], but an empty body is the default.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let typed = request.headers().contains_key(header::CONTENT_TYPE);
        let body = read_body(request, BODY_MAX).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if typed && !json {
            return Err(Kind::MediaType.problem("send the body as JSON with `Content-Type: application/json`"));
        }
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Kind::Invalid.problem(format!("the body does not fit: {error}")),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            Kind::BadRequest.problem(format!("the body is not JSON: {error}"))
        }
    })
}

/// Reads a whole body under a size and a deadline.
pub async fn read_body(request: Request, max: usize) -> Result<Bytes, Problem> {
    let collect = Limited::new(request.into_body(), max).collect();
    match tokio::time::timeout(BODY_WITHIN, collect).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Kind::TooLarge.problem(format!("the body is longer than the {max} bytes this route takes")))
        }
        Ok(Err(_)) => Err(Kind::BadRequest.problem("the body was cut off")),
        Err(_) => Err(Kind::Timeout.problem(format!("the body did not arrive within {BODY_WITHIN:?}"))),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Query parameters; unknown names are refused by the type.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(Kind::Invalid.problem(format!("the query does not fit: {}", error.body_text()))),
        }
    }
}

/// For routes without query parameters.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// The one id in a path. One that cannot exist is answered like one that does not (SECURITY R14).
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        text.parse().map(Self).map_err(|_| not_found())
    }
}

/// Several ids in a path, under the same rule.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(ids)| Self(ids)).map_err(|_| not_found())
    }
}

/// Where a call comes from, as the gate saw it.
#[derive(Debug)]
pub struct From(pub Sender);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let sender = parts.extensions.get::<Sender>().cloned();
        sender.map(Self).ok_or_else(|| Kind::Internal.problem("the request passed no gate"))
    }
}

/// The answer for a path that leads nowhere.
pub fn nothing_here() -> Problem {
    Kind::NotFound.problem("there is no such path; see docs/API.md")
}

/// The one answer for what is unknown and for what the caller may not see.
pub fn not_found() -> Problem {
    Kind::NotFound.problem("there is no such thing, or the token does not cover it")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        #[allow(dead_code)]
        a: u8,
    }

    async fn code(content_type: &str, body: impl Into<Body>) -> String {
        let request = Request::builder().header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        match Json::<Shape>::from_request(request, &()).await {
            Ok(_) => "ok".to_owned(),
            Err(problem) => problem.code,
        }
    }

    #[tokio::test]
    async fn bodies_are_strict() {
        assert_eq!(code("application/json; charset=utf-8", r#"{"a":1}"#).await, "ok");
        assert_eq!(code("text/plain", r#"{"a":1}"#).await, "unsupported_media_type");
        assert_eq!(code("application/json", r#"{"a":1,"b":2}"#).await, "invalid");
        assert_eq!(code("application/json", r#"{"a":300}"#).await, "invalid");
        assert_eq!(code("application/json", "{").await, "bad_request");
        assert_eq!(code("application/json", vec![b' '; BODY_MAX + 1]).await, "too_large");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(code("application/json", Body::from_stream(never)).await, "request_timeout");
    }
}
