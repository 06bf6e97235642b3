//! Enrolment keys: as many agents as it has uses, whatever happens at once, and no name taken over.

use std::net::IpAddr;

use tokio::task::JoinSet;

use super::*;
use crate::store::{
    Page, Sha256,
    agents::AgentStatus,
    enrolments::{Certificate, IssueFailure},
    keys::{Decision, EnrolmentKey, KeyAttempt, KeyError, KeyOutcome, WaitingAgent},
    testing::on_both,
};

const KEY: Sha256 = [7; 32];
const DAY_MS: i64 = 86_400_000;

fn key(uses: u32, approval: bool) -> EnrolmentKey {
    EnrolmentKey {
        id: "k".to_owned(),
        name: "machines".to_owned(),
        sha256: [1; 32],
        uses,
        uses_left: uses,
        labels: labels(&[("site", "berlin")]),
        approval,
        operations: vec!["shell".to_owned()],
        created_by: "local".to_owned(),
        created_at_ms: NOW,
        expires_at_ms: NOW + DAY_MS,
        revoked_at_ms: None,
    }
}

async fn with_key(store: &Store, key: EnrolmentKey) {
    store.keys().add(&key, &entry("enrolment_key.create")).await.unwrap();
}

fn attempt(name: &AgentId) -> KeyAttempt<'_> {
    let (address, idempotent) = (IpAddr::from([192, 0, 2, 1]), std::time::Duration::from_secs(600));
    KeyAttempt { name, secret_sha256: [1; 32], key_sha256: KEY, address, now_ms: NOW, idempotent }
}

fn issue() -> Result<Certificate, IssueFailure> {
    Ok(Certificate { der: b"certificate".to_vec(), not_after_ms: NOW + 1_000 })
}

async fn enrol(store: &Store, attempt: KeyAttempt<'_>) -> Result<KeyOutcome, KeyError> {
    store.keys().enrol(attempt, issue, &entry("agent.enrol"), &entry("agent.ask")).await
}

async fn left(store: &Store) -> u32 {
    store.keys().find("k").await.unwrap().unwrap().uses_left
}

fn waits(outcome: Result<KeyOutcome, KeyError>) -> WaitingAgent {
    match outcome.unwrap() {
        KeyOutcome::Waits { row, .. } => row,
        KeyOutcome::Issued { .. } => panic!("it did not wait"),
    }
}

#[tokio::test]
async fn two_hundred_at_once_get_as_many_certificates_as_there_are_uses() {
    on_both(async |store| {
        const USES: usize = 7;
        with_key(&store, key(u32::try_from(USES).unwrap(), false)).await;
        let mut tasks = JoinSet::new();
        for number in 0..200_u8 {
            let store = store.clone();
            tasks.spawn(async move {
                let name = id(&format!("m{number}"));
                let outcome = enrol(&store, KeyAttempt { key_sha256: [number; 32], ..attempt(&name) }).await;
                outcome.map_err(|error| error.to_string())
            });
        }
        let results = tasks.join_all().await;
        let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(results.len() - errors.len(), USES);
        assert!(errors.iter().all(|error| **error == KeyError::Refused.to_string()), "{errors:?}");
        let agents =
            store.agents().list(&crate::store::agents::AgentFilter::default(), &Page::default()).await.unwrap();
        assert_eq!((agents.items.len(), left(&store).await), (USES, 0));
        assert!(agents.items.iter().all(|agent| agent.labels.value("site") == Some("berlin")));
        let audited = store.audit_rows(&AuditFilter::default(), &Page { cursor: None, limit: 1_000 }).await.unwrap();
        assert_eq!(audited.items.iter().filter(|row| row.entry.action == "agent.enrol").count(), USES);
    })
    .await;
}

