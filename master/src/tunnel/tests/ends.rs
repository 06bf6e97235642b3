//! How tunnels end, and how they do not: every way but a dead master, with real agents.

use std::time::Duration;

use proto::code::Code;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    peers,
    world::{World, by, eventually, request},
};
use crate::tunnel::{ActError, CloseReason, NewTunnel};

#[tokio::test]
async fn an_offline_agent_leaves_it_pending_until_the_timeout() {
    let world = World::start_with(|config| config.pending_timeout = Duration::from_millis(300)).await;
    world.register("home-1").await;
    let created = world.tunnels.create(request("home-1", 1)).await.unwrap();
    assert_eq!(world.view(created.id).await.row.status.word(), "pending");
    world.ends(created.id, "timeout", "agent_offline").await;
}

#[tokio::test]
async fn a_target_that_refuses_is_tried_until_the_timeout() {
    let world = World::start_with(|config| config.pending_timeout = Duration::from_millis(500)).await;
    let (_, _peer) = world.agent("home-1").await;
    let created = world.tunnels.create(request("home-1", peers::nobody().await)).await.unwrap();
    eventually("its health says why", async || {
        (world.view(created.id).await.row.health_reason.as_deref() == Some("target_refused")).then_some(())
    })
    .await;
    world.ends(created.id, "timeout", "target_refused").await;
}

