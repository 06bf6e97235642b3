//! Verifying the chain: recomputes every hash from the floor, where retention cut it, to the head. Must change nothing.

use super::{AuditEntry, BATCH, chain};
use crate::store::{
    MAINTENANCE_WITHIN, Read, Store, StoreError,
    sql::{Columns, Sql},
};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every row from `first` to `last` holds. An empty chain has a `last` before its `first`. `hash` is that of `last`:
    /// noted elsewhere, it shows later that the chain up to there is still the same one.
    Whole { first: u64, last: u64, hash: String },
    /// The first row that does not.
    Broken { seq: u64, why: &'static str },
}

/// Where the chain begins and ends.
struct Ends {
    floor: i64,
    floor_hash: String,
    end: i64,
    end_hash: String,
}

impl Store {
    /// Recomputes the whole chain.
    pub async fn verify_audit(&self) -> Result<Verdict, StoreError> {
        let mut read = self.read_within("audit.verify", MAINTENANCE_WITHIN).await?;
        loop {
            let Some(ends) = ends(&mut read).await? else { return Ok(broken(0, "the head row is gone")) };
            let verdict = walk(&mut read, &ends).await?;
            if matches!(verdict, Verdict::Whole { .. }) {
                return Ok(verdict);
            }
            // Retention may have cut rows off that were about to be read: then it is the rest that must hold.
            match self::ends(&mut read).await? {
                Some(now) if now.floor > ends.floor => {}
                _ => return Ok(verdict),
            }
        }
    }
}

async fn ends(read: &mut Read) -> Result<Option<Ends>, StoreError> {
    let Some(head) = read.row(Sql::new("SELECT * FROM audit_head WHERE id = 1")).await? else { return Ok(None) };
    let head = Columns(&head);
    Ok(Some(Ends {
        floor: head.int("floor_seq")?,
        floor_hash: head.text("floor_hash")?,
        end: head.int("seq")?,
        end_hash: head.text("hash")?,
    }))
}

/// The head may move on while rows are read: what is checked is the chain up to it.
async fn walk(read: &mut Read, ends: &Ends) -> Result<Verdict, StoreError> {
    let (mut seq, mut previous) = (ends.floor, ends.floor_hash.clone());
    while seq < ends.end {
        let sql = Sql::new("SELECT * FROM audit WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3");
        let batch = read.rows(sql.bind(seq).bind(ends.end).bind(BATCH)).await?;
        if batch.is_empty() {
            return Ok(broken(seq + 1, "rows are missing at the end"));
        }
        for row in &batch {
            seq += 1;
            if let Some(why) = fault(&Columns(row), seq, &previous)? {
                return Ok(broken(seq, why));
            }
            previous = Columns(row).text("hash")?;
        }
    }
    if previous != ends.end_hash {
        return Ok(broken(ends.end, "the head does not match the last row"));
    }
    Ok(Verdict::Whole { first: unsigned(ends.floor + 1), last: unsigned(ends.end), hash: previous })
}

/// Why this row does not continue the chain.
fn fault(row: &Columns<'_>, seq: i64, previous: &str) -> Result<Option<&'static str>, StoreError> {
    let body = row.text("body")?;
    let fault = if row.int("seq")? != seq {
        Some("a row before it is missing")
    } else if row.text("previous")? != previous {
        Some("it does not follow the row before it")
    } else if row.text("hash")? != chain(previous, &body) {
        Some("its body was changed")
    } else if !copied(row, &body)? {
        Some("its columns differ from its body")
    } else {
        None
    };
    Ok(fault)
}

/// Whether the columns say what the body says.
fn copied(row: &Columns<'_>, body: &str) -> Result<bool, StoreError> {
    let Ok(entry) = serde_json::from_str::<AuditEntry>(body) else { return Ok(false) };
    Ok(entry.at_ms == row.int("at_ms")?
        && entry.agent_id.map(|id| id.to_string()) == row.text_opt("agent_id")?
        && entry.actor == row.text("actor")?
        && entry.action == row.text("action")?
        && entry.result == row.text("result")?)
}

fn broken(seq: i64, why: &'static str) -> Verdict {
    Verdict::Broken { seq: unsigned(seq), why }
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
