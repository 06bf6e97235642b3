//! Numbered, forward-only migrations, embedded. A released file never changes: its hash is recorded where it was applied.

use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Connection, Row};

use super::{Engine, OpenError, Sql, audit};

/// Every migration, oldest first; the version is the place in the list, from 1. Append only.
const ALL: &[&str] = &[
    include_str!("migrations/0001_start.sql"),
    include_str!("migrations/0002_sessions.sql"),
    include_str!("migrations/0003_enrolment_keys.sql"),
    include_str!("migrations/0004_pins.sql"),
    include_str!("migrations/0005_audit_filters.sql"),
    include_str!("migrations/0006_operators.sql"),
    include_str!("migrations/0007_next_keys.sql"),
];

/// Any number no other program takes: two masters on one PostgreSQL must not migrate at once.
const POSTGRES_LOCK: &str = "SELECT pg_advisory_xact_lock(7443000100)";

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version BIGINT NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL)";

/// Brings the schema up to this build's, all or nothing.
pub(super) async fn apply(connection: &mut AnyConnection, engine: Engine) -> Result<(), OpenError> {
    let begin = match engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN",
    };
    let mut transaction = connection.begin_with(begin).await?;
    if engine == Engine::Postgres {
        sqlx::query(POSTGRES_LOCK).execute(&mut *transaction).await?;
    }
    sqlx::query(LEDGER).execute(&mut *transaction).await?;
    let rows = sqlx::query("SELECT version, sha256 FROM schema_migrations ORDER BY version")
        .fetch_all(&mut *transaction)
        .await?;
    let mut applied = Vec::with_capacity(rows.len());
    for row in rows {
        applied.push((row.try_get::<i64, _>("version")?, row.try_get::<String, _>("sha256")?));
    }
    check(&applied)?;
    for (text, version) in ALL.iter().zip(1_i64..).skip(applied.len()) {
        sqlx::raw_sql(*text).execute(&mut *transaction).await?;
        let insert = Sql::new("INSERT INTO schema_migrations (version, sha256) VALUES ($1, $2)");
        insert.bind(version).bind(hash(text)).query().execute(&mut *transaction).await?;
    }
    audit::fill(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// What was applied must be what this build knows, in order and unchanged.
fn check(applied: &[(i64, String)]) -> Result<(), OpenError> {
    if applied.len() > ALL.len() {
        return Err(OpenError::TooNew { found: applied.len(), known: ALL.len() });
    }
    for ((version, recorded), (text, expected)) in applied.iter().zip(ALL.iter().zip(1_i64..)) {
        if *version != expected || *recorded != hash(text) {
            return Err(OpenError::ForeignSchema { version: *version });
        }
    }
    Ok(())
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_must_be_known_and_unchanged() {
        let known: Vec<_> = ALL.iter().zip(1_i64..).map(|(text, version)| (version, hash(text))).collect();
        assert!(check(&known).is_ok());
        assert!(check(&[]).is_ok());
        let mut newer = known.clone();
        newer.push((99, String::new()));
        assert!(matches!(check(&newer), Err(OpenError::TooNew { .. })));
        let mut changed = known;
        changed[0].1 = hash("other");
        assert!(matches!(check(&changed), Err(OpenError::ForeignSchema { version: 1 })));
    }
}