#[tokio::test]
async fn an_agent_or_a_target_that_comes_late_is_in_time() {
    let world = World::start().await;
    let identity = world.register("home-1").await;
    let port = peers::nobody().await;
    let created = world.tunnels.create(request("home-1", port)).await.unwrap();
    let _peer = world.connect(&identity).await;
    eventually("the probe fails first", async || {
        (world.view(created.id).await.row.health.word() == "failing").then_some(())
    })
    .await;
    let _target = peers::echo_on(port).await;
    let view = world.tunnels.settled(created.id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!((view.row.status.word(), view.row.health.word()), ("active", "ok"));
}

#[tokio::test]
async fn what_the_policy_forbids_ends_at_once() {
    let world = World::start().await;
    let (identity, _peer) = world.agent("home-1").await;
    *identity.refuse.lock().unwrap() = Some(Code::POLICY);
    let created = world.tunnels.create(request("home-1", 22)).await.unwrap();
    world.ends(created.id, "disconnected", "policy").await;
}

#[tokio::test]
async fn deadlines_end_it() {
    let short = Duration::from_millis(300);
    let world = World::start_with(|config| {
        config.heartbeat_timeout = short;
        config.idle = Some(short * 2);
    })
    .await;
    let (_, _peer) = world.agent("home-1").await;
    let (one, two, three) = (peers::echo().await, peers::echo().await, peers::echo().await);
    let beating = world.open(NewTunnel { heartbeat: true, ..request("home-1", one.port) }).await;
    let idle = world.open(request("home-1", two.port)).await;
    let expiring =
        world.open(NewTunnel { ttl: Some(Duration::from_millis(400)), ..request("home-1", three.port) }).await;
    world.ends(beating.row.id, "disconnected", "heartbeat_lost").await;
    world.ends(expiring.row.id, "expired", "expired").await;
    world.ends(idle.row.id, "disconnected", "idle").await;
}

#[tokio::test]
async fn an_open_connection_is_not_idle() {
    let world = World::start_with(|config| config.idle = Some(Duration::from_millis(200))).await;
    let (_, _peer) = world.agent("home-1").await;
    let (used, unused) = (peers::echo().await, peers::echo().await);
    let busy = world.open(request("home-1", used.port)).await;
    let mut socket = TcpStream::connect(&*busy.row.listen).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    socket.read_exact(&mut [0]).await.unwrap();
    // Two that were opened later and were idle all along end before it.
    for _ in 0..2 {
        let quiet = world.open(request("home-1", unused.port)).await;
        world.ends(quiet.row.id, "disconnected", "idle").await;
    }
    assert_eq!(world.view(busy.row.id).await.row.status.word(), "active");
    drop(socket);
    world.ends(busy.row.id, "disconnected", "idle").await;
}

#[tokio::test]
async fn an_agent_lost_past_the_grace_ends_it() {
    let world = World::start_with(|config| config.agent_grace = Duration::from_millis(300)).await;
    let (_, peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    peer.leave();
    world.ends(view.row.id, "disconnected", "agent_lost").await;
}

#[tokio::test]
async fn a_connection_made_while_the_agent_is_away_completes_when_it_is_back() {
    let world = World::start().await;
    let (identity, peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let mut link = world.fleet.watch(&identity.agent);
    link.borrow_and_update();
    peer.leave();
    link.changed().await.unwrap();
    let mut parked = TcpStream::connect(&*view.row.listen).await.unwrap();
    parked.write_all(b"wait for me").await.unwrap();
    eventually("it is parked", async || (world.view(view.row.id).await.connections_open == 1).then_some(())).await;
    let _peer = world.connect(&identity).await;
    let mut back = [0; 11];
    parked.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"wait for me");
    assert_eq!(world.view(view.row.id).await.row.status.word(), "active");
}

#[tokio::test]
async fn a_parked_connection_is_reset_in_the_end() {
    let world = World::start_with(|config| config.park = Duration::from_millis(200)).await;
    let (identity, peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let mut link = world.fleet.watch(&identity.agent);
    link.borrow_and_update();
    peer.leave();
    link.changed().await.unwrap();
    let mut parked = TcpStream::connect(&*view.row.listen).await.unwrap();
    let error = parked.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn suspension_and_removal_end_both_kinds_at_once() {
    for (code, reason) in [(Code::SUSPENDED, "suspended"), (Code::REMOVED, "removed")] {
        let world = World::start().await;
        let (identity, _peer) = world.agent("home-1").await;
        let (one, two) = (peers::echo().await, peers::echo().await);
        let plain = world.open(request("home-1", one.port)).await;
        let standing = world.open(NewTunnel { standing: true, ..request("home-1", two.port) }).await;
        world.fleet.cut(&identity.agent, code);
        world.ends(plain.row.id, "disconnected", reason).await;
        world.ends(standing.row.id, "disconnected", reason).await;
    }
}

#[tokio::test]
async fn an_owners_lockdown_ends_a_plain_one_and_a_standing_one_waits_for_its_end() {
    let world = World::start().await;
    let (identity, peer) = world.agent("home-1").await;
    let (one, two) = (peers::echo().await, peers::echo().await);
    let plain = world.open(request("home-1", one.port)).await;
    let standing = world.open(NewTunnel { standing: true, ..request("home-1", two.port) }).await;
    peer.leave_with(Code::OWNER_LOCKDOWN);
    world.ends(plain.row.id, "disconnected", "locked_down_by_owner").await;
    let _peer = world.connect(&identity).await;
    let mut socket = TcpStream::connect(&*standing.row.listen).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    socket.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_no_database() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let mut socket = TcpStream::connect(&*view.row.listen).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    socket.read_exact(&mut [0]).await.unwrap();
    world.store.close().await;
    let closed = world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await;
    assert!(matches!(closed, Err(ActError::Store(_))));
    let error = socket.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(TcpStream::connect(&*view.row.listen).await.is_err());
    // It is tried again for as long as the master lives; until then nobody is told that it is over.
    assert_eq!(world.view(view.row.id).await.row.status.word(), "active");
    world.tunnels.stop(Duration::from_secs(10)).await;
    assert_eq!(world.tunnels.open_count(), 0);
}

#[tokio::test]
async fn a_target_that_dies_later_shows_in_its_health_alone() {
    let world = World::start().await;
    let (_, mut peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let port = target.port;
    let view = world.open(request("home-1", port)).await;
    drop(target);
    eventually("a probe at a heartbeat finds out", async || {
        peer.beat().await;
        let row = world.view(view.row.id).await.row;
        (row.health.word() == "failing" && row.health_since_ms.is_some()).then_some(())
    })
    .await;
    let row = world.view(view.row.id).await.row;
    assert_eq!((row.status.word(), row.health_reason.as_deref()), ("active", Some("target_refused")));
    let _target = peers::echo_on(port).await;
    eventually("a real connection finds it back", async || {
        let mut socket = TcpStream::connect(&*row.listen).await.unwrap();
        let _ = socket.write_all(b"x").await;
        let _ = socket.read(&mut [0]).await;
        (world.view(view.row.id).await.row.health.word() == "ok").then_some(())
    })
    .await;
}
