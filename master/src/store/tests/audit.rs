//! The audit chain: written with its effect, verified, and broken by every kind of tampering.

use serde_json::json;

use super::*;
use crate::store::{
    Page, StoreError,
    agents::AgentStatus,
    audit::{self, AuditRow, Outcome, Verdict},
    retention::Retention,
    sql::Sql,
    testing::{on_both, sqlite},
};

async fn run(store: &Store, text: &'static str) {
    let mut write = store.background("test").await.unwrap();
    write.execute(Sql::new(text)).await.unwrap();
    write.commit().await.unwrap();
}

/// First and last row of a chain that holds.
async fn whole(store: &Store) -> (u64, u64) {
    match store.verify_audit().await.unwrap() {
        Verdict::Whole { first, last, .. } => (first, last),
        broken @ Verdict::Broken { .. } => panic!("{broken:?}"),
    }
}

async fn found(store: &Store, filter: AuditFilter) -> Vec<u64> {
    let paged = store.audit_rows(&filter, &Page::default()).await.unwrap();
    assert_eq!(paged.next_cursor, None);
    let mut upwards = store.audit_after(0, &filter, 1_000).await.unwrap();
    upwards.reverse();
    assert_eq!(paged.items, upwards);
    paged.items.iter().map(|row| row.seq).collect()
}

