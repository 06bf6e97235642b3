//! Enrolment: one secret, one certificate, whatever happens at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::*;
use crate::store::{
    Page, Sha256,
    agents::AgentStatus,
    enrolments::{Certificate, EnrolAttempt, EnrolError, Enrolled, IssueFailure, RenewError, RenewedKeys},
    testing::on_both,
};

const KEY: Sha256 = [7; 32];

fn attempt(agent_id: &AgentId) -> EnrolAttempt<'_> {
    let idempotent = Duration::from_secs(600);
    EnrolAttempt { agent_id, secret_sha256: [1; 32], key_sha256: KEY, now_ms: NOW, idempotent }
}

fn issue(generation: u64) -> Result<Certificate, IssueFailure> {
    Ok(Certificate { der: format!("certificate {generation}").into_bytes(), not_after_ms: NOW + 1_000 })
}

async fn enrol(store: &Store, attempt: EnrolAttempt<'_>) -> Result<Enrolled, EnrolError> {
    store.enrolments().enrol(attempt, issue, &entry("agent.enrol")).await
}

#[tokio::test]
async fn a_secret_makes_one_certificate() {
    on_both(async |store| {
        let a = id("a");
        add(&store, "a", &[]).await;
        let enrolled = enrol(&store, attempt(&a)).await.unwrap();
        assert_eq!(enrolled, Enrolled { certificate_der: b"certificate 1".to_vec(), repeated: false });
        let agent = store.agents().find(&a).await.unwrap().unwrap();
        assert_eq!((agent.key_sha256, agent.generation), (Some(KEY), 1));
        assert_eq!((agent.certificate_not_after_ms, agent.secret_expires_at_ms), (Some(NOW + 1_000), None));
        let other_key = EnrolAttempt { key_sha256: [8; 32], ..attempt(&a) };
        assert!(matches!(enrol(&store, other_key).await, Err(EnrolError::Refused)));
    })
    .await;
}

#[tokio::test]
async fn a_lost_reply_is_given_again_to_the_same_key_for_ten_minutes() {
    on_both(async |store| {
        let a = id("a");
        add(&store, "a", &[]).await;
        let first = enrol(&store, attempt(&a)).await.unwrap();
        let again = enrol(&store, EnrolAttempt { now_ms: NOW + 600_000, ..attempt(&a) }).await.unwrap();
        assert_eq!((again.certificate_der, again.repeated), (first.certificate_der, true));
        let late = enrol(&store, EnrolAttempt { now_ms: NOW + 600_001, ..attempt(&a) }).await;
        assert!(matches!(late, Err(EnrolError::Refused)));
        store.agents().set_status(&a, AgentStatus::Suspended, &entry("x")).await.unwrap();
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(EnrolError::Suspended)));
    })
    .await;
}

