//! The engines themselves: modes, durability settings, locks, a full disk, and the schema as it was released.

use std::{
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::Row;

use super::*;
use crate::{
    config::Database,
    metrics::Metrics,
    store::{
        Engine, OpenError, Page, StoreError,
        agents::{AgentFilter, AgentStatus},
        audit::Verdict,
        testing::{on_both, open, sqlite},
    },
};

async fn number(pool: &sqlx::AnyPool, pragma: &'static str) -> i64 {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query(pragma).fetch_one(&mut *connection).await.unwrap().get::<i64, _>(0)
}

#[tokio::test]
async fn sqlite_is_as_durable_as_it_says() {
    let (dir, store) = sqlite().await;
    assert_eq!(number(&store.pools.write, "PRAGMA synchronous").await, 2, "FULL");
    assert_eq!(number(&store.pools.background, "PRAGMA synchronous").await, 1, "NORMAL");
    add(&store, "a", &[]).await;
    for file in ["landline.db", "landline.db-wal", "landline.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let (dir, store) = sqlite().await;
    add(&store, "a", &[]).await;
    store.close().await;
    assert!(matches!(store.agents().find(&id("a")).await, Err(StoreError::Unavailable(_))));
    let store = open(&Database::Sqlite(dir.path().join("landline.db"))).await;
    assert!(store.agents().find(&id("a")).await.unwrap().is_some());
    store.ping().await.unwrap();
}

#[tokio::test]
async fn lax_modes_and_odd_paths() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a b?mode=memory#%41 é");
    let path = odd.join("landline.db");
    let store = open(&Database::Sqlite(path.clone())).await;
    add(&store, "a", &[]).await;
    store.close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Store::open(&Database::Sqlite(path), Arc::new(Metrics::new().unwrap())).await.err().unwrap();
    assert!(matches!(error, OpenError::Lax { .. }) && error.to_string().contains("chmod 0600"), "{error}");
    let below_a_file = dir.path().join("file").join("landline.db");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = Store::open(&Database::Sqlite(below_a_file), Arc::new(Metrics::new().unwrap())).await.err();
    assert!(matches!(error, Some(OpenError::File { .. })), "{error:?}");
}

#[tokio::test]
async fn a_locked_database_is_busy_within_a_second_and_then_works() {
    let (_dir, store) = sqlite().await;
    let mut blocker = store.pools.background.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("UPDATE audit_head SET id = id").execute(&mut *blocker).await.unwrap();
    let started = Instant::now();
    let error = store.agents().add(new_agent("a", &[]), &entry("x")).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(error.to_string().contains("busy"), "{error}");
    // Readers do not notice.
    assert!(store.agents().find(&id("a")).await.unwrap().is_none());
    blocker.rollback().await.unwrap();
    add(&store, "a", &[]).await;
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_leaves_nothing_behind() {
    let (_dir, store) = sqlite().await;
    add(&store, "a", &[]).await;
    let mut connection = store.pools.write.acquire().await.unwrap();
    // The bound is the connection's: the pool has only this one.
    sqlx::raw_sql("PRAGMA max_page_count = 1").execute(&mut *connection).await.unwrap();
    drop(connection);
    let mut full = false;
    for number in 0..2_000 {
        match store.audit(&entry("x").detail(serde_json::json!("x".repeat(4_000)))).await {
            Ok(()) => {}
            Err(StoreError::Full) => {
                full = true;
                break;
            }
            Err(error) => panic!("after {number}: {error:?}"),
        }
    }
    assert!(full);
    assert!(matches!(store.verify_audit().await.unwrap(), Verdict::Whole { .. }));
    assert_eq!(store.agents().list(&AgentFilter::default(), &Page::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_write_dropped_half_way_is_rolled_back() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        let mut write = store.write("test").await.unwrap();
        write.execute(Sql::new("DELETE FROM agents")).await.unwrap();
        drop(write);
        add(&store, "b", &[]).await;
        let listed = store.agents().list(&AgentFilter::default(), &Page::default()).await.unwrap();
        assert_eq!(listed.items.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_lost_postgresql_connection_is_made_again() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        if store.pools.engine == Engine::Sqlite {
            return;
        }
        let mut connection = store.pools.read.acquire().await.unwrap();
        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
            AND application_name = current_setting('application_name')";
        sqlx::query(end).fetch_one(&mut *connection).await.unwrap();
        drop(connection);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while store.agents().set_status(&id("a"), AgentStatus::Suspended, &entry("x")).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "not back in time");
        }
        assert!(store.agents().find(&id("a")).await.unwrap().is_some());
        assert!(matches!(store.verify_audit().await.unwrap(), Verdict::Whole { .. }));
    })
    .await;
}

#[tokio::test]
async fn two_masters_may_open_one_database_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::Sqlite(dir.path().join("landline.db"));
    let (one, two) = tokio::join!(open(&database), open(&database));
    add(&one, "a", &[]).await;
    assert!(two.agents().find(&id("a")).await.unwrap().is_some());
}

/// The schema that the migrations give. A change here without a new migration is a change of a released one.
#[tokio::test]
async fn the_schema_is_the_one_on_record() {
    let (_dir, store) = sqlite().await;
    let mut read = store.read("test").await.unwrap();
    let rows = read.rows(Sql::new("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name")).await;
    let schema: Vec<String> = rows.unwrap().iter().map(|row| row.get::<String, _>(0)).collect();
    insta::assert_snapshot!(schema.join(";\n\n"));
}
