//! `Idempotency-Key`: the same call under the same key is done once and answered again. Owns the key's rules; what the
//! store keeps of it is `store::idempotency`'s business. Work under a key goes on when its caller leaves.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{
    extract::{BODY_MAX, read_body},
    gate::Caller,
    problem::{Kind, Problem},
    routes::Repeat,
    state::Api,
};
use crate::store::idempotency::{Begun, Keyed};

pub(super) const HEADER: &str = "idempotency-key";
const KEY_MAX: usize = 255;
/// Longest answer kept, bytes.
const ANSWER_MAX: usize = 256 * 1024;
/// Stands in the store where the answer held a secret.
const SECRET_ANSWER: &str = "";

/// An answer kept in memory.
pub(super) struct Remembered {
    request_sha256: [u8; 32],
    status: StatusCode,
    body: Bytes,
}

/// The caller's key, if it sent one. Tunnels keep it on their rows.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let good = (1..=KEY_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good && values.next().is_none() {
        return Ok(Some(text.to_owned()));
    }
    Err(Kind::Invalid.problem(format!("Idempotency-Key is one value of 1 to {KEY_MAX} visible ASCII characters")))
}

/// Runs the rest of the request, at most once per key.
pub(super) async fn pass(api: &Api, caller: &Caller, repeat: Repeat, request: Request, next: Next) -> Response {
    let key = match key(request.headers()) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    match (key, repeat) {
        (None, _) | (Some(_), Repeat::Harmless | Repeat::Own) => next.run(request).await,
        (Some(_), Repeat::Refused) => Kind::Invalid
            .problem("this call streams and cannot be answered twice: leave Idempotency-Key out")
            .into_response(),
        (Some(key), Repeat::Answered) => keyed(api, caller, key, false, request, next).await,
        (Some(key), Repeat::AnsweredSecretly) => keyed(api, caller, key, true, request, next).await,
    }
}

async fn keyed(api: &Api, caller: &Caller, key: String, secret: bool, request: Request, next: Next) -> Response {
    let (api, owner) = (api.clone(), caller.owner());
    // In a task: a caller that gives up must not leave the key without an outcome.
    let work = api.clone().tasks.spawn(async move {
        do_once(&api, owner, key, secret, request, next).await.unwrap_or_else(IntoResponse::into_response)
    });
    match work.await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "work under an idempotency key ended early");
            Kind::Internal.problem("the master failed on this request; its log says why").into_response()
        }
    }
}

async fn do_once(
    api: &Api,
    owner: String,
    key: String,
    secret: bool,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(Request::new(body), BODY_MAX).await?;
    let request_sha256 = digest(parts.method.as_str(), &parts.uri.to_string(), &bytes);
    let memory_key = (owner.clone(), key.clone());
    if let Some(answer) = api.remembered.get(&memory_key).filter(|answer| answer.request_sha256 == request_sha256) {
        return Ok(json(answer.status, answer.body.clone()));
    }
    let keyed = Keyed { owner: &owner, key: &key, request_sha256 };
    match api.store.idempotency().begin(&keyed, api.now_ms()).await? {
        Begun::New => {}
        Begun::InFlight => {
            return Err(
                Kind::InProgress.problem("the first call under this key has no outcome yet; look before repeating it")
            );
        }
        Begun::Mismatch => return Err(Kind::KeyReused.problem("this key was used for another request; take a new one")),
        Begun::Done { response, .. } if response == SECRET_ANSWER && secret => {
            return Err(
                Kind::Conflict.problem("it was done, and its secret is shown once; ask for a new secret or token")
            );
        }
        Begun::Done { status, response } => {
            return Ok(json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), response.into()));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    if !response.status().is_success() {
        // Nothing was done: the key is free for another try.
        api.store.idempotency().abandon(&keyed).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_MAX).await.unwrap_or_default();
    if secret {
        let answer = Remembered { request_sha256, status: parts.status, body: body.clone() };
        api.remembered.insert(memory_key, Arc::new(answer));
    }
    let kept = if secret { SECRET_ANSWER.into() } else { String::from_utf8_lossy(&body) };
    if let Err(error) = api.store.idempotency().finish(&keyed, parts.status.as_u16(), &kept).await {
        tracing::warn!(error = %error, "the answer under an idempotency key could not be kept");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn digest(method: &str, target: &str, body: &[u8]) -> [u8; 32] {
    let part = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes();
    Sha256::new()
        .chain_update(part(method.as_bytes()))
        .chain_update(method)
        .chain_update(part(target.as_bytes()))
        .chain_update(target)
        .chain_update(body)
        .finalize()
        .into()
}

fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = (status, body).into_response();
    if status == StatusCode::NO_CONTENT {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
    } else {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}
