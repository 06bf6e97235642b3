//! Whether the process lives and whether it can work, and the metrics of the metrics socket.

use std::sync::Arc;

use axum::{
    Json as Reply, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    problem::{Kind, Problem},
    state::Api,
};
use crate::metrics::Metrics;

const LIVES: &str = "/healthz";
const READY: &str = "/readyz";
/// After a stop: the next master is there soon, or this one was not meant to be followed.
const COME_BACK_S: u16 = 5;

pub(super) fn router() -> Router<Api> {
    Router::new().route(LIVES, get(healthz)).route(READY, get(readyz))
}

/// Whether a path asks only how the process is.
pub fn is_health(path: &str) -> bool {
    [LIVES, READY].contains(&path)
}

/// The answer to every call after a stop.
pub fn shutting_down() -> Response {
    stopping().into_response()
}

fn stopping() -> Problem {
    Kind::ShuttingDown.problem("the master is shutting down").retry_after(COME_BACK_S)
}

/// The process answers.
async fn healthz() -> Reply<Value> {
    Reply(json!({ "status": "ok" }))
}

/// It can take work: the database answers and nobody told it to stop.
async fn readyz(State(api): State<Api>) -> Result<Reply<Value>, Problem> {
    if api.stop.is_cancelled() {
        return Err(stopping());
    }
    api.store.ping().await?;
    Ok(Reply(json!({ "status": "ready" })))
}

pub(super) async fn metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok((text, content_type)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            Kind::Internal.problem("the metrics could not be written; the log says why").into_response()
        }
    }
}
