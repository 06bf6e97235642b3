//! Passwords: which are acceptable, and argon2id. Hashing is slow on purpose, so a bounded number runs at once and a
//! bounded number waits: a flood of logins costs one core and 19 MiB, and the rest is told to come back.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Shortest password, characters; the only rule beside the longest, bytes.
pub const LENGTH_MIN: usize = 10;
pub const LENGTH_MAX: usize = 256;

/// What OWASP gives as the least for argon2id: 19 MiB, two rounds, one lane; some 20 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const ROUNDS: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Hashes at once, and callers that wait for their turn.
const AT_ONCE: usize = 1;
const WAITING_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    #[error("the password has {0} characters; it needs at least {LENGTH_MIN}, of any kind: a few words do well")]
    Short(usize),
    #[error("the password has {0} bytes; {LENGTH_MAX} are the most")]
    Long(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("too many passwords are being checked; try again")]
    Busy,
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// Whether a new password is acceptable.
pub(super) fn check_password(password: &str) -> Result<(), BadPassword> {
    if password.len() > LENGTH_MAX {
        return Err(BadPassword::Long(password.len()));
    }
    let characters = password.chars().count();
    if characters < LENGTH_MIN { Err(BadPassword::Short(characters)) } else { Ok(()) }
}

/// Hashes passwords, a bounded number at once.
#[derive(Debug)]
pub(super) struct Hasher {
    places: Semaphore,
    turns: Arc<Semaphore>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self { places: Semaphore::new(WAITING_MAX), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The password in PHC form, under a salt of its own.
    pub(super) async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        let salt: [u8; SALT_BYTES] = rand::random();
        let work = move || argon2()?.hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
        let hash = self.run(move || work().map(|hash| hash.to_string())).await?;
        hash.map_err(|error| HashError::Failed(error.to_string()))
    }

    /// Whether it is the password of this hash. Without a hash the work is the same and the answer is no: how long it
    /// takes tells nobody which names there are.
    pub(super) async fn verify(&self, password: SecretString, hash: Option<String>) -> Result<bool, HashError> {
        self.run(move || {
            let password = password.expose_secret().as_bytes();
            let Ok(argon2) = argon2() else { return false };
            match hash.as_deref().map(PasswordHash::new) {
                Some(Ok(hash)) => argon2.verify_password(password, &hash).is_ok(),
                Some(Err(_)) | None => {
                    let _ = argon2.hash_password_with_salt(password, &[0; SALT_BYTES]);
                    false
                }
            }
        })
        .await
    }

    /// A caller that leaves gives up its place; what runs already runs to its end, in its turn.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashError> {
        let _place = self.places.try_acquire().map_err(|_| HashError::Busy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| HashError::Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.map_err(|error| HashError::Failed(error.to_string()))
    }
}

fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, ROUNDS, LANES, None).map_err(argon2::password_hash::Error::from)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn length_is_the_only_rule() {
        assert_eq!(check_password("short"), Err(BadPassword::Short(5)));
        assert_eq!(check_password(&"x".repeat(257)), Err(BadPassword::Long(257)));
        for good in ["aaaaaaaaaa", "ééééééééöö", "a few words do well", &"x".repeat(256)] {
            assert_eq!(check_password(good), Ok(()), "{good}");
        }
    }

    #[tokio::test]
    async fn hashes_are_argon2id_and_tell_passwords_apart() {
        let hasher = Hasher::new();
        let hash = hasher.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hasher.hash(secret("correct horse")).await.unwrap(), "each has its own salt");
        assert!(hasher.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify(secret("correct horsf"), Some(hash)).await.unwrap());
        assert!(!hasher.verify(secret("correct horse"), None).await.unwrap());
        assert!(!hasher.verify(secret("correct horse"), Some("no hash".to_owned())).await.unwrap());
    }

    #[tokio::test]
    async fn a_flood_is_bounded() {
        let hasher = Arc::new(Hasher::new());
        let tries: Vec<_> = (0..200)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.verify(secret("x"), None).await })
            })
            .collect();
        let mut busy = 0;
        for attempt in tries {
            busy += usize::from(matches!(attempt.await.unwrap(), Err(HashError::Busy)));
        }
        assert!(busy >= 200 - 2 * WAITING_MAX, "{busy} of 200 were sent away");
        assert!(hasher.verify(secret("x"), None).await.is_ok(), "and then it goes on");
    }
}
