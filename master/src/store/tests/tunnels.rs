//! Tunnels: every column round trips, final is final, a restart reconciles.

use proto::id::TunnelId;
use serde_json::json;

use super::*;
use crate::store::{
    Page,
    testing::on_both,
    tunnels::{
        Counters, Health, InsertTunnelError, ListenKind, Scheme, Tunnel, TunnelFilter, TunnelStatus, TunnelTarget,
    },
};

fn target(port: u16) -> TunnelTarget {
    TunnelTarget { host: "localhost".into(), port, scheme: Scheme::Https }
}

/// A pending tunnel of agent `a`, with only what a new one has.
fn pending(at_ms: i64, port: u16) -> Tunnel {
    Tunnel {
        id: TunnelId::random(),
        agent_id: id("a"),
        owner: "token".into(),
        target: target(443),
        listen_kind: ListenKind::Tcp,
        listen: format!("127.0.0.1:{port}"),
        port: Some(port),
        standing: false,
        heartbeat: true,
        ttl_ms: None,
        status: TunnelStatus::Pending,
        health: Health::Unknown,
        health_since_ms: None,
        health_reason: None,
        closed_reason: None,
        tunnel_pid: None,
        tunnel_port: None,
        created_at_ms: at_ms,
        started_at_ms: None,
        last_heartbeat_ms: None,
        expires_at_ms: None,
        closed_at_ms: None,
        bytes_in: 0,
        bytes_out: 0,
        probe: json!(null),
        idempotency_key: None,
    }
}

/// The same tunnel with every changing column filled.
fn filled(tunnel: &Tunnel) -> Tunnel {
    Tunnel {
        listen_kind: ListenKind::Unix,
        listen: "/run/t.sock".into(),
        port: None,
        heartbeat: false,
        ttl_ms: Some(1),
        status: TunnelStatus::Active,
        health: Health::Failing,
        health_since_ms: Some(2),
        health_reason: Some("target_refused".into()),
        closed_reason: Some("user".into()),
        tunnel_pid: Some(3),
        tunnel_port: Some(4),
        started_at_ms: Some(5),
        last_heartbeat_ms: Some(6),
        expires_at_ms: Some(7),
        closed_at_ms: Some(8),
        bytes_in: 9,
        bytes_out: 10,
        probe: json!({"tls": "1.2"}),
        ..tunnel.clone()
    }
}

async fn insert(store: &Store, tunnel: &Tunnel) {
    store.tunnels().insert(tunnel, &entry("tunnel.open")).await.unwrap();
}

