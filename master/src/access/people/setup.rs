//! The first admin: a one-time link, good while no admin was ever made, and gone for ever afterwards (SECURITY R18).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{
    super::{Principal, Role, Selector, tokens::hash},
    LoggedIn, LoginError, NewPerson, People, PersonError, Sender, told,
};
use crate::store::{
    Store, StoreError,
    audit::Actor,
    operators::{AddOperatorError, Made},
};

const SECRET_BYTES: usize = 32;

/// Whether setup is open, and the hash of the link's secret. The secret lives as long as the process: each start prints
/// a new link.
pub(super) struct Setup {
    over: AtomicBool,
    sha256: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An admin was made: nothing is here any more.
    #[error("there is nothing here")]
    Over,
    #[error("this is not the link of this start; the master's log has it")]
    WrongToken,
    #[error(transparent)]
    Person(#[from] PersonError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl Setup {
    pub(super) async fn start(store: &Store) -> Result<(Self, Option<SecretString>), StoreError> {
        let over = store.operators().setup_is_over().await?;
        let bytes: [u8; SECRET_BYTES] = rand::random();
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
        let setup = Self { over: AtomicBool::new(over), sha256: hash(secret.expose_secret()) };
        Ok((setup, (!over).then_some(secret)))
    }

    pub(super) fn is_over_now(&self) {
        self.over.store(true, Ordering::Release);
    }
}

impl People {
    /// Whether the setup route exists.
    pub fn setup_is_open(&self) -> bool {
        !self.setup.over.load(Ordering::Acquire)
    }

    /// Makes the first admin and logs them in.
    pub async fn set_up(
        &self,
        token: &SecretString,
        name: String,
        password: SecretString,
        sender: &Sender,
        now_ms: i64,
    ) -> Result<LoggedIn, SetupError> {
        if !self.setup_is_open() {
            return Err(SetupError::Over);
        }
        if !bool::from(hash(token.expose_secret()).ct_eq(&self.setup.sha256)) {
            self.slow(None, sender).await;
            return Err(SetupError::WrongToken);
        }
        let new = NewPerson { name, password, role: Role::Admin, selector: Selector::default() };
        let person = self.account(new, now_ms).await?;
        let audit = sender.stamp(Actor::Local.did("operator.setup")).object(&person.id).detail(told(&person));
        match self.store.operators().add(&person, Made::BySetup, &audit).await {
            Ok(()) => self.setup.is_over_now(),
            Err(AddOperatorError::SetupOver) => {
                self.setup.is_over_now();
                return Err(SetupError::Over);
            }
            Err(AddOperatorError::Exists) => return Err(PersonError::Exists.into()),
            Err(AddOperatorError::Store(error)) => return Err(PersonError::Store(error).into()),
        }
        Ok(self.begin(person, sender, now_ms).await?)
    }
}

/// So that the type of what is believed stands in one place.
pub(super) type Believed = Arc<Principal>;
