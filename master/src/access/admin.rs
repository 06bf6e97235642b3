//! The local admin token: `<data>/admin.token`, 0600, made on first start. Whoever can read it owns the host anyway.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

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
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is open to others (mode {mode:o}); run: chmod 600 {path}")]
    Lax { path: PathBuf, mode: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes sure that the file holds a token this store knows and has not revoked; writes a new one if not.
pub async fn ensure_admin_token(store: &Store, data_dir: &Path, now_ms: i64) -> Result<PathBuf, AdminTokenError> {
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    if let Some(secret) = read(&path)? {
        let known = store.tokens().by_sha256(&hash(secret.expose_secret())).await?;
        if known.is_some_and(|token| token.revoked_at_ms.is_none()) {
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
    };
    // The file first: a crash between the two leaves a file that grants nothing and is replaced at the next start.
    write(&path, secret.expose_secret()).map_err(|source| AdminTokenError::File { path: path.clone(), source })?;
    store.tokens().add(&token, &Actor::Local.did("token.create").object(&token.id)).await?;
    Ok(path)
}

fn read(path: &Path) -> Result<Option<SecretString>, AdminTokenError> {
    let fail = |source| AdminTokenError::File { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mode = fs::metadata(path).map_err(fail)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(AdminTokenError::Lax { path: path.to_owned(), mode });
    }
    Ok(Some(SecretString::from(text.trim())))
}

fn write(path: &Path, secret: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
