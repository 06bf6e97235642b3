//! Thousands of connections on the public TCP port that never become anything: silent ones, ones that stop after TLS, and
//! WebSockets in which nobody speaks. Who means it connects as if they were not there (SECURITY R32, R37).

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use landline_tests::{
    master::Master,
    outside::{line, tcp, tls, websocket},
    puppet::Puppet,
    soak,
    wait::until,
};
use tokio::{io::AsyncReadExt as _, task::JoinSet};

const TRIES: usize = 50;
const SOON: Duration = Duration::from_secs(60);
/// What is promised to a legitimate agent, 99 times in 100.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);
/// What the master may take for all of them.
const GROWS_BY: u64 = 384 << 20;
/// One that was closed comes again after this long: a steady flood, not a race for the processor.
const COMES_AGAIN: Duration = Duration::from_secs(5);

/// Comes, says as much as its kind does, holds on until the master closes, and comes again.
async fn stranger(to: SocketAddr, number: usize, open: Arc<AtomicUsize>) {
    // Addresses of their own, as a botnet would have: 127.1.x.y.
    let from = Ipv4Addr::new(127, 1, (number / 250) as u8, (number % 250 + 1) as u8);
    loop {
        match number % 8 {
            0 => {
                if let Ok(mut websocket) = websocket(to, from).await {
                    open.fetch_add(1, Ordering::Relaxed);
                    while websocket.next().await.is_some_and(|message| message.is_ok()) {}
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            1 => {
                if let Ok(mut stream) = tls(to, from).await {
                    open.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.read(&mut [0; 1]).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            _ => {
                if let Ok(mut socket) = tcp(to, from).await {
                    open.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.read(&mut [0; 1]).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        // The pace of the flood.
        tokio::time::sleep(COMES_AGAIN.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_half_open_connections_on_tcp_keep_nobody_out() {
    // Above what the master holds at once, in the short form as well.
    let strangers = soak::count(2_500, 5_000);
    let mut master = Master::start().await;
    let folder = tempfile::tempdir().unwrap();
    let puppet = Puppet::enrolled(&master.add("patient").await, folder.path()).await;
    let to: SocketAddr = puppet.token.address.parse().unwrap();
    let before = master.process().resident();
    let (open, mut flood) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for number in 0..strangers {
        flood.spawn(stranger(to, number, open.clone()));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    until(SOON, "the master is full of strangers", || open.load(Ordering::Relaxed) >= 2_000).await;
    let mut times = Vec::new();
    for number in 0..TRIES {
        let started = Instant::now();
        // Each from an address of its own: one address alone has four places.
        let line = line(&puppet, Ipv4Addr::new(127, 2, 0, number as u8 + 1)).await;
        times.push(started.elapsed());
        assert!(line.is_ok(), "{number}: kept out by {:#}", line.err().unwrap());
    }
    times.sort();
    let (held, grown) = (open.load(Ordering::Relaxed), master.process().resident().saturating_sub(before));
    println!(
        "{strangers} strangers, {held} of them held open: an agent inside a WebSocket connects in {:?} (median), {:?} (p99); \
         the master grew by {} MiB",
        times[TRIES / 2],
        times[TRIES * 99 / 100],
        grown >> 20
    );
    flood.shutdown().await;
    assert!(times[TRIES * 99 / 100] <= CONNECTS_WITHIN, "{times:?}");
    assert!(grown <= GROWS_BY, "{grown}");
    assert!(!master.log().contains("panicked"));
}