#[tokio::test]
async fn rows_are_found_by_what_they_say() {
    on_both(async |store| {
        add(&store, "home-1", &[("site", "home")]).await;
        add(&store, "office", &[("site", "office")]).await;
        let token = crate::store::tokens::ApiToken {
            id: "3f".into(),
            name: "panel".into(),
            sha256: [7; 32],
            permissions: String::new(),
            selector: String::new(),
            created_by: "local".into(),
            created_at_ms: NOW,
            expires_at_ms: None,
            revoked_at_ms: None,
            operator_id: None,
        };
        store.tokens().add(&token, &entry("token.create")).await.unwrap();
        let by = |actor: &str, action: &str| AuditEntry::new(NOW + 10, actor, action);
        store.audit(&by("token:3f", "exec.start").agent(&id("home-1")).result("policy")).await.unwrap();
        store.audit(&by("token:3f", "execution").agent(&id("office"))).await.unwrap();
        store.audit(&by("agent:home-1", "agent.refuse").agent(&id("home-1")).result("clone")).await.unwrap();
        store.audit(&by("master", "exec.end").agent(&id("gone"))).await.unwrap();

        let none = AuditFilter::default;
        assert_eq!(found(&store, none()).await, [7, 6, 5, 4, 3, 2, 1]);
        let actor = |actor: &str| AuditFilter { actor: Some(actor.into()), ..none() };
        for (text, rows) in [
            ("token:3f", vec![5, 4]),
            ("token", vec![5, 4]),
            ("panel", vec![5, 4]),
            ("home-1", vec![6]),
            ("agent", vec![6]),
            ("master", vec![7]),
            ("local", vec![3, 2, 1]),
            ("operator", vec![]),
            ("%", vec![]),
            ("x' OR '1'='1", vec![]),
        ] {
            assert_eq!(found(&store, actor(text)).await, rows, "{text}");
        }
        let action = |action: &str| AuditFilter { action: Some(action.into()), ..none() };
        assert_eq!(found(&store, action("exec")).await, [7, 4]);
        assert_eq!(found(&store, action("exec.end")).await, [7]);
        assert_eq!(found(&store, action("e_ec")).await, Vec::<u64>::new());
        let outcome = |outcome| AuditFilter { outcome: Some(outcome), ..none() };
        assert_eq!(found(&store, outcome(Outcome::Failed)).await, [6, 4]);
        assert_eq!(found(&store, outcome(Outcome::Word("clone".into()))).await, [6]);
        assert_eq!(found(&store, AuditFilter { since_ms: Some(NOW + 10), ..none() }).await, [7, 6, 5, 4]);
        assert_eq!(found(&store, AuditFilter { until_ms: Some(NOW + 10), ..none() }).await, [3, 2, 1]);
        // Neither what has no agent nor what was done to an agent that is gone, not even by a term of absence.
        for (selector, rows) in [("site=home", vec![6, 4]), ("site!=home", vec![5])] {
            let filter = AuditFilter { selector: selector.parse().unwrap(), ..none() };
            assert_eq!(found(&store, filter).await, rows, "{selector}");
        }
        let names = store.actor_names(["token:3f", "token:x", "master"].into_iter()).await.unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [("token:3f".to_owned(), "panel".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn people_are_found_and_shown_by_name() {
    on_both(async |store| {
        super::operators::add_person(&store, "ada", "viewer").await;
        let ada = store.operators().list(&Page::default()).await.unwrap().items.remove(0).id;
        let actor = format!("operator:{ada}");
        store.audit(&AuditEntry::new(NOW, actor.as_str(), "shell.open")).await.unwrap();
        for (text, rows) in [("Ada", vec![2]), ("ada", vec![2]), ("operator", vec![2]), ("eve", vec![])] {
            assert_eq!(found(&store, AuditFilter { actor: Some(text.into()), ..AuditFilter::default() }).await, rows);
        }
        let names = store.actor_names([actor.as_str(), "operator:gone"].into_iter()).await.unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [(actor, "ada".to_owned())]);
    })
    .await;
}

/// Rows of a build that had no such columns are found and verify after the upgrade.
#[tokio::test]
async fn old_rows_are_filled_at_the_next_start() {
    let (dir, store) = sqlite().await;
    for _ in 0..3 {
        store.audit(&entry("x.y")).await.unwrap();
    }
    run(&store, "UPDATE audit SET actor = '', action = '', result = ''").await;
    run(&store, "UPDATE audit SET body = 'no JSON' WHERE seq = 2").await;
    store.close().await;
    let database = crate::config::Database::Sqlite(dir.path().join("landline.db"));
    let store = crate::store::testing::open(&database).await;
    let filter = AuditFilter { actor: Some("local".into()), action: Some("x".into()), ..AuditFilter::default() };
    assert_eq!(found(&store, filter).await, [3, 1]);
    let rows = store.audit_rows(&AuditFilter::default(), &Page::default()).await.unwrap().items;
    let shown = |row: &AuditRow| (row.seq, row.entry.actor.clone(), row.entry.result.clone());
    assert_eq!(shown(&rows[1]), (2, "unreadable".to_owned(), "unreadable".to_owned()));
    assert!(matches!(store.verify_audit().await.unwrap(), Verdict::Broken { seq: 2, .. }));
}

/// Retention at work during a verification is no tampering.
#[tokio::test]
async fn verifying_while_retention_cuts() {
    let (_dir, store) = sqlite().await;
    let mut write = store.background("test").await.unwrap();
    for number in 0..3_000 {
        audit::append(&mut write, &AuditEntry { at_ms: NOW - 3_000 + number, ..entry("x") }).await.unwrap();
    }
    write.commit().await.unwrap();
    let pruning = store.clone();
    let pruned = tokio::spawn(async move {
        for step in 1..=30 {
            let keep = std::time::Duration::from_millis(3_000 - step * 100);
            pruning.prune(&everything(keep), NOW).await?;
        }
        Ok::<_, StoreError>(())
    });
    let mut rounds = 0;
    while !pruned.is_finished() {
        whole(&store).await;
        rounds += 1;
    }
    pruned.await.unwrap().unwrap();
    assert!(rounds > 3, "{rounds} verifications beside the cutting");
}

fn everything(keep: std::time::Duration) -> Retention {
    Retention { events: keep, audit: keep, tunnels: keep, sessions: keep, idempotency: keep, credentials: keep }
}

#[tokio::test]
async fn the_chain_holds_and_shows_newest_first() {
    on_both(async |store| {
        assert_eq!(whole(&store).await, (1, 0));
        add(&store, "a", &[]).await;
        let detail = json!({"b": "nul \0 quote \" \u{2028}", "a": [1, 2.5, null]});
        let rich = entry("exec.start").agent(&id("a")).object("x").source("192.0.2.1").result("policy").detail(detail);
        store.audit(&rich).await.unwrap();
        store.agents().set_status(&id("a"), AgentStatus::Suspended, &entry("agent.suspend")).await.unwrap();
        assert_eq!(whole(&store).await, (1, 3));
        let rows = store.audit_rows(&AuditFilter::default(), &Page { cursor: None, limit: 2 }).await.unwrap();
        let actions: Vec<_> = rows.items.iter().map(|row| row.entry.action.as_str()).collect();
        assert_eq!(actions, ["agent.suspend", "exec.start"]);
        let rest =
            store.audit_rows(&AuditFilter::default(), &Page { cursor: rows.next_cursor, limit: 2 }).await.unwrap();
        assert_eq!((rest.items.len(), rest.items[0].seq, rest.next_cursor), (1, 1, None));
        let of_agent = AuditFilter { agent_id: Some(id("a")), ..AuditFilter::default() };
        let of_agent = store.audit_rows(&of_agent, &Page::default()).await.unwrap();
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
        ("UPDATE audit SET actor = 'token:x' WHERE seq = 2", 2),
        ("UPDATE audit SET action = 'y' WHERE seq = 2", 2),
        ("UPDATE audit SET result = 'policy' WHERE seq = 2", 2),
        ("UPDATE audit SET agent_id = '../x' WHERE seq = 2", 2),
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
        assert_eq!(whole(&store).await, (1, 20));
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
        let retention = everything(std::time::Duration::from_secs(30));
        assert_eq!(store.prune(&retention, NOW).await.unwrap().audit, 3);
        assert_eq!(whole(&store).await, (4, 5));
        assert_eq!(store.prune(&retention, NOW + 60_000).await.unwrap().audit, 2);
        store.audit(&entry("x")).await.unwrap();
        assert_eq!(whole(&store).await, (6, 6));
    })
    .await;
}
