//! Connections through a tunnel: their bytes, their ends, and how many there may be.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    peers,
    world::{World, by, eventually, request},
};
use crate::tunnel::CloseReason;

#[tokio::test]
async fn bytes_arrive_and_are_counted_and_half_close_works() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let socket = TcpStream::connect(&*view.row.listen).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        })
    };
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert!(back == sent);
    eventually("the connection is gone", async || (world.view(view.row.id).await.connections_open == 0).then_some(()))
        .await;
    let row = world.view(view.row.id).await.row;
    assert_eq!((row.bytes_in, row.bytes_out), (3_000_000, 3_000_000));
    world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
    let stored = world.store.tunnels().find(view.row.id).await.unwrap().unwrap();
    assert_eq!((stored.bytes_in, stored.bytes_out), (3_000_000, 3_000_000));
}

#[tokio::test]
async fn closing_resets_every_connection_and_frees_the_agents_end() {
    let world = World::start().await;
    let (_, peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(&*view.row.listen).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        socket.read_exact(&mut [0]).await.unwrap();
        sockets.push(socket);
    }
    let before = peer.connection.stats().frame_rx.reset_stream;
    let started = std::time::Instant::now();
    world.tunnels.close(view.row.id, CloseReason::ClosedByUser, by()).await.unwrap();
    for socket in &mut sockets {
        let error = timeout(Duration::from_secs(1), socket.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    eventually("the agent's streams are reset", async || {
        (peer.connection.stats().frame_rx.reset_stream >= before + 20).then_some(())
    })
    .await;
    assert!(TcpStream::connect(&*view.row.listen).await.is_err());
}

#[tokio::test]
async fn a_refused_dial_is_a_reset_and_shows_in_the_health() {
    let world = World::start().await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    drop(target);
    let refused = eventually("the target's port is closed", async || {
        let mut socket = TcpStream::connect(&*view.row.listen).await.unwrap();
        let _ = socket.write_all(b"x").await;
        socket.read(&mut [0]).await.err()
    })
    .await;
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("its health says so", async || {
        (world.view(view.row.id).await.row.health_reason.as_deref() == Some("target_refused")).then_some(())
    })
    .await;
    assert_eq!(world.view(view.row.id).await.row.status.word(), "active");
}

#[tokio::test]
async fn more_connections_than_it_may_carry_are_reset() {
    let world = World::start_with(|config| config.connections_max = 2).await;
    let (_, _peer) = world.agent("home-1").await;
    let target = peers::echo().await;
    let view = world.open(request("home-1", target.port)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(&*view.row.listen).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        socket.read_exact(&mut [0]).await.unwrap();
        held.push(socket);
    }
    let mut surplus = TcpStream::connect(&*view.row.listen).await.unwrap();
    let error = surplus.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    held.pop();
    eventually("there is room again", async || {
        let mut socket = TcpStream::connect(&*view.row.listen).await.unwrap();
        socket.write_all(b"x").await.ok()?;
        socket.read_exact(&mut [0]).await.ok()
    })
    .await;
}
