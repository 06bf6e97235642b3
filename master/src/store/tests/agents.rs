//! Agents: uniqueness, patches, lists by selector, presence facts.

use super::*;
use crate::store::{
    Page,
    agents::{AddAgentError, AgentFilter, AgentPatch, AgentStatus, Facts, PatchAgentError},
    testing::on_both,
};

async fn listed(store: &Store, filter: AgentFilter) -> Vec<String> {
    let paged = store.agents().list(&filter, &Page::default()).await.unwrap();
    paged.items.iter().map(|agent| agent.id.to_string()).collect()
}

#[tokio::test]
async fn an_agent_comes_back_as_it_was_added() {
    on_both(async |store| {
        let new = NewAgent { external_id: Some(i64::MAX), ..new_agent("home-1", &[("site", "home"), ("os", "bsd")]) };
        store.agents().add(new, &entry("agent.add")).await.unwrap();
        let agent = store.agents().find(&id("home-1")).await.unwrap().unwrap();
        assert_eq!(agent.status, AgentStatus::Unknown);
        assert_eq!(agent.labels, labels(&[("site", "home"), ("os", "bsd")]));
        assert_eq!(agent.secret_expires_at_ms, Some(NOW + 3_600_000));
        assert_eq!((agent.key_sha256, agent.generation, agent.last_seen_ms), (None, 0, None));
        assert_eq!(store.agents().by_external_id(i64::MAX).await.unwrap(), Some(agent));
        assert_eq!(store.agents().find(&id("other")).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn ids_and_external_ids_are_unique() {
    on_both(async |store| {
        let new = |name| NewAgent { external_id: Some(7), ..new_agent(name, &[]) };
        store.agents().add(new("a"), &entry("x")).await.unwrap();
        let again = store.agents().add(new("a"), &entry("x")).await;
        assert!(matches!(again, Err(AddAgentError::Exists)), "{again:?}");
        let taken = store.agents().add(new("b"), &entry("x")).await;
        assert!(matches!(taken, Err(AddAgentError::ExternalIdTaken)), "{taken:?}");
        add(&store, "b", &[]).await;
        let patch = AgentPatch { external_id: Some(Some(7)), ..AgentPatch::default() };
        let taken = store.agents().patch(&id("b"), &patch, &entry("x")).await;
        assert!(matches!(taken, Err(PatchAgentError::ExternalIdTaken)), "{taken:?}");
        // What failed left neither row nor audit behind.
        assert_eq!(store.audit_rows(&AuditFilter::default(), &Page::default()).await.unwrap().items.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    on_both(async |store| {
        add(&store, "a", &[("site", "home")]).await;
        let patch = AgentPatch {
            labels: Some(labels(&[("site", "office")])),
            external_id: Some(Some(3)),
            status: Some(AgentStatus::Suspended),
        };
        store.agents().patch(&id("a"), &patch, &entry("x")).await.unwrap();
        let agent = store.agents().find(&id("a")).await.unwrap().unwrap();
        assert_eq!((agent.status, agent.external_id), (AgentStatus::Suspended, Some(3)));
        assert_eq!(agent.labels.value("site"), Some("office"));
        let patch = AgentPatch { external_id: Some(None), ..AgentPatch::default() };
        store.agents().patch(&id("a"), &patch, &entry("x")).await.unwrap();
        let agent = store.agents().find(&id("a")).await.unwrap().unwrap();
        assert_eq!((agent.status, agent.external_id), (AgentStatus::Suspended, None));
        assert_eq!(agent.labels.value("site"), Some("office"));
        let missing = store.agents().patch(&id("b"), &AgentPatch::default(), &entry("x")).await;
        assert!(matches!(missing, Err(PatchAgentError::NotFound)));
    })
    .await;
}

#[tokio::test]
async fn resuming_gives_back_the_status_before() {
    on_both(async |store| {
        for name in ["seen", "unseen"] {
            add(&store, name, &[]).await;
        }
        let connected = store.agents().connected(&id("seen"), &Facts::default(), NOW).await.unwrap();
        assert_eq!(connected, Some(AgentStatus::Active));
        for (name, expected) in [("seen", AgentStatus::Active), ("unseen", AgentStatus::Unknown)] {
            for status in [AgentStatus::Suspended, AgentStatus::Active] {
                assert!(store.agents().set_status(&id(name), status, &entry("x")).await.unwrap());
            }
            assert_eq!(store.agents().identity(&id(name)).await.unwrap().unwrap().status, expected);
        }
        assert!(!store.agents().set_status(&id("none"), AgentStatus::Active, &entry("x")).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_suspended_agent_stays_so_when_it_connects() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        store.agents().set_status(&id("a"), AgentStatus::Suspended, &entry("x")).await.unwrap();
        let status = store.agents().connected(&id("a"), &Facts::default(), NOW).await.unwrap();
        assert_eq!(status, Some(AgentStatus::Suspended));
        assert_eq!(store.agents().connected(&id("b"), &Facts::default(), NOW).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn lines_leave_their_facts() {
    on_both(async |store| {
        add(&store, "a", &[]).await;
        // A host name is the agent's to choose, and PostgreSQL's TEXT takes no NUL.
        let facts = Facts { carrier: "udp".into(), hostname: "h\0<b>".into(), os: "linux".into(), ..Facts::default() };
        store.agents().connected(&id("a"), &facts, NOW).await.unwrap();
        store.agents().set_policy(&id("a"), "[forward]").await.unwrap();
        store.agents().disconnected(&id("a"), "heartbeat_lost", NOW + 5).await.unwrap();
        store.agents().touch_last_seen(&[(id("a"), NOW + 9), (id("gone"), NOW)]).await.unwrap();
        store.agents().touch_last_seen(&[(id("a"), NOW + 1)]).await.unwrap();
        let agent = store.agents().find(&id("a")).await.unwrap().unwrap();
        assert_eq!(agent.hostname.as_deref(), Some("h\u{fffd}<b>"));
        assert_eq!(agent.disconnect_reason.as_deref(), Some("heartbeat_lost"));
        assert_eq!((agent.disconnected_at_ms, agent.last_seen_ms), (Some(NOW + 5), Some(NOW + 9)));
        assert_eq!(agent.policy.as_deref(), Some("[forward]"));
        store.agents().connected(&id("a"), &facts, NOW + 10).await.unwrap();
        let agent = store.agents().find(&id("a")).await.unwrap().unwrap();
        assert_eq!((agent.disconnect_reason, agent.disconnected_at_ms), (None, None));
    })
    .await;
}

#[tokio::test]
async fn lists_filter_and_page() {
    on_both(async |store| {
        for (name, site) in [("a1", "home"), ("a2", "home"), ("a3", "office")] {
            add(&store, name, &[("site", site)]).await;
        }
        add(&store, "b_1", &[]).await;
        store.agents().set_status(&id("a2"), AgentStatus::Suspended, &entry("x")).await.unwrap();
        let by = |selector: &str| AgentFilter { selector: selector.parse().unwrap(), ..AgentFilter::default() };
        assert_eq!(listed(&store, by("")).await, ["a1", "a2", "a3", "b_1"]);
        assert_eq!(listed(&store, by("site=home")).await, ["a1", "a2"]);
        assert_eq!(listed(&store, by("site!=home")).await, ["a3", "b_1"]);
        assert_eq!(listed(&store, by("site=home,site!=home")).await, [""; 0]);
        let suspended = AgentFilter { status: Some(AgentStatus::Suspended), ..by("site=home") };
        assert_eq!(listed(&store, suspended).await, ["a2"]);
        let search = |text: &str| AgentFilter { search: Some(text.into()), ..AgentFilter::default() };
        assert_eq!(listed(&store, search("A")).await, ["a1", "a2", "a3"]);
        assert_eq!(listed(&store, search("_")).await, ["b_1"]);
        assert_eq!(listed(&store, search("%")).await, [""; 0]);
        assert_eq!(listed(&store, search("' OR 1=1 --")).await, [""; 0]);

        let mut page = Page { cursor: None, limit: 3 };
        let first = store.agents().list(&by(""), &page).await.unwrap();
        page.cursor = first.next_cursor;
        assert!(page.cursor.is_some());
        let second = store.agents().list(&by(""), &page).await.unwrap();
        assert_eq!((first.items.len(), second.items.len(), second.next_cursor), (3, 1, None));
    })
    .await;
}

#[tokio::test]
async fn a_removed_agent_leaves_no_key_and_no_label() {
    on_both(async |store| {
        add(&store, "a", &[("site", "home")]).await;
        assert!(store.agents().remove(&id("a"), &entry("agent.remove")).await.unwrap());
        assert!(!store.agents().remove(&id("a"), &entry("agent.remove")).await.unwrap());
        store.agents().add(new_agent("a", &[]), &entry("agent.add")).await.unwrap();
        let agent = store.agents().find(&id("a")).await.unwrap().unwrap();
        assert!(agent.labels.is_empty() && agent.key_sha256.is_none());
    })
    .await;
}
