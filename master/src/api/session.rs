//! `/session`: what a person does about their own session: see it, leave it, prove again who they are, change the
//! password, turn TOTP on and off, end their other sessions.

use axum::{
    Json as Reply,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use secrecy::SecretString;

use super::{
    cookie,
    dto::{
        Page, Time,
        operator::{NewPassword, OperatorSession, Password, Session, StepUp, TotpCode, TotpOffer},
    },
    extract::{From, Id, Json, NoQuery, Query, not_found},
    gate::Caller,
    operators::{self, person},
    problem::{Kind, Problem},
    state::Api,
};
use crate::{
    access::{Principal, Proof},
    clock::millis,
    store::operators::Operator,
};

const BODY: usize = 4096;

/// Show the session
#[utoipa::path(get, path = "/session", tag = "people", operation_id = "showSession",
    responses((status = 200, description = "Who one is, and what one may", body = Session)))]
pub(super) async fn show(State(api): State<Api>, caller: Caller, _: Query<NoQuery>) -> Result<Reply<Session>, Problem> {
    let person = api.store.operators().find(caller.id()).await?.ok_or_else(over)?;
    Ok(Reply(shown(&api, &caller, &person, caller.csrf())?))
}

/// Log out
#[utoipa::path(delete, path = "/session", tag = "people", operation_id = "logout",
    responses((status = 204, description = "The session is over; its cookie is taken away")))]
pub(super) async fn end(State(api): State<Api>, caller: Caller, _: Query<NoQuery>) -> Result<Response, Problem> {
    let session = caller.session().ok_or_else(over)?.id.clone();
    api.people.end_session(caller.id(), &session, caller.did("operator.logout")).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie::unset())]).into_response())
}

/// Prove again who one is: what takes a fresh proof is open again
#[utoipa::path(post, path = "/session/step-up", tag = "people", operation_id = "stepUp", request_body = StepUp,
    responses((status = 204, description = "Proved"),
              (status = 403, description = "wrong_proof", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn step_up(
    State(api): State<Api>,
    From(sender): From,
    caller: Caller,
    _: Query<NoQuery>,
    Json(proof): Json<StepUp, BODY>,
) -> Result<StatusCode, Problem> {
    let proof = match (proof.password, proof.code) {
        (Some(password), None) => Proof::Password(SecretString::from(password)),
        (None, Some(code)) => Proof::Code(SecretString::from(code)),
        (None, None) | (Some(_), Some(_)) => return Err(Kind::Invalid.problem("give password or code, one of the two")),
    };
    api.people.step_up(&caller, proof, &sender, api.now_ms(), caller.did("operator.step_up")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the password; one's other sessions end
#[utoipa::path(post, path = "/session/password", tag = "people", operation_id = "changePassword",
    request_body = NewPassword, responses((status = 204, description = "Changed"),
              (status = 403, description = "wrong_proof", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn password(
    State(api): State<Api>,
    From(sender): From,
    caller: Caller,
    _: Query<NoQuery>,
    Json(change): Json<NewPassword, BODY>,
) -> Result<StatusCode, Problem> {
    let (current, new) = (SecretString::from(change.current), SecretString::from(change.new));
    let audit = caller.did("operator.password");
    api.people.change_password(&caller, current, new, &sender, api.now_ms(), audit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for a TOTP secret; it is in force once a code of it was shown
#[utoipa::path(post, path = "/session/totp", tag = "people", operation_id = "offerTotp",
    responses((status = 200, description = "The secret", body = TotpOffer),
              (status = 409, description = "conflict: TOTP is on", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn offer_totp(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
) -> Result<Reply<TotpOffer>, Problem> {
    let offer = api.people.offer_totp(&caller).await?;
    Ok(Reply(TotpOffer { secret: offer.secret, uri: offer.uri }))
}

/// Turn TOTP on
#[utoipa::path(put, path = "/session/totp", tag = "people", operation_id = "turnTotpOn", request_body = TotpCode,
    responses((status = 204, description = "Codes are asked for from now on"),
              (status = 403, description = "wrong_proof", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn totp_on(
    State(api): State<Api>,
    From(sender): From,
    caller: Caller,
    _: Query<NoQuery>,
    Json(shown): Json<TotpCode, BODY>,
) -> Result<StatusCode, Problem> {
    let (code, audit) = (SecretString::from(shown.code), caller.did("operator.totp_on"));
    api.people.turn_totp_on(&caller, code, &sender, api.now_ms(), audit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Turn TOTP off; one's other sessions end
#[utoipa::path(delete, path = "/session/totp", tag = "people", operation_id = "turnTotpOff", request_body = Password,
    responses((status = 204, description = "No codes are asked for any more"),
              (status = 403, description = "wrong_proof", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn totp_off(
    State(api): State<Api>,
    From(sender): From,
    caller: Caller,
    _: Query<NoQuery>,
    Json(proof): Json<Password, BODY>,
) -> Result<StatusCode, Problem> {
    let (password, audit) = (SecretString::from(proof.password), caller.did("operator.totp_off"));
    api.people.turn_totp_off(&caller, password, &sender, api.now_ms(), audit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List one's own sessions
#[utoipa::path(get, path = "/session/mine", tag = "people", operation_id = "listMySessions",
    responses((status = 200, description = "Newest first; there are never more than one page", body = Page<OperatorSession>)))]
pub(super) async fn mine(
    State(api): State<Api>,
    caller: Caller,
    _: Query<NoQuery>,
) -> Result<Reply<Page<OperatorSession>>, Problem> {
    Ok(Reply(operators::sessions_of(&api, &caller, caller.id()).await?))
}

/// End one of one's own sessions
#[utoipa::path(delete, path = "/session/mine/{id}", tag = "people", operation_id = "endMySession",
    params(("id" = uuid::Uuid, Path, description = "The session's id")),
    responses((status = 204, description = "Ended; its streams end within seconds")))]
pub(super) async fn end_mine(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id<uuid::Uuid>,
    _: Query<NoQuery>,
) -> Result<StatusCode, Problem> {
    let audit = caller.did("operator.session_end");
    let ended = api.people.end_session(caller.id(), &id.to_string(), audit).await?;
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(not_found()) }
}

/// A session as its page sees it.
pub(super) fn shown(api: &Api, principal: &Principal, operator: &Operator, csrf: &str) -> Result<Session, Problem> {
    let facts = principal.session().ok_or_else(over)?;
    Ok(Session {
        operator: person(operator)?,
        permissions: principal.permissions.iter().map(|permission| permission.word().to_owned()).collect(),
        csrf: csrf.to_owned(),
        created_at: Time::from_ms(facts.created_at_ms),
        expires_at: Time::from_ms(facts.expires_at_ms),
        stepped_up_until: Time::from_ms(facts.proved_at_ms.saturating_add(millis(api.access.step_up()))),
    })
}

fn over() -> Problem {
    Kind::Unauthorized.problem("the session is over; sign in again")
}
