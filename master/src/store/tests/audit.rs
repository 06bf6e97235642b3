//! The audit chain: written with its effect, verified, and broken by every kind of tampering.

use serde_json::json;

use super::*;
use crate::store::{
    Page,
    agents::AgentStatus,
    audit::Verdict,
    retention::Retention,
    sql::Sql,
    testing::{on_both, sqlite},
};

async fn run(store: &Store, text: &'static str) {
    let mut write = store.background("test").await.unwrap();
    write.execute(Sql::new(text)).await.unwrap();
    write.commit().await.unwrap();
}

#[tokio::test]
async fn the_chain_holds_and_shows_newest_first() {
    on_both(async |store| {
        assert_eq!(store.verify_audit().await.unwrap(), Verdict::Whole { first: 1, last: 0 });
        add(&store, "a", &[]).await;
        let detail = json!({"b": "nul \0 quote \" \u{2028}", "a": [1, 2.5, null]});
        let rich = entry("exec.start").agent(&id("a")).object("x").source("192.0.2.1").result("policy").detail(detail);
        store.audit(&rich).await.unwrap();
        store.agents().set_status(&id("a"), AgentStatus::Suspended, &entry("agent.suspend")).await.unwrap();
        assert_eq!(store.verify_audit().await.unwrap(), Verdict::Whole { first: 1, last: 3 });
        let rows = store.audit_rows(None, &Page { cursor: None, limit: 2 }).await.unwrap();
        let actions: Vec<_> = rows.items.iter().map(|row| row.entry.action.as_str()).collect();
        assert_eq!(actions, ["agent.suspend", "exec.start"]);
        let rest = store.audit_rows(None, &Page { cursor: rows.next_cursor, limit: 2 }).await.unwrap();
        assert_eq!((rest.items.len(), rest.items[0].seq, rest.next_cursor), (1, 1, None));
        let of_agent = store.audit_rows(Some(&id("a")), &Page::default()).await.unwrap();
        assert_eq!(of_agent.items.len(), 1);
        assert_eq!(of_agent.items[0].entry, rich);
    })
    .await;
}

#[tokio::test]
async fn tampering_shows() {
    let tricks = [
        ("UPDATE audit SET body = REPLACE(body, 'local', 'other') WHERE seq = 2", 2),
        ("UPDATE audit SET at_ms = 1 WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("UPDATE audit SET previous = hash WHERE seq = 3", 3),
        ("UPDATE audit_head SET seq = 2 WHERE id = 1", 2),
        ("DELETE FROM audit_head", 0),
    ];
    for (trick, broken_at) in tricks {
        let (_dir, store) = sqlite().await;
        for _ in 0..3 {
            store.audit(&entry("x")).await.unwrap();
        }
        run(&store, trick).await;
        let verdict = store.verify_audit().await.unwrap();
        assert!(matches!(verdict, Verdict::Broken { seq, .. } if seq == broken_at), "{trick}: {verdict:?}");
    }
}

#[tokio::test]
async fn without_its_audit_row_nothing_happens() {
    let (_dir, store) = sqlite().await;
    run(&store, "DELETE FROM audit_head").await;
    store.agents().add(new_agent("a", &[]), &entry("agent.add")).await.unwrap_err();
    assert_eq!(store.agents().find(&id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn parallel_writers_make_one_chain() {
    on_both(async |store| {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = store.clone();
            tasks.spawn(async move { store.audit(&entry("x")).await });
        }
        assert!(tasks.join_all().await.iter().all(Result::is_ok));
        assert_eq!(store.verify_audit().await.unwrap(), Verdict::Whole { first: 1, last: 20 });
    })
    .await;
}

#[tokio::test]
async fn retention_cuts_the_chain_and_the_rest_still_verifies() {
    on_both(async |store| {
        for age_s in [100, 50, 60, 5, 0] {
            let old = AuditEntry { at_ms: NOW - age_s * 1_000, ..entry("x") };
            store.audit(&old).await.unwrap();
        }
        let keep = std::time::Duration::from_secs(30);
        let retention = Retention {
            events: keep,
            audit: keep,
            tunnels: keep,
            sessions: keep,
            idempotency: keep,
            credentials: keep,
        };
        assert_eq!(store.prune(&retention, NOW).await.unwrap().audit, 3);
        assert_eq!(store.verify_audit().await.unwrap(), Verdict::Whole { first: 4, last: 5 });
        assert_eq!(store.prune(&retention, NOW + 60_000).await.unwrap().audit, 2);
        store.audit(&entry("x")).await.unwrap();
        assert_eq!(store.verify_audit().await.unwrap(), Verdict::Whole { first: 6, last: 6 });
    })
    .await;
}
