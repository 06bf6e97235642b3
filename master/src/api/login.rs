//! `/login` and `/setup`: the two calls that nobody has to be known for, and that give a session. Both are bounded
//! before anything is checked.

use axum::{
    Json as Reply,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    cookie,
    dto::operator::{Login, Session, Setup},
    extract::{From, Json, NoQuery, Query},
    problem::{Kind, Problem},
    session::shown,
    state::Api,
};
use crate::access::{self, LoggedIn};

/// Largest body, bytes: names and passwords are short.
const BODY: usize = 4096;

/// Log in
#[utoipa::path(post, path = "/login", tag = "people", operation_id = "login", request_body = Login,
    responses((status = 200, description = "The session; its cookie is set", body = Session),
              (status = 401, description = "unauthorized, totp_required", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn login(
    State(api): State<Api>,
    From(sender): From,
    _: Query<NoQuery>,
    Json(login): Json<Login, BODY>,
) -> Result<Response, Problem> {
    let login = access::Login {
        name: login.name,
        password: SecretString::from(login.password),
        code: login.code.filter(|code| !code.is_empty()).map(SecretString::from),
    };
    let begun = api.people.log_in(login, &sender, api.now_ms()).await;
    if begun.is_err() {
        api.metrics.auth_failure("login");
    }
    begun_session(&api, StatusCode::OK, begun?)
}

/// Make the first admin, by the one-time link of `landline serve`
#[utoipa::path(post, path = "/setup", tag = "people", operation_id = "setup", request_body = Setup,
    responses((status = 201, description = "The first admin's session; its cookie is set", body = Session),
              (status = 404, description = "not_found: an admin was made", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn setup(
    State(api): State<Api>,
    From(sender): From,
    _: Query<NoQuery>,
    Json(setup): Json<Setup, BODY>,
) -> Result<Response, Problem> {
    let (token, password) = (SecretString::from(setup.token), SecretString::from(setup.password));
    let begun = api.people.set_up(&token, setup.name, password, &sender, api.now_ms()).await?;
    begun_session(&api, StatusCode::CREATED, begun)
}

fn begun_session(api: &Api, status: StatusCode, begun: LoggedIn) -> Result<Response, Problem> {
    let facts = begun.principal.session().ok_or_else(|| Kind::Internal.problem("the session is gone"))?;
    let age_s = u64::try_from((facts.expires_at_ms - facts.created_at_ms) / 1000).unwrap_or(0);
    let csrf = cookie::csrf(begun.secret.expose_secret());
    let session = shown(api, &begun.principal, &begun.person, &csrf)?;
    let mut response = (status, Reply(session)).into_response();
    if let Some(value) = cookie::set(&begun.secret, age_s) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    Ok(response)
}
