//! One SQL text for both engines: `$n` placeholders, TEXT and BIGINT only. Builds statements and reads rows; knows no table.

use std::str::FromStr;

use proto::id::{AgentId, TunnelId};
use sqlx::{
    Arguments, Row,
    any::{AnyArguments, AnyRow},
};

use super::StoreError;

/// A SHA-256, stored as 64 hex digits.
pub type Sha256 = [u8; 32];

/// A statement and its arguments.
pub(super) struct Sql {
    text: String,
    arguments: AnyArguments,
    count: usize,
}

/// What a statement may bind. Booleans are 0 and 1: a column declared BOOLEAN does not decode on SQLite.
pub(super) enum Value {
    Text(Option<String>),
    Number(Option<i64>),
}

impl Sql {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), arguments: AnyArguments::default(), count: 0 }
    }

    /// Binds the next of the placeholders that the text already holds.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.add(value.into());
        self
    }

    /// Appends text. Never anything a peer or user sent.
    pub(super) fn push(mut self, text: &'static str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder and binds it.
    pub(super) fn push_bind(mut self, value: impl Into<Value>) -> Self {
        self.add(value.into());
        self.text.push('$');
        self.text.push_str(&self.count.to_string());
        self
    }

    fn add(&mut self, value: Value) {
        self.count += 1;
        // NUL is the one character PostgreSQL's TEXT cannot hold; an agent may name its host so.
        let added = match value {
            Value::Text(Some(text)) if text.contains('\0') => self.arguments.add(text.replace('\0', "\u{fffd}")),
            Value::Text(text) => self.arguments.add(text),
            Value::Number(number) => self.arguments.add(number),
        };
        debug_assert!(added.is_ok(), "text and numbers always encode");
    }

    pub(super) fn query(self) -> sqlx::query::Query<'static, sqlx::Any, AnyArguments> {
        // Made of `&'static str` pieces and placeholders alone, see `push`.
        sqlx::query_with(sqlx::AssertSqlSafe(self.text), self.arguments)
    }
}

macro_rules! into_value {
    ($($from:ty => |$value:ident| $into:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}

into_value! {
    &str => |value| Value::Text(Some(value.to_owned()));
    String => |value| Value::Text(Some(value));
    &String => |value| Value::Text(Some(value.clone()));
    Option<String> => |value| Value::Text(value);
    &Option<String> => |value| Value::Text(value.clone());
    &AgentId => |value| Value::Text(Some(value.to_string()));
    &Option<AgentId> => |value| Value::Text(value.as_ref().map(ToString::to_string));
    TunnelId => |value| Value::Text(Some(value.to_string()));
    Option<TunnelId> => |value| Value::Text(value.map(|id| id.to_string()));
    &Sha256 => |value| Value::Text(Some(hex::encode(value)));
    Option<Sha256> => |value| Value::Text(value.map(hex::encode));
    i64 => |value| Value::Number(Some(value));
    Option<i64> => |value| Value::Number(value);
    u16 => |value| Value::Number(Some(i64::from(value)));
    Option<u16> => |value| Value::Number(value.map(i64::from));
    Option<u32> => |value| Value::Number(value.map(i64::from));
    u64 => |value| Value::Number(Some(i64::try_from(value).unwrap_or(i64::MAX)));
    bool => |value| Value::Number(Some(i64::from(value)));
}

/// Typed reading of a row by column name. What does not fit is [`StoreError::Corrupt`], with the column named.
pub(super) struct Columns<'a>(pub(super) &'a AnyRow);

impl Columns<'_> {
    pub(super) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.text_opt(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn text_opt(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_get::<Option<String>, _>(column)?)
    }

    pub(super) fn int(&self, column: &'static str) -> Result<i64, StoreError> {
        self.int_opt(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn int_opt(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
        Ok(self.0.try_get::<Option<i64>, _>(column)?)
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    pub(super) fn unsigned<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        T::try_from(self.int(column)?).map_err(|_| StoreError::Corrupt(format!("{column} is out of range")))
    }

    pub(super) fn unsigned_opt<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let narrow = |n| T::try_from(n).map_err(|_| StoreError::Corrupt(format!("{column} is out of range")));
        self.int_opt(column)?.map(narrow).transpose()
    }

    pub(super) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.parsed_opt(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn parsed_opt<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        let parse = |text: String| text.parse().map_err(|_| StoreError::Corrupt(format!("{column} is {text:?}")));
        self.text_opt(column)?.map(parse).transpose()
    }

    pub(super) fn hash_opt(&self, column: &'static str) -> Result<Option<Sha256>, StoreError> {
        let decode = |text: String| {
            let mut hash = Sha256::default();
            match hex::decode_to_slice(&text, &mut hash) {
                Ok(()) => Ok(hash),
                Err(_) => Err(StoreError::Corrupt(format!("{column} is no SHA-256"))),
            }
        };
        self.text_opt(column)?.map(decode).transpose()
    }

    pub(super) fn hash(&self, column: &'static str) -> Result<Sha256, StoreError> {
        self.hash_opt(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn bytes_opt(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let decode = |text| hex::decode(text).map_err(|_| StoreError::Corrupt(format!("{column} is not hex")));
        self.text_opt(column)?.map(decode).transpose()
    }

    pub(super) fn json(&self, column: &'static str) -> Result<serde_json::Value, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| StoreError::Corrupt(format!("{column} is not JSON")))
    }
}

fn missing(column: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} is NULL"))
}
