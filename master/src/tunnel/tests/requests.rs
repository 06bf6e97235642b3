//! Asking for tunnels: what comes back, twice, and when it cannot be.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    peers,
    world::{World, by, eventually, request},
};
use crate::{
    store::{
        agents::AgentStatus,
        audit::AuditEntry,
        tunnels::{ListenKind, Scheme},
    },
    tunnel::{ActError, CloseReason, CreateError, ExtendError, NewTunnel, ports::PortError},
};

#[tokio::test]
async fn a_request_becomes_an_active_tunnel_that_says_so_in_order() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let mut events = world.events.subscribe();
    let view = world.open(request("home-1", target.port)).await;
    assert_eq!((view.row.status.word(), view.row.health.word()), ("active", "ok"));
    assert_eq!(view.row.listen, format!("127.0.0.1:{}", view.row.port.unwrap()));
    assert_eq!(view.row.probe["found"], "tcp");
    assert!(view.row.started_at_ms.is_some());
    let stored = world.store.tunnels().find(view.row.id).await.unwrap().unwrap();
    assert_eq!(stored.status, view.row.status);
    assert_eq!(world.event(&mut events, "tunnel.pending").await.tunnel_id, Some(view.row.id));
    assert_eq!(world.event(&mut events, "tunnel.active").await.tunnel_id, Some(view.row.id));
    world.check_listeners().await;
    world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
    assert_eq!(world.event(&mut events, "tunnel.closed").await.reason.as_deref(), Some("closed_by_user"));
    world.ends(view.row.id, "disconnected", "closed_by_user").await;
    world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
}

#[tokio::test]
async fn the_same_request_finds_the_open_tunnel() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let new = || request("home-1", target.port);
    let all = (0..20).map(|_| world.tunnels.create(new()));
    let made = futures_util::future::join_all(all).await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(made.iter().filter(|created| created.fresh).count(), 1);
    assert!(made.iter().all(|created| created.id == made[0].id));
    let other_owner = NewTunnel { owner: "token-2".into(), ..new() };
    assert!(world.tunnels.create(other_owner).await.unwrap().fresh);
    world.tunnels.close(made[0].id, CloseReason::ClosedByUser, by()).await.unwrap();
    let again = world.open(new()).await;
    assert_ne!(again.row.id, made[0].id);
    assert_eq!(again.row.port, world.view(made[0].id).await.row.port, "a port is sticky");
    world.check_listeners().await;
}

#[tokio::test]
async fn a_key_names_one_tunnel_for_ever() {
    let world = World::start().await;
    world.register("home-1").await;
    let keyed = |port| NewTunnel { idempotency_key: Some("k".into()), ..request("home-1", port) };
    let first = world.tunnels.create(keyed(5)).await.unwrap();
    world.tunnels.close(first.id, CloseReason::ClosedByUser, by()).await.unwrap();
    let again = world.tunnels.create(keyed(5)).await.unwrap();
    assert_eq!((again.id, again.fresh), (first.id, false));
    assert!(matches!(world.tunnels.create(keyed(6)).await, Err(CreateError::KeyReused)));
    world.check_listeners().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let world =
        World::start_with(|config| config.port_range = *config.port_range.start()..=*config.port_range.start()).await;
    let identity = world.register("home-1").await;
    let create = async |new| world.tunnels.create(new).await;
    let bad_host = |host: &str| {
        let mut new = request("home-1", 1);
        new.target.host = host.into();
        new
    };
    assert!(matches!(create(request("nobody", 1)).await, Err(CreateError::UnknownAgent)));
    assert!(matches!(create(request("home-1", 0)).await, Err(CreateError::Invalid(_))));
    assert!(matches!(create(bad_host("a b")).await, Err(CreateError::Invalid(_))));
    assert!(matches!(create(bad_host("")).await, Err(CreateError::Invalid(_))));
    let ttl = |seconds| Some(Duration::from_secs(seconds));
    let too_long = NewTunnel { ttl: ttl(10_000_000), ..request("home-1", 1) };
    assert!(matches!(create(too_long).await, Err(CreateError::TtlTooLong { .. })));
    let standing = NewTunnel { ttl: ttl(60), standing: true, ..request("home-1", 1) };
    assert!(matches!(create(standing).await, Err(CreateError::Invalid(_))));
    world.check_listeners().await;

    create(request("home-1", 1)).await.unwrap();
    assert!(matches!(create(request("home-1", 2)).await, Err(CreateError::Port(PortError::Full(_)))));
    world.check_listeners().await;

    let audit = AuditEntry::new(0, "local", "agent.suspend");
    world.store.agents().set_status(&identity.agent, AgentStatus::Suspended, &audit).await.unwrap();
    assert!(matches!(create(request("home-1", 3)).await, Err(CreateError::Suspended)));
}

