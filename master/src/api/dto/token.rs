//! API tokens as the API shows and takes them.

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::Time;
use crate::access::Permission;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// For people: whose token it is, and what for.
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    pub name: String,
    /// What it may do; never more than its creator's.
    #[schema(value_type = Vec<PermissionSchema>, min_items = 1, max_items = 32)]
    pub permissions: Vec<String>,
    /// Only agents with these labels: `site=berlin,role=fw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        max_length = 1024,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62}(,[A-Za-z0-9][A-Za-z0-9._/-]{0,62}!?=[A-Za-z0-9][A-Za-z0-9._/-]{0,62}){0,7})?$"
    )]
    pub selector: Option<String>,
    /// Seconds until it expires; 90 days when absent, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 7776000)]
    pub expires_in_s: Option<u32>,
}

/// The schema of a permission: the words of `access`.
pub struct PermissionSchema;

impl PartialSchema for PermissionSchema {
    fn schema() -> RefOr<Schema> {
        let words = Permission::ALL.iter().map(|permission| permission.word());
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
    }
}

impl ToSchema for PermissionSchema {}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub permissions: Vec<String>,
    pub selector: Option<String>,
    /// The person on whose behalf it was made; it ends with them.
    pub operator_id: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
}

/// A token with its secret, shown once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    pub secret: String,
}
