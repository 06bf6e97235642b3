//! Runs one test body on each engine: always on SQLite, and on PostgreSQL where `LANDLINE_TEST_POSTGRES_URL` names one
//! (deploy/dev/postgres.sh starts it). Each run has a database of its own.

use std::sync::Arc;

use secrecy::SecretString;
use tempfile::TempDir;
use uuid::Uuid;

use super::Store;
use crate::{config::Database, metrics::Metrics};

/// Names the PostgreSQL to test on.
const POSTGRES_URL: &str = "LANDLINE_TEST_POSTGRES_URL";

/// A store on SQLite, gone with the folder.
pub(crate) async fn sqlite() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&Database::Sqlite(dir.path().join("landline.db"))).await;
    (dir, store)
}

pub(crate) async fn open(database: &Database) -> Store {
    Store::open(database, Arc::new(Metrics::new().unwrap())).await.unwrap()
}

/// Runs the body on each engine.
pub(crate) async fn on_both<F, R>(body: F)
where
    F: Fn(Store) -> R,
    R: Future<Output = ()>,
{
    let (dir, store) = sqlite().await;
    body(store.clone()).await;
    store.close().await;
    drop(dir);
    if let Some(url) = schema_url() {
        let store = open(&Database::Postgres(SecretString::from(url))).await;
        body(store.clone()).await;
        store.close().await;
    }
}

/// The URL with a schema of its own. The cluster is thrown away as a whole, and its schemas with it.
pub(super) fn schema_url() -> Option<String> {
    let url = std::env::var(POSTGRES_URL).ok().filter(|url| !url.is_empty())?;
    let join = if url.contains('?') { '&' } else { '?' };
    let schema = format!("t{}", Uuid::new_v4().simple());
    // The schema is made by the first connection, before anything else runs on it.
    create_schema(&url, &schema);
    Some(format!("{url}{join}options[search_path]={schema}&application_name={schema}"))
}

fn create_schema(url: &str, schema: &str) {
    let (url, statement) = (url.to_owned(), format!("CREATE SCHEMA {schema}"));
    let work = async move {
        use sqlx::{AnyConnection, Connection, Executor};
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await.unwrap();
        connection.close().await.unwrap();
    };
    // A runtime of its own: the caller may have paused the clock.
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(work)).join().unwrap();
}
