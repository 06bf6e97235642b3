//! What can go wrong in the store, in the terms a caller acts on, and how the engines' errors become that.

use sqlx::error::DatabaseError;

/// Why the store did not do it. Nothing of the operation remains; all but `Corrupt` and `BadCursor` may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database is busy or locked; try again")]
    Busy,
    #[error("the disk of the database is full; free some space")]
    Full,
    #[error("the database cannot be reached or written")]
    Unavailable(#[source] sqlx::Error),
    /// A row holds what this build cannot read, or the file is damaged.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(String),
    #[error("this is not a cursor of this list")]
    BadCursor,
    /// A value that must be unique exists already. Operations with a better name for it map it away.
    #[error("it exists already")]
    Exists,
    /// The engine refused a statement: a fault of ours.
    #[error("the database refused the statement")]
    Statement(#[source] sqlx::Error),
}

impl StoreError {
    /// Whether the caller may expect the same call to work later (HTTP 503).
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Busy | Self::Full | Self::Unavailable(_) => true,
            Self::Corrupt(_) | Self::BadCursor | Self::Exists | Self::Statement(_) => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(inner) = &error {
            return match kind(inner.as_ref()) {
                Kind::Busy => Self::Busy,
                Kind::Full => Self::Full,
                Kind::Unavailable => Self::Unavailable(error),
                Kind::Corrupt => Self::Corrupt(inner.message().to_owned()),
                Kind::Exists => Self::Exists,
                Kind::Statement => Self::Statement(error),
            };
        }
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_)) {
            return Self::Corrupt(error.to_string());
        }
        // What is left is I/O, TLS, a lost worker or a closed pool.
        Self::Unavailable(error)
    }
}

enum Kind {
    Busy,
    Full,
    Unavailable,
    Corrupt,
    Exists,
    Statement,
}

fn kind(error: &dyn DatabaseError) -> Kind {
    if error.is_unique_violation() {
        return Kind::Exists;
    }
    let code = error.code().unwrap_or_default();
    match code.parse::<u32>() {
        // SQLSTATEs have five characters; SQLite's extended codes are shorter than 10000.
        Ok(number) if code.len() < 5 => sqlite_kind(number & 0xff),
        _ => postgres_kind(&code),
    }
}

/// SQLite primary result codes.
fn sqlite_kind(code: u32) -> Kind {
    match code {
        5 | 6 => Kind::Busy,
        13 => Kind::Full,
        8 | 10 | 14 => Kind::Unavailable,
        11 | 26 => Kind::Corrupt,
        _ => Kind::Statement,
    }
}

fn postgres_kind(sqlstate: &str) -> Kind {
    match sqlstate {
        "53100" => Kind::Full,
        // lock not available, serialisation failure, deadlock, statement timeout
        "55P03" | "40001" | "40P01" | "57014" => Kind::Busy,
        "25006" | "53200" | "53300" | "57P01" | "57P02" | "57P03" => Kind::Unavailable,
        "XX001" | "XX002" => Kind::Corrupt,
        state if state.starts_with("08") => Kind::Unavailable,
        _ => Kind::Statement,
    }
}
