//! The store: every SQL statement of the master, on SQLite or PostgreSQL from one text. It holds changes, not live
//! state: presence is the fleet's. Files by subject; this one owns the pools, the transactions and their deadlines.
//!
//! What is acknowledged was committed with `synchronous=FULL` by [`Store::write`]. Last-seen, events and counters go
//! through [`Store::background`]: a power cut may lose the last of them, a killed process loses nothing.

pub mod agents;
pub mod audit;
pub mod backup;
pub mod enrolments;
mod error;
pub mod events;
pub mod idempotency;
pub mod keys;
pub mod labels;
mod migrations;
mod open;
pub mod operators;
mod pages;
pub mod pins;
pub mod retention;
pub mod sessions;
pub mod soundness;
mod sql;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod tunnels;
mod words;

use std::{sync::Arc, time::Duration};

use prometheus::HistogramTimer;
use proto::failpoint;
use sqlx::{
    Any, AnyConnection, AnyPool, Transaction,
    any::{AnyQueryResult, AnyRow},
    pool::PoolConnection,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

pub use error::StoreError;
pub use open::OpenError;
pub use pages::{LIMIT_DEFAULT, LIMIT_MAX, Page, Paged};
pub use sql::Sha256;
pub(crate) use words::words;

use crate::metrics::Metrics;
use audit::AuditEntry;
use sql::Sql;

/// Time for one operation, waiting for a connection and for locks included: a caller gets its 503 within a second.
const OPERATION_WITHIN: Duration = Duration::from_millis(900);
/// Time for an enrolment: 200 machines may come with one token at once, and the handshake has ten seconds.
const ENROLMENT_WITHIN: Duration = Duration::from_secs(5);
/// Ends of sessions that are written at once: hundreds may end in one moment, and callers' writes stand in the same queue.
const ENDS_AT_ONCE: usize = 4;
/// Time for work nobody waits for: pruning, verifying, the start.
const MAINTENANCE_WITHIN: Duration = Duration::from_secs(60);

/// The database. Clones share it.
#[derive(Clone)]
pub struct Store {
    pools: Arc<Pools>,
    ends: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

struct Pools {
    engine: Engine,
    /// Acknowledged writes. SQLite: one connection, `synchronous=FULL`.
    write: AnyPool,
    /// Writes whose loss in a power cut is harmless. SQLite: one connection, `synchronous=NORMAL`.
    background: AnyPool,
    read: AnyPool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

impl Store {
    pub fn agents(&self) -> agents::Agents<'_> {
        agents::Agents(self)
    }

    pub fn enrolments(&self) -> enrolments::Enrolments<'_> {
        enrolments::Enrolments(self)
    }

    pub fn keys(&self) -> keys::Keys<'_> {
        keys::Keys(self)
    }

    pub fn tunnels(&self) -> tunnels::Tunnels<'_> {
        tunnels::Tunnels(self)
    }

    pub fn tokens(&self) -> tokens::Tokens<'_> {
        tokens::Tokens(self)
    }

    pub fn operators(&self) -> operators::Operators<'_> {
        operators::Operators(self)
    }

    pub fn operator_sessions(&self) -> operators::OperatorSessions<'_> {
        operators::OperatorSessions(self)
    }

    pub fn events(&self) -> events::StoredEvents<'_> {
        events::StoredEvents(self)
    }

    pub fn sessions(&self) -> sessions::Sessions<'_> {
        sessions::Sessions(self)
    }

    pub fn pins(&self) -> pins::Pins<'_> {
        pins::Pins(self)
    }

    pub fn idempotency(&self) -> idempotency::Idempotency<'_> {
        idempotency::Idempotency(self)
    }

    /// Whether the database answers and may be written: for readiness.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut write = self.background("ping").await?;
        write.execute(Sql::new("UPDATE audit_head SET id = id WHERE id = 1")).await?;
        write.commit().await
    }

    /// Closes every connection, after what runs on it. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.pools.read.close().await;
        self.pools.background.close().await;
        self.pools.write.close().await;
    }

    /// A place among the ends that are written; busy where none comes free in time.
    async fn ending(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let place = timeout_at(Instant::now() + OPERATION_WITHIN, self.ends.acquire()).await;
        place.ok().and_then(Result::ok).ok_or(StoreError::Busy)
    }

    /// A transaction whose commit is on disk when it returns.
    async fn write(&self, operation: &'static str) -> Result<Write, StoreError> {
        self.begin(&self.pools.write, operation, OPERATION_WITHIN).await
    }

    async fn background(&self, operation: &'static str) -> Result<Write, StoreError> {
        self.begin(&self.pools.background, operation, OPERATION_WITHIN).await
    }

    async fn begin(&self, pool: &AnyPool, operation: &'static str, within: Duration) -> Result<Write, StoreError> {
        let timer = self.metrics.store_timer(operation);
        let deadline = Instant::now() + within;
        // IMMEDIATE: a transaction that reads first and writes later could otherwise fail half-way on the lock.
        let statement = match self.pools.engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN",
        };
        let transaction = bounded(deadline, pool.begin_with(statement)).await?;
        Ok(Write { transaction, operation, deadline, _timer: timer })
    }

    async fn read(&self, operation: &'static str) -> Result<Read, StoreError> {
        self.read_within(operation, OPERATION_WITHIN).await
    }

    async fn read_within(&self, operation: &'static str, within: Duration) -> Result<Read, StoreError> {
        let timer = self.metrics.store_timer(operation);
        let deadline = Instant::now() + within;
        let connection = bounded(deadline, self.pools.read.acquire()).await?;
        Ok(Read { connection, deadline, _timer: timer })
    }
}

