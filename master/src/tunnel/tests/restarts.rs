//! Rows and listeners across a stop, a crash and a start.

use std::time::Duration;

use super::{
    peers,
    world::{World, request},
};
use crate::{
    store::tunnels::TunnelStatus,
    tunnel::{CreateError, NewTunnel},
};

#[tokio::test]
async fn stopping_ends_what_does_not_stand_and_starting_binds_what_does() {
    let mut world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let (one, two) = (peers::echo().await, peers::echo().await);
    let plain = world.open(request("home-1", one.port)).await;
    let standing = world.open(NewTunnel { standing: true, ..request("home-1", two.port) }).await;
    let old = world.tunnels.clone();
    world.restart().await;
    assert!(matches!(old.create(request("home-1", 1)).await, Err(CreateError::Stopping)));
    let row = world.view(plain.row.id).await.row;
    assert_eq!((row.status.word(), row.closed_reason.as_deref()), ("disconnected", Some("master_stopped")));
    let again = world.tunnels.settled(standing.row.id, Duration::from_secs(10)).await.unwrap().unwrap();
    assert_eq!((again.row.status, &again.row.listen), (TunnelStatus::Active, &standing.row.listen));
    world.check_listeners().await;
    // The port of the other one still rests for everybody else.
    let stranger = world.open(NewTunnel { owner: "token-9".into(), ..request("home-1", two.port) }).await;
    assert_ne!(stranger.row.port, plain.row.port);
}

#[tokio::test]
async fn rows_of_a_dead_master_are_final_before_anything_else() {
    let mut world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    world.tunnels.stop(Duration::from_secs(10)).await;
    // As a master leaves it that was killed.
    let mut row = view.row;
    row.id = proto::id::TunnelId::random();
    row.status = TunnelStatus::Active;
    world.store.tunnels().insert(&row, &crate::store::audit::AuditEntry::new(0, "local", "test")).await.unwrap();
    world.restart().await;
    let row = world.store.tunnels().find(row.id).await.unwrap().unwrap();
    assert_eq!((row.status.word(), row.closed_reason.as_deref()), ("disconnected", Some("master_restarted")));
    world.check_listeners().await;
}

#[tokio::test]
async fn a_standing_tunnel_whose_port_was_taken_moves_and_says_so() {
    let mut world = World::start().await;
    world.register("home-1").await;
    let standing = world.tunnels.create(NewTunnel { standing: true, ..request("home-1", 1) }).await.unwrap();
    let was = world.view(standing.id).await.row.port.unwrap();
    world.tunnels.stop(Duration::from_secs(10)).await;
    let squatter = std::net::TcpListener::bind(("127.0.0.1", was)).unwrap();
    world.tunnels = crate::tunnel::Tunnels::start(world.parts.clone()).await.unwrap();
    let row = world.view(standing.id).await.row;
    assert_eq!(row.status, TunnelStatus::Pending);
    assert_ne!(row.port, Some(was));
    let stored = world.store.tunnels().find(standing.id).await.unwrap().unwrap();
    assert_eq!(stored.listen, row.listen);
    drop(squatter);
    world.check_listeners().await;
}

#[tokio::test]
async fn a_standing_tunnel_follows_its_agent() {
    let world = World::start_with(|config| config.agent_grace = Duration::from_millis(200)).await;
    let (identity, peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(NewTunnel { standing: true, ..request("home-1", target.port) }).await;
    assert_eq!((view.row.status, view.row.expires_at_ms), (TunnelStatus::Active, None));
    let mut events = world.events.subscribe();
    peer.leave();
    world.event(&mut events, "tunnel.pending").await;
    assert_eq!(world.view(view.row.id).await.row.status, TunnelStatus::Pending);
    world.check_listeners().await;
    let _peer = world.connect(&identity).await;
    world.event(&mut events, "tunnel.active").await;
    let row = world.view(view.row.id).await.row;
    assert_eq!((row.status, row.listen), (TunnelStatus::Active, view.row.listen));
}
