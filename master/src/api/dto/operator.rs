//! People, their sessions, and how they prove to be who they are, as the API takes and shows them. What holds a password
//! or a code has no debug form.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, and changes nothing.
    Viewer,
    /// Works on machines.
    Operator,
    /// Decides who may, and which machines there are.
    Admin,
}

/// The first admin.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What stands behind `#` in the one-time link.
    #[schema(max_length = 128)]
    pub token: String,
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
    pub name: String,
    #[schema(min_length = 10, max_length = 64)]
    pub password: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    #[schema(max_length = 64)]
    pub name: String,
    #[schema(max_length = 256)]
    pub password: String,
    /// Of the authenticator app, where TOTP is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16)]
    pub code: Option<String>,
}

/// A session as its own page sees it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub operator: Person,
    pub permissions: Vec<String>,
    /// To be sent as `X-CSRF-Token` with everything but GET.
    pub csrf: String,
    pub created_at: Time,
    /// The absolute end; unused it ends earlier.
    pub expires_at: Time,
    /// Until then shells and execs ask for no further proof.
    pub stepped_up_until: Time,
}

/// Who one is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Person {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub selector: Option<String>,
    /// Whether codes of an authenticator app are asked for.
    pub totp: bool,
}

/// One of the two.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16)]
    pub code: Option<String>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    #[schema(max_length = 256)]
    pub current: String,
    #[schema(min_length = 10, max_length = 64)]
    pub new: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    #[schema(max_length = 256)]
    pub password: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpCode {
    #[schema(max_length = 16)]
    pub code: String,
}

/// For an authenticator app; in force once a code of it was shown.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct TotpOffer {
    /// Base32, to be typed.
    pub secret: String,
    /// `otpauth://…`, to be shown as a picture.
    pub uri: String,
}

/// An account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Operator {
    #[serde(flatten)]
    pub person: Person,
    pub created_at: Time,
    pub last_login_at: Option<Time>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOperator {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
    pub name: String,
    pub role: Role,
    /// At least 10 characters, at most 256 bytes; no other rule.
    #[schema(min_length = 10, max_length = 64)]
    pub password: String,
    /// Only agents with these labels: `site=berlin,role=fw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, pattern = "^([A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62})?$")]
    pub selector: Option<String>,
}

/// What to change; what is absent stays.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The empty text covers every agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, pattern = "^([A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62})?$")]
    pub selector: Option<String>,
    /// Ends the person's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 10, max_length = 64)]
    pub password: Option<String>,
    /// `false` takes it off, for a lost phone; on it is turned by the person alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<bool>,
}

/// A session as those see it who may end it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorSession {
    pub id: String,
    pub created_at: Time,
    /// To the minute.
    pub seen_at: Time,
    pub expires_at: Time,
    /// The address it was made from.
    pub source: Option<String>,
    pub user_agent: Option<String>,
    /// `internal` or `public`: the socket it was made on, and is good for.
    pub socket: String,
    /// Whether it is the one that asks.
    pub current: bool,
}