#[tokio::test]
async fn without_a_database_nothing_is_bound() {
    let world = World::start().await;
    world.register("home-1").await;
    world.store.close().await;
    assert!(matches!(world.tunnels.create(request("home-1", 1)).await, Err(CreateError::Store(_))));
    assert!(!std::fs::read_to_string("/proc/net/tcp").unwrap().lines().skip(1).any(|line| {
        let row: Vec<_> = line.split_whitespace().collect();
        let port = u16::from_str_radix(row[1].split_once(':').unwrap().1, 16).unwrap();
        row[3] == "0A" && world.parts.config.port_range.contains(&port)
    }));
}

#[tokio::test]
async fn a_unix_socket_serves_its_owner() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(NewTunnel { listen: ListenKind::Unix, ..request("home-1", target.port) }).await;
    let path = view.row.listen.strip_prefix("unix:").unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    socket.write_all(b"ping").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut back = Vec::new();
    socket.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"ping");
    world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
    assert!(!std::path::Path::new(path).exists());
}

#[tokio::test]
async fn https_takes_any_tls_record_and_names_plain_http() {
    let world = World::start_with(|config| config.pending_timeout = Duration::from_secs(2)).await;
    let (_, _peer) = world.agent("home-1").await;
    let https = |port| {
        let mut new = request("home-1", port);
        new.target.scheme = Scheme::Https;
        new
    };
    let old = peers::answers(&[21, 3, 1, 0, 2, 2, 40]).await;
    let view = world.open(https(old.port)).await;
    assert_eq!(view.row.status.word(), "active");
    assert_eq!((&view.row.probe["found"], &view.row.probe["tls_alert"]), (&"tls".into(), &40.into()));

    let plain = peers::answers(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let view = world.open(https(plain.port)).await;
    assert_eq!((view.row.status.word(), view.row.closed_reason.as_deref()), ("timeout", Some("plain_http")));
    assert!(view.row.probe["detail"].as_str().unwrap().contains("plain HTTP"), "{}", view.row.probe);
}

#[tokio::test]
async fn extending_and_reporting_are_kept() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let id = view.row.id;
    let longer = world.tunnels.extend(id, Some(Duration::from_secs(3_600))).await.unwrap();
    assert!(longer.row.expires_at_ms.unwrap() > view.row.expires_at_ms.unwrap() + 1_000_000);
    let most = world.parts.config.ttl_max;
    world.tunnels.extend(id, Some(most)).await.ok();
    assert!(matches!(world.tunnels.extend(id, Some(most * 2)).await, Err(ExtendError::AtCap)));
    world.tunnels.report(id, Some(41), Some(42)).await.unwrap();
    assert_eq!(world.tunnels.heartbeat(id).await.unwrap(), Some(true));
    let row = world.view(id).await.row;
    assert_eq!((row.tunnel_pid, row.tunnel_port), (Some(41), Some(42)));
    assert!(row.last_heartbeat_ms.is_some());
    let stored = world.store.tunnels().find(id).await.unwrap().unwrap();
    assert_eq!((stored.tunnel_pid, stored.expires_at_ms), (Some(41), row.expires_at_ms));

    world.tunnels.close(id, CloseReason::WindowClosed, by()).await.unwrap();
    assert_eq!(world.tunnels.heartbeat(id).await.unwrap(), Some(false));
    assert!(matches!(world.tunnels.extend(id, None).await, Err(ExtendError::Act(ActError::Ended))));
    let nobody = proto::id::TunnelId::random();
    assert_eq!(world.tunnels.heartbeat(nobody).await.unwrap(), None);
    let closed = world.tunnels.close(nobody, CloseReason::ClosedByUser, by()).await;
    assert!(matches!(closed, Err(ActError::Unknown)));
    eventually("the owner is gone", async || (world.tunnels.open_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_tunnel_is_ready_in_milliseconds() {
    let world = World::start_with(|config| config.quarantine = Duration::ZERO).await;
    let (_, _peer) = world.agent("home-1").await;
    let mut times = Vec::new();
    for _ in 0..25 {
        let target = peers::echo().await;
        let started = std::time::Instant::now();
        let view = world.open(request("home-1", target.port)).await;
        times.push(started.elapsed());
        assert_eq!(view.row.status.word(), "active");
        world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
    }
    times.sort_unstable();
    assert!(times[12] <= Duration::from_millis(20), "{times:?}");
}
