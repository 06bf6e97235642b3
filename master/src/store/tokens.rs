//! API tokens as rows: hashed, scoped, expiring. What their words mean is `access`'s business.

use sqlx::any::AnyRow;

use super::{
    Page, Paged, Sha256, Store, StoreError,
    audit::AuditEntry,
    sql::{Columns, Sql},
};

/// One API token. The secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Random.
    pub id: String,
    pub name: String,
    pub sha256: Sha256,
    /// Words of `access::Permission`, joined by spaces.
    pub permissions: String,
    /// Text of a selector; empty for every agent.
    pub selector: String,
    /// Id of the creating token, or `local` for one made on the master's host.
    pub created_by: String,
    pub created_at_ms: i64,
    /// `None` never runs out: only the local admin token.
    pub expires_at_ms: Option<i64>,
    pub revoked_at_ms: Option<i64>,
    /// The person on whose behalf it was made, through however many tokens.
    pub operator_id: Option<String>,
}

/// The tokens of a [`Store`].
#[derive(Clone, Copy)]
pub struct Tokens<'a>(pub(super) &'a Store);

impl Tokens<'_> {
    pub async fn add(&self, token: &ApiToken, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut write = self.0.write("tokens.add").await?;
        let sql = Sql::new(
            "INSERT INTO tokens (id, name, secret_sha256, permissions, selector, created_by, created_at_ms, expires_at_ms,
             operator_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        );
        let sql = sql.bind(&token.id).bind(&token.name).bind(&token.sha256).bind(&token.permissions);
        let sql = sql.bind(&token.selector).bind(&token.created_by).bind(token.created_at_ms).bind(token.expires_at_ms);
        write.execute(sql.bind(&token.operator_id)).await?;
        write.commit_audited(audit).await
    }

    pub async fn find(&self, id: &str) -> Result<Option<ApiToken>, StoreError> {
        let mut read = self.0.read("tokens.find").await?;
        read.row(Sql::new("SELECT * FROM tokens WHERE id = $1").bind(id)).await?.as_ref().map(token).transpose()
    }

    /// By the hash of what a caller showed; revoked and expired ones too.
    pub async fn by_sha256(&self, sha256: &Sha256) -> Result<Option<ApiToken>, StoreError> {
        let mut read = self.0.read("tokens.by_sha256").await?;
        let sql = Sql::new("SELECT * FROM tokens WHERE secret_sha256 = $1").bind(sha256);
        read.row(sql).await?.as_ref().map(token).transpose()
    }

    /// Newest first, revoked and expired ones included until retention takes them; all, or one person's.
    pub async fn list(&self, of: Option<&str>, page: &Page) -> Result<Paged<ApiToken>, StoreError> {
        let mut sql = Sql::new("SELECT * FROM tokens WHERE 1 = 1");
        if let Some(operator) = of {
            sql = sql.push(" AND operator_id = ").push_bind(operator);
        }
        if let Some((at_ms, id)) = page.after()? {
            sql = sql.push(" AND (created_at_ms < ").push_bind(at_ms).push(" OR (created_at_ms = ").push_bind(at_ms);
            sql = sql.push(" AND id < ").push_bind(id).push("))");
        }
        sql = sql.push(" ORDER BY created_at_ms DESC, id DESC LIMIT ").push_bind(page.rows() + 1);
        let mut read = self.0.read("tokens.list").await?;
        let tokens = read.rows(sql).await?.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        Ok(Paged::cut(tokens, page, |token| (token.created_at_ms, token.id.clone())))
    }

    /// Gives a token of this host what later versions added to what there is to hold.
    pub async fn widen(&self, id: &str, permissions: &str, audit: &AuditEntry) -> Result<(), StoreError> {
        let mut write = self.0.write("tokens.widen").await?;
        let sql = Sql::new("UPDATE tokens SET permissions = $1 WHERE id = $2");
        write.execute(sql.bind(permissions).bind(id)).await?;
        write.commit_audited(audit).await
    }

    /// False if there is no such token or it is revoked already.
    pub async fn revoke(&self, id: &str, now_ms: i64, audit: &AuditEntry) -> Result<bool, StoreError> {
        let mut write = self.0.write("tokens.revoke").await?;
        let sql = Sql::new("UPDATE tokens SET revoked_at_ms = $1 WHERE id = $2 AND revoked_at_ms IS NULL");
        if write.execute(sql.bind(now_ms).bind(id)).await? == 0 {
            return Ok(false);
        }
        write.commit_audited(audit).await.map(|()| true)
    }
}

fn token(row: &AnyRow) -> Result<ApiToken, StoreError> {
    let columns = Columns(row);
    Ok(ApiToken {
        id: columns.text("id")?,
        name: columns.text("name")?,
        sha256: columns.hash_opt("secret_sha256")?.unwrap_or_default(),
        permissions: columns.text("permissions")?,
        selector: columns.text("selector")?,
        created_by: columns.text("created_by")?,
        created_at_ms: columns.int("created_at_ms")?,
        expires_at_ms: columns.int_opt("expires_at_ms")?,
        revoked_at_ms: columns.int_opt("revoked_at_ms")?,
        operator_id: columns.text_opt("operator_id")?,
    })
}
