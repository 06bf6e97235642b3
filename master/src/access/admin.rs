//! The local admin token: `<data>/admin.token`, 0600, made on first start. Whoever can read it owns the host anyway.

use std::path::{Path, PathBuf};

use certs::state::{self, StateError};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    Permissions,
    tokens::{generate, hash},
};
use crate::store::{Store, StoreError, audit::Actor, tokens::ApiToken};

pub const ADMIN_TOKEN_FILE: &str = "admin.token";

#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    #[error(transparent)]
    File(#[from] StateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that the file holds a token this store knows and has not revoked; writes a new one if not.
pub async fn ensure_admin_token(store: &Store, data_dir: &Path, now_ms: i64) -> Result<PathBuf, AdminTokenError> {
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    if let Some(bytes) = state::read_secret(&path)? {
        let secret = SecretString::from(String::from_utf8_lossy(&bytes).trim());
        let known = store.tokens().by_sha256(&hash(secret.expose_secret())).await?;
        if let Some(token) = known.filter(|token| token.revoked_at_ms.is_none()) {
            let all = Permissions::all().to_string();
            if token.permissions != all {
                // Made by a version that knew fewer.
                store.tokens().widen(&token.id, &all, &Actor::Local.did("token.widen").object(&token.id)).await?;
            }
            return Ok(path);
        }
    }
    let secret = generate();
    let token = ApiToken {
        id: Uuid::new_v4().to_string(),
        name: "admin".to_owned(),
        sha256: hash(secret.expose_secret()),
        permissions: Permissions::all().to_string(),
        selector: String::new(),
        created_by: "local".to_owned(),
        created_at_ms: now_ms,
        expires_at_ms: None,
        revoked_at_ms: None,
        operator_id: None,
    };
    // The file first: a crash between the two leaves a file that grants nothing and is replaced at the next start.
    state::write_secret(&path, format!("{}\n", secret.expose_secret()).as_bytes())?;
    store.tokens().add(&token, &Actor::Local.did("token.create").object(&token.id)).await?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Access, clock::unix_ms, store::testing::sqlite};

    #[tokio::test]
    async fn the_admin_token_is_made_once_and_again_when_lost_or_revoked() {
        let (dir, store) = sqlite().await;
        let data = dir.path();
        let read = || std::fs::read_to_string(data.join(ADMIN_TOKEN_FILE)).unwrap().trim().to_owned();
        ensure_admin_token(&store, data, unix_ms()).await.unwrap();
        let first = read();
        ensure_admin_token(&store, data, unix_ms()).await.unwrap();
        assert_eq!(read(), first);
        let access = Access::new(store.clone(), crate::config::Access::default());
        let admin = access.authenticate(&first, unix_ms()).await.unwrap();
        assert_eq!((&admin.permissions, admin.selector.is_everything()), (&Permissions::all(), true));
        access.revoke(admin.id(), unix_ms(), Actor::Local.did("token.revoke")).await.unwrap();
        ensure_admin_token(&store, data, unix_ms()).await.unwrap();
        assert_ne!(read(), first);
        assert!(access.authenticate(&first, unix_ms()).await.is_err());
        assert!(access.authenticate(&read(), unix_ms()).await.is_ok());
    }
}