#[tokio::test]
async fn every_column_round_trips() {
    on_both(async |store| {
        let plain = Tunnel { idempotency_key: Some("k".into()), ..pending(NOW, 8_001) };
        let full = Tunnel { standing: true, ..filled(&pending(NOW, 8_002)) };
        for tunnel in [&plain, &full] {
            insert(&store, tunnel).await;
            assert_eq!(store.tunnels().find(tunnel.id).await.unwrap().as_ref(), Some(tunnel));
        }
        let changed = filled(&plain);
        assert!(store.tunnels().update(&changed, None).await.unwrap());
        assert_eq!(store.tunnels().find(plain.id).await.unwrap(), Some(changed));
        assert_eq!(store.tunnels().find(TunnelId::random()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn final_is_final() {
    on_both(async |store| {
        let open = pending(NOW, 8_001);
        insert(&store, &open).await;
        let closed = Tunnel { status: TunnelStatus::Expired, closed_reason: Some("expired".into()), ..open.clone() };
        assert!(store.tunnels().update(&closed, Some(&entry("tunnel.close"))).await.unwrap());
        let back = Tunnel { status: TunnelStatus::Active, ..open.clone() };
        assert!(!store.tunnels().update(&back, Some(&entry("tunnel.active"))).await.unwrap());
        assert_eq!(store.tunnels().find(open.id).await.unwrap().unwrap().status, TunnelStatus::Expired);
        store.tunnels().set_counters(&[Counters { id: open.id, bytes_in: 1 << 40, bytes_out: 2 }]).await.unwrap();
        assert_eq!(store.tunnels().find(open.id).await.unwrap().unwrap().bytes_in, 1 << 40);
        let audited = store.audit_rows(&AuditFilter::default(), &Page::default()).await.unwrap();
        assert_eq!(audited.items.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn create_is_idempotent_by_key_and_by_spec() {
    on_both(async |store| {
        let tunnel = Tunnel { idempotency_key: Some("k".into()), ..pending(NOW, 8_001) };
        insert(&store, &tunnel).await;
        let second = Tunnel { id: TunnelId::random(), ..tunnel.clone() };
        let twice = store.tunnels().insert(&second, &entry("tunnel.open")).await;
        assert!(matches!(twice, Err(InsertTunnelError::Exists)), "{twice:?}");
        // Keys belong to their owner, and no key is no key.
        insert(&store, &Tunnel { owner: "other".into(), ..second }).await;
        insert(&store, &pending(NOW, 8_002)).await;
        insert(&store, &pending(NOW, 8_003)).await;

        let found = store.tunnels().by_idempotency_key("token", "k").await.unwrap();
        assert_eq!(found.map(|tunnel| tunnel.id), Some(tunnel.id));
        assert_eq!(store.tunnels().by_idempotency_key("token", "x").await.unwrap(), None);
        let open = async |agent: &str, target: TunnelTarget, owner: &str| {
            store.tunnels().open_for(&id(agent), &target, owner).await.unwrap().is_some()
        };
        assert!(open("a", target(443), "token").await);
        assert!(!open("b", target(443), "token").await);
        assert!(!open("a", target(80), "token").await);
        assert!(!open("a", target(443), "nobody").await);
        assert!(!open("a", TunnelTarget { scheme: Scheme::Tcp, ..target(443) }, "token").await);
    })
    .await;
}

#[tokio::test]
async fn the_port_sticks_to_agent_and_target() {
    on_both(async |store| {
        let old = Tunnel { status: TunnelStatus::Timeout, closed_at_ms: Some(NOW), ..pending(NOW, 8_001) };
        insert(&store, &old).await;
        insert(&store, &Tunnel { status: TunnelStatus::Expired, ..pending(NOW + 1, 8_002) }).await;
        insert(&store, &Tunnel { port: None, listen_kind: ListenKind::Unix, ..pending(NOW + 2, 0) }).await;
        assert_eq!(store.tunnels().sticky_port(&id("a"), &target(443)).await.unwrap(), Some(8_002));
        assert_eq!(store.tunnels().sticky_port(&id("a"), &target(444)).await.unwrap(), None);
        assert_eq!(store.tunnels().sticky_port(&id("b"), &target(443)).await.unwrap(), None);
        assert_eq!(
            store.tunnels().open_for(&id("a"), &target(443), "token").await.unwrap().map(|t| t.port),
            Some(None)
        );
    })
    .await;
}

#[tokio::test]
async fn a_restart_leaves_no_row_that_says_active() {
    on_both(async |store| {
        let active = Tunnel { status: TunnelStatus::Active, ..pending(NOW, 8_001) };
        let opening = pending(NOW, 8_002);
        let done =
            Tunnel { status: TunnelStatus::Timeout, closed_reason: Some("timeout".into()), ..pending(NOW, 8_003) };
        let standing = Tunnel { standing: true, health: Health::Ok, ..Tunnel { port: Some(8_004), ..active.clone() } };
        let standing = Tunnel { id: TunnelId::random(), ..standing };
        for tunnel in [&active, &opening, &done, &standing] {
            insert(&store, tunnel).await;
        }
        let reconciled = store.tunnels().close_stale(NOW + 9, &entry("master.start")).await.unwrap();
        let mut closed: Vec<_> = reconciled.closed.iter().map(|tunnel| tunnel.port).collect();
        closed.sort_unstable();
        assert_eq!(closed, [Some(8_001), Some(8_002)]);
        for tunnel in &reconciled.closed {
            assert_eq!(tunnel.closed_reason.as_deref(), Some("master_restarted"));
            assert_eq!((tunnel.status, tunnel.closed_at_ms), (TunnelStatus::Disconnected, Some(NOW + 9)));
        }
        let expected = Tunnel { status: TunnelStatus::Pending, health: Health::Unknown, ..standing };
        assert_eq!(reconciled.standing, std::slice::from_ref(&expected));
        assert_eq!(store.tunnels().standing().await.unwrap(), [expected]);
        assert_eq!(store.tunnels().find(done.id).await.unwrap(), Some(done));
        let again = store.tunnels().close_stale(NOW + 10, &entry("master.start")).await.unwrap();
        assert!(again.closed.is_empty() && again.standing.len() == 1);
    })
    .await;
}

#[tokio::test]
async fn lists_filter_and_page_newest_first() {
    on_both(async |store| {
        add(&store, "a", &[("site", "home")]).await;
        let mut ids = Vec::new();
        for number in 0..5_u16 {
            // Two share a time, so that paging has to break the tie.
            let tunnel = pending(NOW + i64::from(number / 2), 8_000 + number);
            insert(&store, &tunnel).await;
            ids.push(tunnel.id);
        }
        let mut page = Page { cursor: None, limit: 2 };
        let mut seen = Vec::new();
        loop {
            let paged = store.tunnels().list(&TunnelFilter::default(), &page).await.unwrap();
            seen.extend(paged.items.iter().map(|tunnel| (tunnel.created_at_ms, tunnel.id)));
            page.cursor = paged.next_cursor;
            if page.cursor.is_none() {
                break;
            }
        }
        assert!(seen.windows(2).all(|pair| pair[0] > pair[1]) && seen.len() == 5, "{seen:?}");
        let count =
            async |filter: TunnelFilter| store.tunnels().list(&filter, &Page::default()).await.unwrap().items.len();
        let any = TunnelFilter::default;
        assert_eq!(count(TunnelFilter { agent_id: Some(id("b")), ..any() }).await, 0);
        assert_eq!(count(TunnelFilter { status: Some(TunnelStatus::Active), ..any() }).await, 0);
        assert_eq!(count(TunnelFilter { open: true, owner: Some("token".into()), ..any() }).await, 5);
        assert_eq!(count(TunnelFilter { selector: "site=home".parse().unwrap(), ..any() }).await, 5);
        assert_eq!(count(TunnelFilter { selector: "site=office".parse().unwrap(), ..any() }).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_panels_report_and_heartbeat_are_kept() {
    on_both(async |store| {
        let tunnel = pending(NOW, 8_001);
        insert(&store, &tunnel).await;
        store.tunnels().set_reported(tunnel.id, Some(42), None).await.unwrap();
        store.tunnels().set_reported(tunnel.id, None, Some(9_000)).await.unwrap();
        store.tunnels().set_heartbeat(tunnel.id, NOW + 1).await.unwrap();
        let found = store.tunnels().find(tunnel.id).await.unwrap().unwrap();
        assert_eq!((found.tunnel_pid, found.tunnel_port), (Some(42), Some(9_000)));
        assert_eq!(found.last_heartbeat_ms, Some(NOW + 1));
    })
    .await;
}
