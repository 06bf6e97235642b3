//! Events, tokens, idempotency keys and retention.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    events::Event,
    store::{
        Page, StoreError,
        events::EventFilter,
        idempotency::{Begun, Keyed},
        retention::{Pruned, Retention},
        sessions::{SessionFilter, SessionKind, SessionRow},
        testing::{on_both, sqlite},
        tokens::ApiToken,
    },
};

fn event(number: u64, agent: Option<&str>) -> Arc<Event> {
    Arc::new(Event {
        id: number,
        at_ms: NOW + i64::try_from(number).unwrap(),
        kind: "agent.online".into(),
        agent_id: agent.map(id),
        tunnel_id: None,
        reason: Some("done".into()),
        detail: json!({"n": number}),
    })
}

fn token(number: u8) -> ApiToken {
    ApiToken {
        id: format!("t{number}"),
        name: "ci".into(),
        sha256: [number; 32],
        permissions: "agents:read".into(),
        selector: "site=home".into(),
        created_by: "local".into(),
        created_at_ms: NOW + i64::from(number),
        expires_at_ms: Some(NOW + 100),
        revoked_at_ms: None,
        operator_id: None,
    }
}

#[tokio::test]
async fn events_are_kept_once_and_read_both_ways() {
    on_both(async |store| {
        assert_eq!(store.events().last_id().await.unwrap(), 0);
        add(&store, "a", &[("site", "home")]).await;
        let batch: Vec<_> = (1..=250).map(|number| event(number, (number % 2 == 0).then_some("a"))).collect();
        store.events().append(&batch[..200]).await.unwrap();
        store.events().append(&batch).await.unwrap();
        assert_eq!(store.events().last_id().await.unwrap(), 250);
        let all = EventFilter::default();
        let after = store.events().after(248, &all, 10).await.unwrap();
        assert_eq!(after, [(*batch[248]).clone(), (*batch[249]).clone()]);
        let of_agent = EventFilter { agent_id: Some(id("a")), ..all.clone() };
        let newest = store.events().before(None, &of_agent, 2).await.unwrap();
        assert_eq!(newest.iter().map(|event| event.id).collect::<Vec<_>>(), [250, 248]);
        let older = store.events().before(Some(3), &of_agent, 2).await.unwrap();
        assert_eq!(older.iter().map(|event| event.id).collect::<Vec<_>>(), [2]);
        let scoped = |selector: &str| EventFilter { selector: selector.parse().unwrap(), ..EventFilter::default() };
        assert_eq!(store.events().after(0, &scoped("site=home"), 1_000).await.unwrap().len(), 125);
        assert_eq!(store.events().after(0, &scoped("site!=home"), 1_000).await.unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn tokens_are_found_by_hash_and_revoked_once() {
    on_both(async |store| {
        for number in 1..=3 {
            store.tokens().add(&token(number), &entry("token.create")).await.unwrap();
        }
        assert_eq!(store.tokens().by_sha256(&[2; 32]).await.unwrap(), Some(token(2)));
        assert_eq!(store.tokens().by_sha256(&[9; 32]).await.unwrap(), None);
        assert_eq!(store.tokens().find("t3").await.unwrap(), Some(token(3)));
        assert!(store.tokens().revoke("t2", NOW, &entry("token.revoke")).await.unwrap());
        assert!(!store.tokens().revoke("t2", NOW, &entry("token.revoke")).await.unwrap());
        assert!(!store.tokens().revoke("t9", NOW, &entry("token.revoke")).await.unwrap());
        assert_eq!(store.tokens().find("t2").await.unwrap().unwrap().revoked_at_ms, Some(NOW));
        let first = store.tokens().list(None, &Page { cursor: None, limit: 2 }).await.unwrap();
        let second = store.tokens().list(None, &Page { cursor: first.next_cursor, limit: 2 }).await.unwrap();
        let ids: Vec<_> = first.items.iter().chain(&second.items).map(|token| token.id.as_str()).collect();
        assert_eq!((ids.as_slice(), second.next_cursor), (["t3", "t2", "t1"].as_slice(), None));
    })
    .await;
}

#[tokio::test]
async fn a_keyed_request_is_done_once() {
    on_both(async |store| {
        let request = Keyed { owner: "t", key: "k", request_sha256: [1; 32] };
        let keys = store.idempotency();
        assert_eq!(keys.begin(&request, NOW).await.unwrap(), Begun::New);
        assert_eq!(keys.begin(&request, NOW).await.unwrap(), Begun::InFlight);
        keys.abandon(&request).await.unwrap();
        assert_eq!(keys.begin(&request, NOW).await.unwrap(), Begun::New);
        keys.finish(&request, 201, "{}").await.unwrap();
        keys.abandon(&request).await.unwrap();
        let done = Begun::Done { status: 201, response: "{}".into() };
        assert_eq!(keys.begin(&request, NOW).await.unwrap(), done);
        let other = Keyed { request_sha256: [2; 32], ..request.clone() };
        assert_eq!(keys.begin(&other, NOW).await.unwrap(), Begun::Mismatch);
        assert_eq!(keys.begin(&Keyed { owner: "u", ..other }, NOW).await.unwrap(), Begun::New);
    })
    .await;
}

fn shell(number: u128) -> SessionRow {
    SessionRow {
        id: uuid::Uuid::from_u128(number),
        kind: SessionKind::Shell,
        agent_id: id("a"),
        owner: "token:t".into(),
        created_at_ms: NOW,
        ended_at_ms: None,
        end_reason: None,
        detail: json!({"cols": 80}),
    }
}

#[tokio::test]
async fn a_caller_does_not_queue_behind_all_the_sessions_that_end_together() {
    let (_dir, store) = sqlite().await;
    add(&store, "a", &[]).await;
    for number in 1..=100 {
        store.sessions().begin(&shell(number), &entry("shell.start")).await.unwrap();
    }
    let held = store.write("test").await.unwrap();
    let mut ends = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let store = store.clone();
        ends.spawn(async move {
            let (id, detail, audit) = (shell(number).id, json!({}), entry("shell.end"));
            store.sessions().end(id, NOW + 2, "exited", &detail, &audit).await
        });
    }
    // Everybody stands in the queue before the connection comes free.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let release = async {
        tokio::task::yield_now().await;
        drop(held);
    };
    let (caller, audit) = (token(1), entry("token.create"));
    let writes = store.tokens();
    let (written, ()) = tokio::join!(writes.add(&caller, &audit), release);
    written.unwrap();
    let before = 100 - store.sessions().open().await.unwrap().len();
    assert!(before < 50, "{before} ends went first");
    while let Some(end) = ends.join_next().await {
        // Who found no place in time comes again.
        assert!(matches!(end.unwrap(), Ok(true) | Err(StoreError::Busy)));
    }
}

#[tokio::test]
async fn retention_removes_the_old_and_only_the_old() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        let batch: Vec<_> = (1..=5).map(|number| event(number * 1_000, None)).collect();
        store.events().append(&batch).await.unwrap();
        store.tokens().add(&token(1), &entry("token.create")).await.unwrap();
        store.tokens().add(&ApiToken { expires_at_ms: None, ..token(2) }, &entry("token.create")).await.unwrap();
        store.idempotency().begin(&Keyed { owner: "t", key: "k", request_sha256: [1; 32] }, NOW).await.unwrap();
        let shell = shell(1);
        store.sessions().begin(&shell, &entry("shell.start")).await.unwrap();
        let running = SessionRow { id: uuid::Uuid::from_u128(2), created_at_ms: NOW + 1, ..shell.clone() };
        store.sessions().begin(&running, &entry("shell.start")).await.unwrap();
        for (first, reason) in [(true, "exited"), (false, "closed")] {
            let (detail, audit) = (json!({}), entry("shell.end"));
            let counted = store.sessions().end(shell.id, NOW + 2, reason, &detail, &audit).await.unwrap();
            assert_eq!(counted, first, "only the first end counts");
        }
        assert_eq!(store.sessions().find(shell.id).await.unwrap().unwrap().end_reason.as_deref(), Some("exited"));
        assert_eq!(store.sessions().open().await.unwrap(), std::slice::from_ref(&running));
        let newest = store.sessions().list(&SessionFilter::default(), &Page { cursor: None, limit: 1 }).await.unwrap();
        assert_eq!(newest.items, [running]);
        assert!(newest.next_cursor.is_some());
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(10_000));
        let retention = Retention {
            events: short,
            audit: long,
            tunnels: short,
            sessions: short,
            idempotency: short,
            credentials: short,
        };
        let pruned = store.prune(&retention, NOW + 4_000).await.unwrap();
        assert_eq!(pruned, Pruned { events: 2, audit: 0, tunnels: 0, sessions: 1, idempotency: 1, credentials: 1 });
        assert_eq!(store.events().after(0, &EventFilter::default(), 9).await.unwrap().len(), 3);
        assert!(store.tokens().find("t2").await.unwrap().is_some());
        // The unused secret runs out in an hour.
        assert_eq!(store.prune(&retention, NOW + 4_000).await.unwrap(), Pruned::default());
        assert_eq!(store.prune(&retention, NOW + 3_700_000).await.unwrap().credentials, 1);
    })
    .await;
}