#[tokio::test]
async fn bad_attempts_are_refused_alike_and_consume_nothing() {
    on_both(async |store| {
        let (a, unknown) = (id("a"), id("unknown"));
        add(&store, "a", &[]).await;
        let wrong = EnrolAttempt { secret_sha256: [2; 32], ..attempt(&a) };
        let expired = EnrolAttempt { now_ms: NOW + 3_600_000, ..attempt(&a) };
        let mut texts = std::collections::HashSet::new();
        for bad in [wrong, expired, attempt(&unknown)] {
            let error = enrol(&store, bad).await.unwrap_err();
            assert!(matches!(error, EnrolError::Refused), "{error}");
            texts.insert(error.to_string());
        }
        assert_eq!(texts.len(), 1);
        store.agents().set_status(&a, AgentStatus::Suspended, &entry("x")).await.unwrap();
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(EnrolError::Suspended)));
        store.agents().set_status(&a, AgentStatus::Active, &entry("x")).await.unwrap();
        let failing = |_| Err("no".into());
        let failed = store.enrolments().enrol(attempt(&a), failing, &entry("x")).await;
        assert!(matches!(failed, Err(EnrolError::Issue(_))));
        assert!(enrol(&store, attempt(&a)).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn two_hundred_at_once_get_one_certificate() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        let issued = Arc::new(AtomicU32::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..200_u8 {
            let (store, issued) = (store.clone(), issued.clone());
            tasks.spawn(async move {
                let agent = id("a");
                let mut key = KEY;
                key[0] = number;
                let attempt = EnrolAttempt { key_sha256: key, ..attempt(&agent) };
                let issue = |generation| {
                    issued.fetch_add(1, Ordering::Relaxed);
                    issue(generation)
                };
                let entry = entry("agent.enrol");
                store.enrolments().enrol(attempt, issue, &entry).await.map_err(|error| error.to_string())
            });
        }
        let results = tasks.join_all().await;
        let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!((issued.load(Ordering::Relaxed), errors.len()), (1, 199));
        assert!(errors.iter().all(|error| **error == EnrolError::Refused.to_string()), "{errors:?}");
        let audited = store.audit_rows(&AuditFilter::default(), &Page::default()).await.unwrap();
        assert_eq!(audited.items.iter().filter(|row| row.entry.action == "agent.enrol").count(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_new_secret_replaces_the_old_and_keeps_the_key() {
    on_both(async |store| {
        let a = id("a");
        add(&store, "a", &[]).await;
        enrol(&store, attempt(&a)).await.unwrap();
        let secret = NewSecret { sha256: [3; 32], expires_at_ms: NOW + 10 };
        assert!(store.agents().set_secret(&a, secret, NOW, &entry("agent.resecret")).await.unwrap());
        assert!(!store.agents().set_secret(&id("b"), secret, NOW, &entry("agent.resecret")).await.unwrap());
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(EnrolError::Refused)));
        assert_eq!(store.agents().identity(&a).await.unwrap().unwrap().key_sha256, Some(KEY));
        let with_new = EnrolAttempt { secret_sha256: [3; 32], key_sha256: [9; 32], ..attempt(&a) };
        assert_eq!(enrol(&store, with_new).await.unwrap().certificate_der, b"certificate 2");
        assert_eq!(store.agents().identity(&a).await.unwrap().unwrap().key_sha256, Some([9; 32]));
    })
    .await;
}

#[tokio::test]
async fn only_a_known_key_renews() {
    on_both(async |store| {
        let a = id("a");
        add(&store, "a", &[]).await;
        let renew = async |key: Sha256| {
            let keys = RenewedKeys { presented: key, requested: key };
            store.enrolments().renew(&a, keys, issue, &entry("agent.renew")).await
        };
        assert!(matches!(renew(KEY).await, Err(RenewError::UnknownIdentity)));
        enrol(&store, attempt(&a)).await.unwrap();
        let renewed = renew(KEY).await.unwrap();
        assert_eq!((renewed.certificate.der.as_slice(), renewed.first_use), (&b"certificate 2"[..], false));
        assert!(matches!(renew([8; 32]).await, Err(RenewError::UnknownIdentity)));
        store.agents().set_status(&a, AgentStatus::Suspended, &entry("x")).await.unwrap();
        assert!(matches!(renew(KEY).await, Err(RenewError::Suspended)));
        assert_eq!(store.agents().identity(&a).await.unwrap().unwrap().generation, 2);
    })
    .await;
}

#[tokio::test]
async fn an_offered_key_counts_from_its_first_use_and_the_old_one_until_then() {
    const NEW: Sha256 = [5; 32];
    const OTHER: Sha256 = [6; 32];
    on_both(async |store| {
        let a = id("a");
        add(&store, "a", &[]).await;
        enrol(&store, attempt(&a)).await.unwrap();
        let renew = async |presented: Sha256, requested: Sha256| {
            let keys = RenewedKeys { presented, requested };
            store.enrolments().renew(&a, keys, issue, &entry("agent.renew")).await.map(|renewed| renewed.first_use)
        };
        let keys = async || {
            let identity = store.agents().identity(&a).await.unwrap().unwrap();
            (identity.key_sha256, identity.next_key_sha256)
        };
        // An offer that was never heard of again: the old key renews, and the offer is over.
        assert!(!renew(KEY, OTHER).await.unwrap());
        assert_eq!(keys().await, (Some(KEY), Some(OTHER)));
        assert!(matches!(renew(OTHER, NEW).await, Err(RenewError::UnknownIdentity)), "an offered key offers none");
        assert!(!renew(KEY, KEY).await.unwrap());
        assert!(matches!(renew(OTHER, OTHER).await, Err(RenewError::UnknownIdentity)));
        // One that is used, by a renewal.
        assert!(!renew(KEY, NEW).await.unwrap());
        assert!(renew(NEW, NEW).await.unwrap());
        assert_eq!(keys().await, (Some(NEW), None));
        assert!(matches!(renew(KEY, KEY).await, Err(RenewError::UnknownIdentity)));
        // One that is used, by a line.
        assert!(!renew(NEW, OTHER).await.unwrap());
        let taken =
            async |key| store.enrolments().take_offered(&a, &key, NOW + 10, &entry("agent.renew")).await.unwrap();
        assert!(!taken(KEY).await);
        assert!(taken(OTHER).await);
        assert!(!taken(OTHER).await, "it is no offer any more");
        assert_eq!(keys().await, (Some(OTHER), None));
    })
    .await;
}
