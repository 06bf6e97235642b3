//! Errors on the wire: `application/problem+json` with a stable `code`. Owns the list of codes and their statuses; the
//! rooms below map to it in `failure.rs`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error as the API tells it (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:landline:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What happened and what to do about it.
    pub detail: String,
    /// Stable word for programs.
    pub code: String,
    /// Seconds to wait before another try, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u16>,
    /// Where the other end stands, for `bad_offset` and whatever else can be gone on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

macro_rules! problems {
    ($($name:ident $status:ident $code:literal $title:literal;)*) => {
        /// Every kind of problem the API itself tells of. Codes are for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($name,)* }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            pub fn code(self) -> &'static str {
                match self { $(Kind::$name => $code,)* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Kind::$name => $title,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Kind::$name => StatusCode::$status,)* }
            }
        }
    };
}

problems! {
    BadRequest BAD_REQUEST "bad_request" "The request cannot be read";
    Unauthorized UNAUTHORIZED "unauthorized" "A valid token or session is required";
    TotpRequired UNAUTHORIZED "totp_required" "A code of the authenticator app is required";
    Forbidden FORBIDDEN "forbidden" "This is not allowed to the caller";
    StepUpRequired FORBIDDEN "step_up_required" "A fresh proof of who you are is required";
    WrongProof FORBIDDEN "wrong_proof" "The password or the code is wrong";
    Policy FORBIDDEN "policy" "The owner's policy on the agent forbids it";
    NotFound NOT_FOUND "not_found" "There is nothing here";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "This path does not take that method";
    Timeout REQUEST_TIMEOUT "request_timeout" "The request did not arrive in time";
    Conflict CONFLICT "conflict" "It exists already";
    LastAdmin CONFLICT "last_admin" "It is the last admin";
    InProgress CONFLICT "in_progress" "The same request is being carried out";
    AgentOffline CONFLICT "agent_offline" "The agent is not connected";
    AgentSuspended CONFLICT "agent_suspended" "The agent is suspended";
    NotOwner FORBIDDEN "not_owner" "Only the one who opened it may";
    SessionOver CONFLICT "session_over" "The session is over";
    OutputGone CONFLICT "output_gone" "The output at this offset is not there";
    TunnelClosed CONFLICT "tunnel_closed" "The tunnel is over";
    Stale CONFLICT "stale" "The timestamp is too far from the master's time";
    Replayed CONFLICT "replayed" "This id was used before";
    NotExtendable CONFLICT "not_extendable" "The tunnel cannot live longer";
    FileNotFound NOT_FOUND "file_not_found" "No such file or folder";
    OutsideRoots FORBIDDEN "outside_roots" "The owner's policy does not open that folder";
    ReadOnly FORBIDDEN "read_only" "The owner's policy lets that folder only be read";
    NoAccess FORBIDDEN "no_access" "The agent's user may not";
    FileExists CONFLICT "file_exists" "Something is there already";
    NotAFile CONFLICT "not_a_file" "Not a plain file";
    NotAFolder CONFLICT "not_a_folder" "Not a folder";
    NotEmpty CONFLICT "not_empty" "The folder is not empty";
    SourceChanged CONFLICT "source_changed" "The file changed meanwhile";
    BadOffset CONFLICT "bad_offset" "The offset is not where the other end stands";
    LengthRequired LENGTH_REQUIRED "length_required" "The length must be told";
    PreconditionFailed PRECONDITION_FAILED "precondition_failed" "The file is another one by now";
    BadRange RANGE_NOT_SATISFIABLE "bad_range" "The file has no such bytes";
    WrongHash UNPROCESSABLE_ENTITY "wrong_hash" "What arrived is not what was announced";
    BadArchive UNPROCESSABLE_ENTITY "bad_archive" "Not an archive that may be extracted";
    IoFailed BAD_GATEWAY "io_failed" "The agent's file system failed";
    RecordingFailed INSUFFICIENT_STORAGE "recording_failed" "The recording cannot be written";
    NoSpace INSUFFICIENT_STORAGE "no_space" "No room on the agent's disk";
    SpawnFailed UNPROCESSABLE_ENTITY "spawn_failed" "The program could not be started";
    AgentRefused UNPROCESSABLE_ENTITY "agent_refused" "The agent does not take this request";
    PortsExhausted CONFLICT "ports_exhausted" "No port of the range is free";
    TooLarge PAYLOAD_TOO_LARGE "too_large" "The body is too large";
    MediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The body must be application/json";
    Misdirected MISDIRECTED_REQUEST "misdirected" "This host name is not served here";
    Invalid UNPROCESSABLE_ENTITY "invalid" "A value is not acceptable";
    KeyReused CONFLICT "idempotency_key_reused" "The key was used for another request";
    TooMany TOO_MANY_REQUESTS "too_many" "Too many requests";
    AgentFailed BAD_GATEWAY "agent_failed" "The agent did not carry it out";
    AgentTimeout GATEWAY_TIMEOUT "agent_timeout" "The agent did not answer in time";
    Internal INTERNAL_SERVER_ERROR "internal" "The master failed";
    StoreUnavailable SERVICE_UNAVAILABLE "store_unavailable" "The database cannot be used now";
    ShuttingDown SERVICE_UNAVAILABLE "shutting_down" "The master is shutting down";
    Busy SERVICE_UNAVAILABLE "busy" "A bound is reached";
}

impl Kind {
    /// A problem of this kind; `detail` says what happened and what to do.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:landline:problem:{}", self.code()),
            title: self.title().to_owned(),
            status: self.status().as_u16(),
            detail: detail.into(),
            code: self.code().to_owned(),
            retry_after_s: None,
            offset: None,
        }
    }
}

impl Problem {
    pub fn retry_after(mut self, seconds: u16) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl From<super::dto::Invalid> for Problem {
    fn from(invalid: super::dto::Invalid) -> Self {
        Kind::Invalid.problem(invalid.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// docs/API.md is for people; at least its table of codes must not lag behind.
    #[test]
    fn every_code_stands_in_the_docs() {
        let docs = include_str!("../../../docs/API.md");
        for kind in Kind::ALL {
            let row = docs.lines().find(|line| line.starts_with(&format!("| {} |", kind.status().as_u16())));
            let told = row.is_some_and(|row| row.contains(&format!("`{}`", kind.code())));
            assert!(told, "docs/API.md lacks {} under {}", kind.code(), kind.status());
        }
    }

    #[test]
    fn codes_are_unique_and_stand_in_the_type() {
        let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert_eq!(Kind::Stale.problem("x").kind, "urn:landline:problem:stale");
    }
}
