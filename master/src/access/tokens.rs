//! Tokens: making one (never above its creator, SECURITY R17), recognising one, and forgetting it fast when revoked.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Permissions, Principal, Selector, Who, sessions::granted};
use crate::{
    clock::millis,
    config,
    store::{Store, StoreError, audit::AuditEntry, operators::Operator, tokens::ApiToken},
};

/// First characters of every token: lets scanners of leaked secrets find ours.
pub(super) const PREFIX: &str = "llt_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Longest name of a token, bytes.
const NAME_MAX: usize = 100;
/// How long a recognised token is believed without asking the store: another node's revocation holds after this.
const BELIEVED: Duration = Duration::from_secs(3);
/// Recognised tokens kept. Only good ones are, so that no guessing fills it.
const KEPT: u64 = 10_000;

/// What a new token should hold.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub name: String,
    pub permissions: Permissions,
    /// Joined with the creator's.
    pub selector: Selector,
    /// From now; `None` takes the longest allowed.
    pub ttl: Option<Duration>,
}

/// A new token. The secret is shown once and is nowhere else.
#[derive(Debug)]
pub struct CreatedToken {
    pub token: ApiToken,
    pub secret: SecretString,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    #[error("a token's name has 1 to {NAME_MAX} characters")]
    Name,
    #[error("a token needs at least one permission")]
    NoPermission,
    #[error("beyond the creating token's own permissions: {0}")]
    Permissions(Permissions),
    #[error("a token may live at most {} s here", .0.as_secs())]
    TooLong(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Unknown, revoked or expired: told apart for nobody.
    #[error("the token is not valid")]
    Invalid,
    /// The store cannot be asked: nobody new gets in.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Recognises callers. Clones share the cache.
#[derive(Clone)]
pub struct Access {
    pub(super) store: Store,
    pub(super) settings: config::Access,
    believed: Cache<[u8; 32], Arc<Principal>>,
    /// Apart from the tokens: a session's secret is no bearer token.
    pub(super) believed_sessions: Cache<[u8; 32], Arc<Principal>>,
}

impl Access {
    pub fn new(store: Store, settings: config::Access) -> Self {
        let cache = || Cache::builder().max_capacity(KEPT).time_to_live(BELIEVED).build();
        Self { store, settings, believed: cache(), believed_sessions: cache() }
    }

    /// How long a person's proof opens what takes a fresh one.
    pub fn step_up(&self) -> Duration {
        self.settings.step_up
    }

    /// After a change of people or tokens: what was believed is asked for again.
    pub(super) fn forget_all(&self) {
        self.believed.invalidate_all();
        self.believed_sessions.invalidate_all();
    }

    /// Who shows this bearer token. Long streams ask again every few seconds with [`Access::still`].
    pub async fn authenticate(&self, bearer: &str, now_ms: i64) -> Result<Arc<Principal>, AuthError> {
        let sha256 = hash(bearer);
        if let Some(principal) = self.believed.get(&sha256) {
            return if alive(principal.expires_at_ms, now_ms) { Ok(principal) } else { Err(AuthError::Invalid) };
        }
        // Looked up by hash: the time it takes tells nothing of a secret that still has to be guessed whole.
        let token = self.store.tokens().by_sha256(&sha256).await?.ok_or(AuthError::Invalid)?;
        let principal = Arc::new(self.granted(&token, now_ms).await?);
        self.believed.insert(sha256, principal.clone());
        Ok(principal)
    }

    /// What the principal of a long stream is by now (SECURITY R15): asks the store, not the cache. One whose agents
    /// are others by now is over.
    pub async fn still(&self, principal: &Principal, now_ms: i64) -> Result<Principal, AuthError> {
        let now = match &principal.who {
            Who::Token { id, .. } => {
                let token = self.store.tokens().find(id).await?.ok_or(AuthError::Invalid)?;
                self.granted(&token, now_ms).await?
            }
            Who::Operator { session, .. } => self.session_now(&session.id, now_ms).await?,
        };
        if now.selector == principal.selector { Ok(now) } else { Err(AuthError::Invalid) }
    }

    async fn granted(&self, token: &ApiToken, now_ms: i64) -> Result<Principal, AuthError> {
        let person = match &token.operator_id {
            None => None,
            Some(id) => Some(self.store.operators().find(id).await?.ok_or(AuthError::Invalid)?),
        };
        recognise(token, person.as_ref(), now_ms)
    }

    /// Makes a token on behalf of `creator`.
    pub async fn create(
        &self,
        creator: &Principal,
        request: TokenRequest,
        now_ms: i64,
        audit: AuditEntry,
    ) -> Result<CreatedToken, CreateTokenError> {
        let created = derive(creator, request, self.settings.token, now_ms)?;
        self.store.tokens().add(&created.token, &audit.object(&created.token.id)).await?;
        Ok(created)
    }

    /// False if there is no such token or it is revoked already. Here it holds at once.
    pub async fn revoke(&self, id: &str, now_ms: i64, audit: AuditEntry) -> Result<bool, StoreError> {
        let revoked = self.store.tokens().revoke(id, now_ms, &audit.object(id)).await?;
        self.forget_all();
        Ok(revoked)
    }
}

/// A token within its creator's bounds. Pure but for the randomness.
fn derive(
    creator: &Principal,
    request: TokenRequest,
    ttl_max: Duration,
    now_ms: i64,
) -> Result<CreatedToken, CreateTokenError> {
    if request.name.is_empty() || request.name.len() > NAME_MAX || request.name.contains(char::is_control) {
        return Err(CreateTokenError::Name);
    }
    if request.permissions.is_empty() {
        return Err(CreateTokenError::NoPermission);
    }
    if !request.permissions.is_subset(&creator.permissions) {
        return Err(CreateTokenError::Permissions(request.permissions.beyond(&creator.permissions)));
    }
    let ttl = request.ttl.unwrap_or(ttl_max);
    if ttl > ttl_max {
        return Err(CreateTokenError::TooLong(ttl_max));
    }
    let wanted = now_ms.saturating_add(millis(ttl));
    let expires_at_ms = Some(creator.expires_at_ms.map_or(wanted, |creators| creators.min(wanted)));
    let selector = creator.selector.and(&request.selector);
    let secret = generate();
    let token = ApiToken {
        id: Uuid::new_v4().to_string(),
        name: request.name,
        sha256: hash(secret.expose_secret()),
        permissions: request.permissions.to_string(),
        selector: selector.to_string(),
        created_by: creator.owner(),
        created_at_ms: now_ms,
        expires_at_ms,
        revoked_at_ms: None,
        operator_id: creator.operator().map(str::to_owned),
    };
    Ok(CreatedToken { token, secret })
}

/// What a stored token grants now: never more than the person it was made for may by now.
fn recognise(token: &ApiToken, person: Option<&Operator>, now_ms: i64) -> Result<Principal, AuthError> {
    if token.revoked_at_ms.is_some() || !alive(token.expires_at_ms, now_ms) {
        return Err(AuthError::Invalid);
    }
    let corrupt = |what: String| AuthError::Store(StoreError::Corrupt(what));
    let mut permissions: Permissions =
        token.permissions.parse().map_err(|error: super::BadPermission| corrupt(error.to_string()))?;
    let mut selector: Selector =
        token.selector.parse().map_err(|error: super::BadLabels| corrupt(error.to_string()))?;
    if let Some(person) = person {
        let (most, within) = granted(person)?;
        permissions = permissions.and(&most);
        selector = within.and(&selector);
    }
    Ok(Principal {
        who: Who::Token { id: token.id.clone(), operator: token.operator_id.clone() },
        name: token.name.clone(),
        permissions,
        selector,
        expires_at_ms: token.expires_at_ms,
    })
}

fn alive(expires_at_ms: Option<i64>, now_ms: i64) -> bool {
    expires_at_ms.is_none_or(|at_ms| now_ms < at_ms)
}

/// A new secret, 256 bits.
pub(super) fn generate() -> SecretString {
    let bytes: [u8; TOKEN_BYTES] = rand::random();
    SecretString::from(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        access::{Action, Labels, Object, Permission, authorise},
        store::{audit::Actor, testing::on_both},
    };

    const NOW: i64 = 1_800_000_000_000;
    const NINETY_DAYS: Duration = Duration::from_secs(90 * 86_400);

    fn request(permissions: &str, selector: &str, ttl: Option<Duration>) -> TokenRequest {
        let (permissions, selector) = (permissions.parse().unwrap(), selector.parse().unwrap());
        TokenRequest { name: "ci".into(), permissions, selector, ttl }
    }

    fn admin() -> Principal {
        Principal::for_tests(Permissions::all(), Selector::default())
    }

    fn done(action: &'static str) -> AuditEntry {
        Actor::Local.did(action)
    }

    #[test]
    fn a_token_lives_ninety_days_unless_it_asks_for_less() {
        let expiry = |creator: &Principal, ttl| {
            derive(creator, request("agents:read", "", ttl), NINETY_DAYS, NOW)
                .map(|created| created.token.expires_at_ms)
        };
        assert_eq!(expiry(&admin(), None).unwrap(), Some(NOW + millis(NINETY_DAYS)));
        assert_eq!(expiry(&admin(), Some(Duration::from_secs(1))).unwrap(), Some(NOW + 1_000));
        let longer = expiry(&admin(), Some(NINETY_DAYS + Duration::from_secs(1)));
        assert!(matches!(longer, Err(CreateTokenError::TooLong(_))));
        let short_lived = Principal { expires_at_ms: Some(NOW + 5), ..admin() };
        assert_eq!(expiry(&short_lived, None).unwrap(), Some(NOW + 5));
    }

    #[test]
    fn bad_requests_are_told_why() {
        let make = |creator: &Principal, request| derive(creator, request, NINETY_DAYS, NOW).map(|_| ());
        let unnamed = TokenRequest { name: String::new(), ..request("agents:read", "", None) };
        assert!(matches!(make(&admin(), unnamed), Err(CreateTokenError::Name)));
        let newline = TokenRequest { name: "a\nb".into(), ..request("agents:read", "", None) };
        assert!(matches!(make(&admin(), newline), Err(CreateTokenError::Name)));
        assert!(matches!(make(&admin(), request("", "", None)), Err(CreateTokenError::NoPermission)));
        let reader = Principal::for_tests("agents:read tokens:write".parse().unwrap(), Selector::default());
        let error = make(&reader, request("agents:read exec:run", "", None)).unwrap_err();
        assert!(error.to_string().ends_with("exec:run"), "{error}");
    }

    fn permissions() -> impl Strategy<Value = Permissions> {
        proptest::collection::vec(proptest::sample::select(Permission::ALL), 0..8)
            .prop_map(|permissions| permissions.into_iter().collect())
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let term = ("[ab]", "(=|!=)", "[xy]").prop_map(|(key, sign, value)| format!("{key}{sign}{value}"));
        proptest::collection::vec(term, 0..3).prop_map(|terms| terms.join(",").parse().unwrap())
    }

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[ab]", "[xy]", 0..3).prop_map(|map| Labels::try_from(map).unwrap())
    }

    proptest! {
        /// Whatever a token may do, its creator may do too, and for as long (SECURITY R17).
        #[test]
        fn never_above_the_creator(
            held in permissions(), within in selector(), lives in proptest::option::of(1_i64..1_000_000),
            wanted in permissions(), over in selector(), ttl_s in proptest::option::of(0_u64..10_000_000),
            labels in labels(),
        ) {
            let creator = Principal { expires_at_ms: lives.map(|ms| NOW + ms), ..Principal::for_tests(held, within) };
            let ttl = ttl_s.map(Duration::from_secs);
            let asked = TokenRequest { name: "t".into(), permissions: wanted.clone(), selector: over, ttl };
            let Ok(created) = derive(&creator, asked, NINETY_DAYS, NOW) else {
                let refusable = wanted.is_empty() || !wanted.is_subset(&creator.permissions)
                    || ttl.is_some_and(|ttl| ttl > NINETY_DAYS);
                prop_assert!(refusable);
                return Ok(());
            };
            let expires_at_ms = created.token.expires_at_ms.unwrap();
            prop_assert!(expires_at_ms <= NOW + millis(NINETY_DAYS));
            prop_assert!(creator.expires_at_ms.is_none_or(|creators| expires_at_ms <= creators));
            let Ok(child) = recognise(&created.token, None, NOW) else {
                prop_assert_eq!(expires_at_ms, NOW);
                return Ok(());
            };
            for action in Action::ALL {
                for object in [Object::Everything, Object::Agent(&labels), Object::Token, Object::Operator] {
                    if authorise(&child, *action, object).is_ok() {
                        prop_assert!(authorise(&creator, *action, object).is_ok(), "{:?}", action);
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn tokens_are_recognised_until_revoked_or_expired() {
        on_both(async |store| {
            let access = Access::new(store.clone(), config::Access::default());
            let made = request("agents:read", "site=home", Some(Duration::from_secs(10)));
            let created = access.create(&admin(), made, NOW, done("token.create")).await.unwrap();
            let secret = created.secret.expose_secret().to_owned();
            assert!(secret.starts_with(PREFIX) && !format!("{created:?}").contains(&secret));
            // The store holds the hash alone.
            let stored = format!("{:?}", store.tokens().find(&created.token.id).await.unwrap());
            assert!(!stored.contains(&secret));

            let principal = access.authenticate(&secret, NOW).await.unwrap();
            assert_eq!(principal.selector.to_string(), "site=home");
            assert!(access.authenticate(&format!("{secret}x"), NOW).await.is_err());
            // Expiry holds for what is believed already, too.
            assert!(matches!(access.authenticate(&secret, NOW + 10_000).await, Err(AuthError::Invalid)));

            assert!(access.still(&principal, NOW).await.is_ok());
            assert!(access.revoke(principal.id(), NOW, done("token.revoke")).await.unwrap());
            assert!(matches!(access.authenticate(&secret, NOW).await, Err(AuthError::Invalid)));
            assert!(matches!(access.still(&principal, NOW).await, Err(AuthError::Invalid)));
        })
        .await;
    }

    #[tokio::test]
    async fn without_the_store_nobody_new_gets_in() {
        let (_dir, store) = crate::store::testing::sqlite().await;
        let access = Access::new(store.clone(), config::Access::default());
        let created = access.create(&admin(), request("agents:read", "", None), NOW, done("token.create")).await;
        store.close().await;
        let secret = created.unwrap().secret;
        assert!(matches!(access.authenticate(secret.expose_secret(), NOW).await, Err(AuthError::Store(_))));
    }
}
