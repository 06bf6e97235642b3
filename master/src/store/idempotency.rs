//! `Idempotency-Key`: the same request under the same key is done once, and answered again from here.

use super::{
    Sha256, Store, StoreError,
    sql::{Columns, Sql},
};

/// One keyed request.
#[derive(Debug, Clone)]
pub struct Keyed<'a> {
    /// The token's id.
    pub owner: &'a str,
    pub key: &'a str,
    /// Over method, path and body: the same key for another request is refused.
    pub request_sha256: Sha256,
}

/// What to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Do it, then [`Idempotency::finish`] or [`Idempotency::abandon`].
    New,
    /// It is being done, or was cut off in doing: its outcome is not known.
    InFlight,
    /// It was done; this was the answer.
    Done { status: u16, response: String },
    /// The key was used for another request.
    Mismatch,
}

/// The idempotency keys of a [`Store`].
#[derive(Clone, Copy)]
pub struct Idempotency<'a>(pub(super) &'a Store);

impl Idempotency<'_> {
    /// Claims the key, durably, or says what became of it.
    pub async fn begin(&self, request: &Keyed<'_>, now_ms: i64) -> Result<Begun, StoreError> {
        let mut write = self.0.write("idempotency.begin").await?;
        let sql = Sql::new(
            "INSERT INTO idempotency (owner, key, request_sha256, created_at_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (owner, key) DO NOTHING",
        );
        let sql = sql.bind(request.owner).bind(request.key).bind(&request.request_sha256).bind(now_ms);
        if write.execute(sql).await? == 1 {
            write.commit().await?;
            return Ok(Begun::New);
        }
        let sql = Sql::new("SELECT * FROM idempotency WHERE owner = $1 AND key = $2");
        let row = write.row(sql.bind(request.owner).bind(request.key)).await?;
        let Some(row) = row else { return Ok(Begun::InFlight) };
        let columns = Columns(&row);
        if columns.hash_opt("request_sha256")? != Some(request.request_sha256) {
            return Ok(Begun::Mismatch);
        }
        match (columns.unsigned_opt("status")?, columns.text_opt("response")?) {
            (Some(status), Some(response)) => Ok(Begun::Done { status, response }),
            _ => Ok(Begun::InFlight),
        }
    }

    /// Keeps the answer for those who ask again.
    pub async fn finish(&self, request: &Keyed<'_>, status: u16, response: &str) -> Result<(), StoreError> {
        let mut write = self.0.write("idempotency.finish").await?;
        let sql = Sql::new("UPDATE idempotency SET status = $1, response = $2 WHERE owner = $3 AND key = $4");
        write.execute(sql.bind(status).bind(response).bind(request.owner).bind(request.key)).await?;
        write.commit().await
    }

    /// Frees the key: nothing was done.
    pub async fn abandon(&self, request: &Keyed<'_>) -> Result<(), StoreError> {
        let mut write = self.0.write("idempotency.abandon").await?;
        let sql = Sql::new("DELETE FROM idempotency WHERE owner = $1 AND key = $2 AND status IS NULL");
        write.execute(sql.bind(request.owner).bind(request.key)).await?;
        write.commit().await
    }
}
