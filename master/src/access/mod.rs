//! Who may do what: API tokens, people and their sessions, the principal behind a call, one deny-by-default decision, and the limiter of failed
//! attempts. Knows no HTTP and no agent protocol.

mod admin;
mod authorise;
mod limiter;
mod people;
mod permission;
mod places;
mod principal;
mod role;
mod sessions;
mod tokens;

pub use admin::{ADMIN_TOKEN_FILE, AdminTokenError, ensure_admin_token};
pub use authorise::{Action, Denied, Object, authorise};
pub use limiter::{Limiter, TooMany};
pub use people::{
    BadPassword, HashError, LoggedIn, Login, LoginError, NewPerson, PASSWORD_MAX, PASSWORD_MIN, People, PersonChange,
    PersonError, Proof, ProofError, Sender, SetupError, TotpOffer,
};
pub use permission::{BadPermission, Permission, Permissions};
pub use places::{Place, Places};
pub use principal::{Principal, Session, Socket, Who};
pub use role::Role;
pub use tokens::{Access, AuthError, CreateTokenError, CreatedToken, TokenRequest};

pub use crate::store::labels::{BadLabels, Labels, Selector};
