//! Opening the database: file modes, pools, pragmas, migrations.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::state::{self, StateError};
use secrecy::ExposeSecret;
use sqlx::{
    AnyConnection, AnyPool, Connection as _, Executor,
    any::{AnyPoolOptions, install_default_drivers},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{ENDS_AT_ONCE, Engine, MAINTENANCE_WITHIN, Pools, Store, migrations};
use crate::{config::Database, metrics::Metrics};

/// Connections for reading; SQLite's readers never wait for its writers.
const READERS: u32 = 4;
/// PostgreSQL connections for acknowledged writes, and for the rest.
const WRITERS: u32 = 8;
const BACKGROUND_WRITERS: u32 = 2;
/// Longest wait for a connection. Each operation has its own, shorter deadline; this one only bounds the pool's queue.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// How long SQLite waits for the other writer's lock; below the 900 ms of an operation, so that the cause is named.
const SQLITE_COMMON: &str = "PRAGMA busy_timeout = 800; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;";
const SQLITE_WRITE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";
const SQLITE_BACKGROUND: &str = "PRAGMA synchronous = NORMAL;";
const SQLITE_READ: &str = "PRAGMA query_only = ON;";
const POSTGRES_COMMON: &str = "SET lock_timeout = 800; SET statement_timeout = 60000; \
    SET idle_in_transaction_session_timeout = 60000;";
const POSTGRES_BACKGROUND: &str = "SET synchronous_commit = off;";

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Dir(#[from] StateError),
    #[error("cannot open {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} may be read by others (mode {mode:04o}); run: chmod 0600 {}", path.display(), path.display())]
    Lax { path: PathBuf, mode: u32 },
    #[error("the database cannot be opened")]
    Database(#[from] sqlx::Error),
    #[error("the database did not answer within {} s", MAINTENANCE_WITHIN.as_secs())]
    TimedOut,
    #[error("the database has {found} migrations, this build knows {known}; run the newer build")]
    TooNew { found: usize, known: usize },
    #[error(
        "migration {version} in this database is not the one of this build; it belongs to another program or build"
    )]
    ForeignSchema { version: i64 },
}

impl Store {
    /// Opens or creates the database and brings its schema up to date.
    pub async fn open(database: &Database, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        install_default_drivers();
        let opening = async {
            match database {
                Database::Sqlite(path) => sqlite(path).await,
                Database::Postgres(url) => postgres(url.expose_secret()).await,
            }
        };
        let pools = timeout(MAINTENANCE_WITHIN, opening).await.map_err(|_| OpenError::TimedOut)??;
        Ok(Self { pools: Arc::new(pools), ends: Arc::new(Semaphore::new(ENDS_AT_ONCE)), metrics })
    }
}

async fn sqlite(path: &Path) -> Result<Pools, OpenError> {
    prepare_file(path)?;
    let url = sqlite_url(path);
    let write = pool(1, &[SQLITE_COMMON, SQLITE_WRITE]).connect(&url).await?;
    migrations::apply(&mut *write.acquire().await?, Engine::Sqlite).await?;
    let background = pool(1, &[SQLITE_COMMON, SQLITE_BACKGROUND]).connect(&url).await?;
    // All of them from the start: a process without descriptors could open none later, and reading must not end by that.
    let read = pool(READERS, &[SQLITE_COMMON, SQLITE_READ]).min_connections(READERS).connect(&url).await?;
    Ok(Pools { engine: Engine::Sqlite, write, background, read })
}

async fn postgres(url: &str) -> Result<Pools, OpenError> {
    let checked = |size, setup| pool(size, setup).test_before_acquire(true);
    let write = checked(WRITERS, &[POSTGRES_COMMON]).connect(url).await?;
    migrations::apply(&mut *write.acquire().await?, Engine::Postgres).await?;
    let background = checked(BACKGROUND_WRITERS, &[POSTGRES_COMMON, POSTGRES_BACKGROUND]).connect(url).await?;
    let read: AnyPool = checked(READERS, &[POSTGRES_COMMON]).connect(url).await?;
    Ok(Pools { engine: Engine::Postgres, write, background, read })
}

fn pool(size: u32, setup: &'static [&'static str]) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_WITHIN)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(std::future::ready(Ok(is_usable(connection)))))
        .after_connect(move |connection, _| Box::pin(set_up(connection, setup)))
}

/// A full disk makes SQLite roll back by itself. The rollback that follows then fails, and the library takes the connection
/// for one in a transaction for ever: nothing could begin on it again. Such a one is closed and another opened.
fn is_usable(connection: &AnyConnection) -> bool {
    !connection.is_in_transaction()
}

async fn set_up(connection: &mut AnyConnection, setup: &'static [&'static str]) -> Result<(), sqlx::Error> {
    for text in setup {
        connection.execute(sqlx::raw_sql(*text)).await?;
    }
    Ok(())
}

/// A missing folder is made closed; one that exists is its owner's business. Creates the file 0600 before SQLite would with a wider mode (its `-wal` and `-shm` take the file's mode), and refuses
/// one that others may read.
fn prepare_file(path: &Path) -> Result<(), OpenError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.exists() {
        state::open_dir(dir)?;
    }
    let fail = |source| OpenError::File { path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(fail(error)),
    }
    let mode = fs::metadata(path).map_err(fail)?.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(OpenError::Lax { path: path.to_owned(), mode }) }
}

/// The path as a URL: everything but plain characters percent-encoded, so that `?` and `#` in a folder name stay a name.
pub(super) fn sqlite_url(path: &Path) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-') {
            url.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url + "?mode=rw"
}