/// One write transaction. Dropped uncommitted, it is rolled back.
struct Write {
    transaction: Transaction<'static, Any>,
    operation: &'static str,
    deadline: Instant,
    _timer: HistogramTimer,
}

impl Write {
    /// Returns how many rows were changed.
    async fn execute(&mut self, sql: Sql) -> Result<u64, StoreError> {
        let result: AnyQueryResult = bounded(self.deadline, sql.query().execute(&mut *self.transaction)).await?;
        Ok(result.rows_affected())
    }

    async fn row(&mut self, sql: Sql) -> Result<Option<AnyRow>, StoreError> {
        row(&mut self.transaction, self.deadline, sql).await
    }

    async fn rows(&mut self, sql: Sql) -> Result<Vec<AnyRow>, StoreError> {
        rows(&mut self.transaction, self.deadline, sql).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        failpoint::at(self.operation, "before_commit");
        bounded(self.deadline, self.transaction.commit()).await?;
        failpoint::at(self.operation, "after_commit");
        Ok(())
    }

    /// Writes the audit row last, so that its lock is always the last one taken, and commits both as one.
    async fn commit_audited(mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        audit::append(&mut self, entry).await?;
        self.commit().await
    }
}

/// One connection for reading.
struct Read {
    connection: PoolConnection<Any>,
    deadline: Instant,
    _timer: HistogramTimer,
}

impl Read {
    async fn row(&mut self, sql: Sql) -> Result<Option<AnyRow>, StoreError> {
        row(&mut self.connection, self.deadline, sql).await
    }

    async fn rows(&mut self, sql: Sql) -> Result<Vec<AnyRow>, StoreError> {
        rows(&mut self.connection, self.deadline, sql).await
    }
}

async fn row(connection: &mut AnyConnection, deadline: Instant, sql: Sql) -> Result<Option<AnyRow>, StoreError> {
    bounded(deadline, sql.query().fetch_optional(connection)).await
}

async fn rows(connection: &mut AnyConnection, deadline: Instant, sql: Sql) -> Result<Vec<AnyRow>, StoreError> {
    bounded(deadline, sql.query().fetch_all(connection)).await
}

async fn bounded<T>(deadline: Instant, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    timeout_at(deadline, work).await.map_err(|_| StoreError::Busy)?.map_err(StoreError::from)
}
