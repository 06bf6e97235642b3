//! A copy of a SQLite database while a master writes to it: one moment of it, whole, in one file.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sqlx::{AnyConnection, Connection, Row, any::install_default_drivers};

use super::{Sql, open::sqlite_url};

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("there is no database at {}", .0.display())]
    Missing(PathBuf),
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the database cannot be copied")]
    Database(#[from] sqlx::Error),
    #[error("the copy is damaged ({0}); look after the database itself")]
    Damaged(String),
}

/// Copies the database at `from` into the new file `to`, 0600, and checks the copy. Writers are not held up; what they
/// commit meanwhile is not in it.
pub async fn copy_sqlite(from: &Path, to: &Path) -> Result<(), CopyError> {
    if !from.is_file() {
        return Err(CopyError::Missing(from.to_owned()));
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made.map_err(|source| CopyError::File { path: to.to_owned(), source })?;
    install_default_drivers();
    let mut connection = AnyConnection::connect(&sqlite_url(from)).await?;
    // An empty file that exists is taken: so the mode is ours.
    let copy = Sql::new("VACUUM INTO $1").bind(to.to_string_lossy().into_owned());
    copy.query().execute(&mut connection).await?;
    connection.close().await?;

    let mut copy = AnyConnection::connect(&sqlite_url(to)).await?;
    let verdict: String = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut copy).await?.try_get(0)?;
    copy.close().await?;
    if verdict == "ok" { Ok(()) } else { Err(CopyError::Damaged(verdict)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Database,
        store::{
            audit::{AuditEntry, Verdict},
            testing::{open, sqlite},
        },
    };

    /// Copies made beside a writer each hold one moment: everything acknowledged before, and a chain that is whole.
    #[tokio::test]
    async fn copies_beside_a_writer_are_whole() {
        let (dir, store) = sqlite().await;
        let entry = || AuditEntry::new(1, "local", "x");
        store.audit(&entry()).await.unwrap();
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for _ in 0..300 {
                writer.audit(&entry()).await.unwrap();
            }
        });
        let (mut rounds, mut before) = (0, 1);
        while !writing.is_finished() {
            let to = dir.path().join(format!("copy-{rounds}.db"));
            copy_sqlite(&dir.path().join("landline.db"), &to).await.unwrap();
            let copy = open(&Database::Sqlite(to)).await;
            let Verdict::Whole { last, .. } = copy.verify_audit().await.unwrap() else { panic!("a broken copy") };
            assert!(last >= before);
            copy.close().await;
            let Verdict::Whole { last, .. } = store.verify_audit().await.unwrap() else { panic!("broken") };
            (rounds, before) = (rounds + 1, last);
        }
        writing.await.unwrap();
        assert!(rounds > 0);
    }

    #[tokio::test]
    async fn nothing_is_overwritten_and_nothing_made_up() {
        let (dir, _store) = sqlite().await;
        let (db, to) = (dir.path().join("landline.db"), dir.path().join("copy.db"));
        copy_sqlite(&db, &to).await.unwrap();
        assert!(matches!(copy_sqlite(&db, &to).await, Err(CopyError::File { .. })));
        let missing = copy_sqlite(&dir.path().join("none.db"), &dir.path().join("x")).await;
        assert!(matches!(missing, Err(CopyError::Missing(_))) && !dir.path().join("none.db").exists());
    }
}