#[tokio::test]
async fn keys_that_are_no_good_are_refused_alike_and_a_taken_name_costs_nothing() {
    on_both(async |store| {
        let (a, b) = (id("a"), id("b"));
        add(&store, "a", &[]).await;
        with_key(&store, key(1, false)).await;
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(KeyError::NameTaken)));
        assert_eq!(left(&store).await, 1);
        let unknown = KeyAttempt { secret_sha256: [2; 32], ..attempt(&b) };
        let expired = KeyAttempt { now_ms: NOW + DAY_MS, ..attempt(&b) };
        for bad in [unknown, expired] {
            assert!(matches!(enrol(&store, bad).await, Err(KeyError::Refused)));
        }
        // A lost reply: the same once more. Another machine, or the same one too late: nothing.
        assert!(matches!(enrol(&store, attempt(&b)).await, Ok(KeyOutcome::Issued { repeated: false, .. })));
        assert!(matches!(enrol(&store, attempt(&b)).await, Ok(KeyOutcome::Issued { repeated: true, .. })));
        assert_eq!(left(&store).await, 0);
        assert!(matches!(
            enrol(&store, KeyAttempt { key_sha256: [9; 32], ..attempt(&b) }).await,
            Err(KeyError::Refused)
        ));
        assert!(matches!(
            enrol(&store, KeyAttempt { now_ms: NOW + 600_001, ..attempt(&b) }).await,
            Err(KeyError::Refused)
        ));
        store.agents().set_status(&b, AgentStatus::Suspended, &entry("x")).await.unwrap();
        assert!(matches!(enrol(&store, attempt(&b)).await, Err(KeyError::Suspended)));
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_over_also_for_those_who_wait() {
    on_both(async |store| {
        let a = id("a");
        with_key(&store, key(2, true)).await;
        waits(enrol(&store, attempt(&a)).await);
        assert!(store.keys().revoke("k", NOW, &entry("enrolment_key.revoke")).await.unwrap());
        assert!(!store.keys().revoke("k", NOW, &entry("enrolment_key.revoke")).await.unwrap());
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(KeyError::Refused)));
        assert!(store.keys().list_waiting(NOW, &Page::default()).await.unwrap().items.is_empty());
    })
    .await;
}

#[tokio::test]
async fn who_waits_gets_its_certificate_after_the_yes_and_only_that_machine() {
    on_both(async |store| {
        let a = id("a");
        with_key(&store, key(1, true)).await;
        let row = waits(enrol(&store, attempt(&a)).await);
        assert_eq!(waits(enrol(&store, attempt(&a)).await).id, row.id, "asking again is no second request");
        let other = KeyAttempt { key_sha256: [9; 32], ..attempt(&a) };
        assert!(matches!(enrol(&store, other).await, Err(KeyError::Refused)), "its use is held");
        let decide = async |decision| store.keys().decide(&row.id, decision, NOW, &entry("x")).await.unwrap();
        assert!(decide(Decision::Approve).await && !decide(Decision::Reject).await, "the first decides");
        assert!(matches!(enrol(&store, attempt(&a)).await, Ok(KeyOutcome::Issued { repeated: false, .. })));
        assert!(matches!(enrol(&store, attempt(&a)).await, Ok(KeyOutcome::Issued { repeated: true, .. })));
        let agent = store.agents().find(&a).await.unwrap().unwrap();
        assert_eq!((agent.key_sha256, agent.labels.value("site")), (Some(KEY), Some("berlin")));
    })
    .await;
}

#[tokio::test]
async fn a_rejected_machine_and_one_that_nobody_answered_give_their_use_back() {
    on_both(async |store| {
        let (a, b) = (id("a"), id("b"));
        with_key(&store, key(2, true)).await;
        let row = waits(enrol(&store, attempt(&a)).await);
        let same_name = KeyAttempt { key_sha256: [9; 32], ..attempt(&a) };
        assert!(matches!(enrol(&store, same_name).await, Err(KeyError::NameTaken)));
        assert_eq!(left(&store).await, 1);
        assert!(store.keys().decide(&row.id, Decision::Reject, NOW, &entry("x")).await.unwrap());
        assert!(matches!(enrol(&store, attempt(&a)).await, Err(KeyError::Rejected)));
        assert_eq!(left(&store).await, 2);
        waits(enrol(&store, same_name).await);
        waits(enrol(&store, KeyAttempt { key_sha256: [8; 32], ..attempt(&b) }).await);
        assert_eq!(left(&store).await, 0);
        let late = NOW + DAY_MS;
        assert!(store.keys().list_waiting(late, &Page::default()).await.unwrap().items.is_empty());
        assert!(matches!(enrol(&store, KeyAttempt { now_ms: late, ..attempt(&b) }).await, Err(KeyError::Refused)));
        store.keys().tidy(late).await.unwrap();
        assert_eq!(left(&store).await, 2);
    })
    .await;
}
