//! People as rows. What a role means and how a password is checked is `access`'s business; that there is always an admin
//! and that none is made twice by setup is kept here, where it is one transaction.

mod sessions;
mod types;

pub use sessions::OperatorSessions;
pub use types::{
    AddOperatorError, ChangeOperatorError, Made, Operator, OperatorChange, OperatorSession, RemoveOperatorError,
};

use super::{
    Page, Paged, Store, StoreError, Write,
    audit::AuditEntry,
    sql::{Columns, Sql},
};

/// The word of the role that may do everything; the store counts those who have it for the whole fleet.
pub const ADMIN: &str = "admin";

/// The people of a [`Store`].
#[derive(Clone, Copy)]
pub struct Operators<'a>(pub(super) &'a Store);

impl Operators<'_> {
    /// Adds one. The first admin ends setup, however it was made.
    pub async fn add(&self, operator: &Operator, made: Made, audit: &AuditEntry) -> Result<(), AddOperatorError> {
        let mut write = self.0.write("operators.add").await?;
        lock(&mut write).await?;
        if operator.role == ADMIN {
            let sql = Sql::new("UPDATE setup SET admin_made_at_ms = $1 WHERE id = 1 AND admin_made_at_ms IS NULL");
            let first = write.execute(sql.bind(operator.created_at_ms)).await? == 1;
            if made == Made::BySetup && !first {
                return Err(AddOperatorError::SetupOver);
            }
        }
        let sql = Sql::new(
            "INSERT INTO operators (id, name, role, selector, password, totp_step, created_at_ms)
             VALUES ($1, $2, $3, $4, $5, 0, $6)",
        );
        let sql = sql.bind(&operator.id).bind(&operator.name).bind(&operator.role).bind(&operator.selector);
        write.execute(sql.bind(&operator.password).bind(operator.created_at_ms)).await?;
        Ok(write.commit_audited(audit).await?)
    }

    /// Whether an admin was ever made: then setup is over for ever.
    pub async fn setup_is_over(&self) -> Result<bool, StoreError> {
        let mut read = self.0.read("operators.setup").await?;
        let row = read.row(Sql::new("SELECT admin_made_at_ms FROM setup WHERE id = 1")).await?;
        // A row that is gone never opens it again.
        row.map_or(Ok(true), |row| Ok(Columns(&row).int_opt("admin_made_at_ms")?.is_some()))
    }

    pub async fn find(&self, id: &str) -> Result<Option<Operator>, StoreError> {
        let mut read = self.0.read("operators.find").await?;
        read.row(Sql::new("SELECT * FROM operators WHERE id = $1").bind(id)).await?.as_ref().map(operator).transpose()
    }

    pub async fn by_name(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        let mut read = self.0.read("operators.by_name").await?;
        let sql = Sql::new("SELECT * FROM operators WHERE name = $1").bind(name);
        read.row(sql).await?.as_ref().map(operator).transpose()
    }

    /// Newest first.
    pub async fn list(&self, page: &Page) -> Result<Paged<Operator>, StoreError> {
        let mut sql = Sql::new("SELECT * FROM operators");
        if let Some((at_ms, id)) = page.after()? {
            sql = sql.push(" WHERE created_at_ms < ").push_bind(at_ms).push(" OR (created_at_ms = ").push_bind(at_ms);
            sql = sql.push(" AND id < ").push_bind(id).push(")");
        }
        sql = sql.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(page.rows() + 1);
        let mut read = self.0.read("operators.list").await?;
        let operators = read.rows(sql).await?.iter().map(operator).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(operators, page, |operator| (operator.created_at_ms, operator.id.clone())))
    }

    /// Changes what is given. A new password, or TOTP taken off, ends every session but `kept`.
    pub async fn change(
        &self,
        id: &str,
        change: &OperatorChange,
        kept: Option<&str>,
        audit: &AuditEntry,
    ) -> Result<(), ChangeOperatorError> {
        let mut write = self.0.write("operators.change").await?;
        lock(&mut write).await?;
        let sql = Sql::new(
            "UPDATE operators SET role = COALESCE($1, role), selector = COALESCE($2, selector),
             password = COALESCE($3, password) WHERE id = $4",
        );
        let sql = sql.bind(&change.role).bind(&change.selector).bind(&change.password).bind(id);
        if write.execute(sql).await? == 0 {
            return Err(ChangeOperatorError::Unknown);
        }
        if change.totp_off {
            let sql = Sql::new("UPDATE operators SET totp_secret = NULL, totp_pending = NULL WHERE id = $1");
            write.execute(sql.bind(id)).await?;
        }
        if (change.role.is_some() || change.selector.is_some()) && !admin_is_left(&mut write).await? {
            return Err(ChangeOperatorError::LastAdmin);
        }
        if change.password.is_some() || change.totp_off {
            let sql = Sql::new("DELETE FROM operator_sessions WHERE operator_id = $1 AND id <> $2");
            write.execute(sql.bind(id).bind(kept.unwrap_or_default())).await?;
        }
        Ok(write.commit_audited(audit).await?)
    }

    /// Removes one, with its sessions; its tokens are revoked.
    pub async fn remove(&self, id: &str, now_ms: i64, audit: &AuditEntry) -> Result<(), RemoveOperatorError> {
        let mut write = self.0.write("operators.remove").await?;
        lock(&mut write).await?;
        let row = write.row(Sql::new("SELECT role FROM operators WHERE id = $1").bind(id)).await?;
        let Some(row) = row else { return Err(RemoveOperatorError::Unknown) };
        let was_admin = Columns(&row).text("role")? == ADMIN;
        write.execute(Sql::new("DELETE FROM operators WHERE id = $1").bind(id)).await?;
        if was_admin && !admin_is_left(&mut write).await? {
            return Err(RemoveOperatorError::LastAdmin);
        }
        write.execute(Sql::new("DELETE FROM operator_sessions WHERE operator_id = $1").bind(id)).await?;
        let sql = Sql::new("UPDATE tokens SET revoked_at_ms = $1 WHERE operator_id = $2 AND revoked_at_ms IS NULL");
        write.execute(sql.bind(now_ms).bind(id)).await?;
        Ok(write.commit_audited(audit).await?)
    }

    /// Takes the code of a time step, once. False if it, or a later one, was taken before.
    pub async fn take_step(&self, id: &str, step: i64) -> Result<bool, StoreError> {
        let mut write = self.0.write("operators.take_step").await?;
        let sql = Sql::new("UPDATE operators SET totp_step = $1 WHERE id = $2 AND totp_step < $3");
        if write.execute(sql.bind(step).bind(id).bind(step)).await? == 0 {
            return Ok(false);
        }
        write.commit().await.map(|()| true)
    }

    /// Keeps a TOTP secret that is not in force yet. False if TOTP is on, or nobody has this id.
    pub async fn offer_totp(&self, id: &str, secret: &str) -> Result<bool, StoreError> {
        let mut write = self.0.write("operators.offer_totp").await?;
        let sql = Sql::new("UPDATE operators SET totp_pending = $1 WHERE id = $2 AND totp_secret IS NULL");
        let offered = write.execute(sql.bind(secret).bind(id)).await? == 1;
        write.commit().await.map(|()| offered)
    }

    /// Puts the offered secret in force, the code of `step` being taken by it. False if another one is offered by now.
    pub async fn turn_totp_on(
        &self,
        id: &str,
        secret: &str,
        step: i64,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let mut write = self.0.write("operators.turn_totp_on").await?;
        let sql = Sql::new(
            "UPDATE operators SET totp_secret = totp_pending, totp_pending = NULL, totp_step = $1
             WHERE id = $2 AND totp_pending = $3 AND totp_secret IS NULL",
        );
        if write.execute(sql.bind(step).bind(id).bind(secret)).await? == 0 {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }
}

/// Puts all changes of people in one order, on PostgreSQL too: two admins who remove each other must not both succeed.
async fn lock(write: &mut Write) -> Result<(), StoreError> {
    write.execute(Sql::new("UPDATE setup SET id = id WHERE id = 1")).await.map(drop)
}

/// One narrowed by a selector cannot manage people, so it does not count.
async fn admin_is_left(write: &mut Write) -> Result<bool, StoreError> {
    let sql = Sql::new("SELECT id FROM operators WHERE role = $1 AND selector = '' LIMIT 1").bind(ADMIN);
    Ok(write.row(sql).await?.is_some())
}

pub(super) fn operator(row: &sqlx::any::AnyRow) -> Result<Operator, StoreError> {
    let columns = Columns(row);
    Ok(Operator {
        id: columns.text("id")?,
        name: columns.text("name")?,
        role: columns.text("role")?,
        selector: columns.text("selector")?,
        password: columns.text("password")?,
        totp_secret: columns.text_opt("totp_secret")?,
        totp_pending: columns.text_opt("totp_pending")?,
        created_at_ms: columns.int("created_at_ms")?,
        last_login_at_ms: columns.int_opt("last_login_at_ms")?,
    })
}
