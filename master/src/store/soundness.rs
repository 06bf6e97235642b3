//! Whether a database answers and is whole, asked from outside: no migration, no writing, no store that is opened.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{AnyConnection, Connection, Row, any::install_default_drivers};

use super::open::sqlite_url;
use crate::config::Database;

/// For the connection, and for the check of a small database. A large one takes longer, and says so.
const WITHIN: Duration = Duration::from_secs(6);

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    Sound,
    /// A server's own business: it answered.
    Answers,
    Absent,
    Damaged(String),
    /// It answered, and the check was not through in time.
    Unfinished(Duration),
}

#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("it does not answer within {WITHIN:?}")]
    Silent,
    #[error("it cannot be asked")]
    Database(#[from] sqlx::Error),
}

/// Looks at it.
pub async fn soundness(database: &Database) -> Result<Soundness, LookError> {
    install_default_drivers();
    let url = match database {
        Database::Sqlite(path) if !path.exists() => return Ok(Soundness::Absent),
        // Opens what is there and makes nothing.
        Database::Sqlite(path) => sqlite_url(path),
        Database::Postgres(url) => url.expose_secret().to_owned(),
    };
    let connecting = tokio::time::timeout(WITHIN, AnyConnection::connect(&url));
    let mut connection = connecting.await.map_err(|_| LookError::Silent)??;
    match database {
        Database::Postgres(_) => {
            let asked = tokio::time::timeout(WITHIN, sqlx::query("SELECT 1").fetch_one(&mut connection));
            asked.await.map_err(|_| LookError::Silent)??;
            Ok(Soundness::Answers)
        }
        Database::Sqlite(_) => {
            let checked = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection);
            match tokio::time::timeout(WITHIN, checked).await {
                Err(_) => Ok(Soundness::Unfinished(WITHIN)),
                Ok(row) => {
                    let verdict: String = row?.try_get(0)?;
                    Ok(if verdict == "ok" { Soundness::Sound } else { Soundness::Damaged(verdict) })
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::sqlite;

    #[tokio::test]
    async fn a_whole_an_absent_and_a_damaged_one_are_told_apart_and_nothing_is_made() {
        let (dir, store) = sqlite().await;
        let path = dir.path().join("landline.db");
        assert_eq!(soundness(&Database::Sqlite(path.clone())).await.unwrap(), Soundness::Sound, "beside a store");
        store.close().await;
        let absent = dir.path().join("none.db");
        assert_eq!(soundness(&Database::Sqlite(absent.clone())).await.unwrap(), Soundness::Absent);
        assert!(!absent.exists());
        let mut bytes = std::fs::read(&path).unwrap();
        for byte in &mut bytes[4096..8192] {
            *byte = 0x5a;
        }
        let damaged = dir.path().join("damaged.db");
        std::fs::write(&damaged, bytes).unwrap();
        let verdict = soundness(&Database::Sqlite(damaged)).await;
        assert!(!matches!(verdict, Ok(Soundness::Sound | Soundness::Absent)), "{verdict:?}");
    }
}
