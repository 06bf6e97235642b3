//! A real QUIC connection inside a real WebSocket over loopback TCP: bulk both ways, readers and networks that stall, ends
//! that break, and peers that send what no honest one would.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking; figures go to its log")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use proto::net::{
    carrier::{
        Carrier, Dialed,
        frames::{self, MESSAGE_MAX},
        websocket::{self, Broken, Carried},
    },
    quic::{ServerParts, Tuning},
    stream::close_code,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config, client_async_with_config,
    tungstenite::{Message, protocol::Role},
};

const PATIENCE: Duration = Duration::from_secs(30);
const ALPN: &[u8] = b"test";

struct Ends {
    client: Dialed,
    server: quinn::Connection,
    carried: Carried,
}

struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

fn tls() -> Tls {
    let made = rcgen::generate_simple_self_signed(["test".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let mut server = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let mut client = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    Tls { server: server.into(), client: client.into() }
}

/// Both ends, the client's TCP going to `through` if there is something in between.
async fn connect(listener: &TcpListener, through: SocketAddr) -> Ends {
    let tls = tls();
    let parts = ServerParts::new(tls.server, Tuning::default()).unwrap();
    let accepting = async {
        let (tcp, peer) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let websocket = accept_async_with_config(tcp, Some(websocket::bounds())).await.unwrap();
        let carried = Carried::server(websocket, peer, &parts).unwrap();
        let connection = carried.endpoint.accept().await.unwrap().await.unwrap();
        assert_eq!(connection.remote_address(), peer, "the real address of the peer");
        (carried, connection)
    };
    let dialling = async {
        let tcp = TcpStream::connect(through).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let peer = tcp.peer_addr().unwrap();
        let request = format!("ws://test{}", websocket::PATH);
        let (websocket, _) = client_async_with_config(request, tcp, Some(websocket::bounds())).await.unwrap();
        Carried::dial(websocket, peer, tls.client, "test", &Tuning::default()).await.unwrap()
    };
    let ((carried, server), client) = timeout(PATIENCE, async { tokio::join!(accepting, dialling) }).await.unwrap();
    assert_eq!(client.carrier, Carrier::WebSocket);
    Ends { client, server, carried }
}

async fn ends() -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    connect(&listener, address).await
}

/// Sends `length` bytes from one end to the other and compares what arrives.
async fn carry(from: &quinn::Connection, to: &quinn::Connection, length: usize) {
    let sending = async {
        // The master's end allows few streams, so each direction takes one.
        let mut stream = from.open_bi().await.unwrap().0;
        let (mut sent, mut left, mut piece) = (Sha256::new(), length, vec![0_u8; 48 * 1024]);
        while left > 0 {
            let now = left.min(piece.len());
            piece.iter_mut().enumerate().for_each(|(i, byte)| *byte = (left.wrapping_mul(31) + i) as u8);
            sent.update(&piece[..now]);
            stream.write_all(&piece[..now]).await.unwrap();
            left -= now;
        }
        stream.finish().unwrap();
        let _ = stream.stopped().await;
        sent.finalize()
    };
    let receiving = async {
        let (_, mut stream) = to.accept_bi().await.unwrap();
        let (mut got, mut count) = (Sha256::new(), 0);
        while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
            count += chunk.bytes.len();
            got.update(&chunk.bytes);
        }
        assert_eq!(count, length);
        got.finalize()
    };
    let (sent, got) = timeout(PATIENCE, async { tokio::join!(sending, receiving) }).await.expect("it arrives in time");
    assert_eq!(sent, got);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_both_ways_and_nothing_is_lost() {
    let ends = ends().await;
    let started = std::time::Instant::now();
    let (client, server) = (&ends.client.connection, &ends.server);
    tokio::join!(carry(client, server, 48 << 20), carry(server, client, 48 << 20));
    println!("2 x 48 MiB in {:?}", started.elapsed());
    for (end, stats) in [("client", client.stats()), ("server", server.stats())] {
        assert_eq!(stats.path.lost_packets, 0, "{end}: nothing is lost inside TCP");
        assert_eq!(stats.path.current_mtu, frames::PACKET_MAX, "{end}");
        assert!(stats.udp_tx.ios * 3 < stats.udp_tx.datagrams * 2, "{end}: packets travel in batches: {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_holds_up_nobody_else() {
    let ends = ends().await;
    let mut stalled = ends.server.open_bi().await.unwrap().0;
    let filling = async {
        let piece = vec![7; 1 << 20];
        loop {
            stalled.write_all(&piece).await.unwrap();
        }
    };
    let others = async {
        let (_send, _unread) = ends.client.connection.accept_bi().await.unwrap();
        carry(&ends.server, &ends.client.connection, 8 << 20).await;
        carry(&ends.client.connection, &ends.server, 8 << 20).await;
    };
    tokio::select! {
        () = filling => unreachable!("nobody reads it"),
        () = others => {}
    }
}

/// Carries TCP to `upstream` while `open` is true.
async fn tap(listener: TcpListener, upstream: SocketAddr, open: watch::Receiver<bool>) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(upstream).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut back = open.clone();
    let mut there = open;
    let forth = async {
        let mut piece = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_client.read(&mut piece).await {
            there.wait_for(|open| *open).await.unwrap();
            to_server.write_all(&piece[..length]).await.unwrap();
        }
    };
    let return_way = async {
        let mut piece = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            back.wait_for(|open| *open).await.unwrap();
            to_client.write_all(&piece[..length]).await.unwrap();
        }
    };
    tokio::join!(forth, return_way);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stands_still_costs_time_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = between.local_addr().unwrap();
    let (open, opened) = watch::channel(true);
    let mut tasks = JoinSet::new();
    tasks.spawn(tap(between, listener.local_addr().unwrap(), opened));
    let ends = connect(&listener, through).await;
    let standing_still = async {
        for _ in 0..3 {
            // The length of the pause is what is tested: some probes long, shorter than any deadline.
            tokio::time::sleep(Duration::from_millis(300)).await;
            open.send_replace(false);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            open.send_replace(true);
        }
    };
    tokio::join!(standing_still, carry(&ends.client.connection, &ends.server, 64 << 20));
    assert!(ends.server.close_reason().is_none());
}

#[tokio::test]
async fn a_broken_websocket_ends_its_connection_at_once() {
    let mut ends = ends().await;
    let started = std::time::Instant::now();
    drop(ends.client);
    let broken = timeout(PATIENCE, ends.carried.broken()).await.unwrap();
    assert!(matches!(broken, Broken::Closed | Broken::Failed(_)), "{broken:?}");
    timeout(PATIENCE, ends.server.closed()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_close_is_heard_with_its_code_before_the_websocket_ends() {
    let ends = ends().await;
    ends.client.connection.close(0x04u32.into(), b"suspended");
    let started = std::time::Instant::now();
    let (error, ()) = tokio::join!(ends.server.closed(), ends.client.finish(Duration::from_secs(2)));
    assert_eq!(close_code(&error).0, 0x04);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// A server's end that a test may send anything to.
async fn raw() -> (WebSocketStream<TcpStream>, Carried) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let parts = ServerParts::new(tls().server, Tuning::default()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let server = WebSocketStream::from_raw_socket(server, Role::Server, Some(websocket::bounds())).await;
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    (client, Carried::server(server, peer, &parts).unwrap())
}

#[tokio::test]
async fn what_no_honest_peer_sends_closes_with_a_reason() {
    let empty_segment = frames::encode(0, 0, b"x");
    let many = frames::encode(0, 1, &[7; 11]);
    for (what, message, code, said) in [
        ("text", Message::text("hello"), 1003, "not binary"),
        ("nothing", Message::binary(Vec::new()), 1008, "cannot be"),
        ("a head alone", Message::binary(vec![0, 1, 0]), 1008, "cannot be"),
        ("no segment size", Message::Binary(empty_segment), 1008, "cannot be"),
        ("many packets", Message::Binary(many), 1008, "cannot be"),
        ("a huge message", Message::binary(vec![0; MESSAGE_MAX + 1]), 1009, "failed"),
        ("a huge one in pieces", Message::binary(vec![0; 1 << 20]), 1009, "failed"),
    ] {
        let (mut client, mut carried) = raw().await;
        // What is cut in the middle fails to be sent; the end is what counts.
        let _ = client.send(message).await;
        let broken = timeout(PATIENCE, carried.broken()).await.unwrap();
        assert!(broken.to_string().contains(said), "{what}: {broken}");
        if code == 1009 {
            // The rest of what was too large is never read, and a reset may overtake the farewell.
            continue;
        }
        let farewell = timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
        let Message::Close(Some(frame)) = farewell else { panic!("{what}: {farewell:?}") };
        assert_eq!(u16::from(frame.code), code, "{what}: {frame:?}");
    }
}

#[tokio::test]
async fn garbage_is_no_quic_and_brings_nothing_down() {
    let (mut client, mut carried) = raw().await;
    for size in [1, 20, 1200, 4096] {
        let garbage: Vec<u8> = (0..size * 3).map(|i| (i * 7 + size) as u8).collect();
        client.send(Message::Binary(frames::encode(3, size as u16, &garbage))).await.unwrap();
    }
    let waited = timeout(Duration::from_millis(500), carried.broken()).await;
    assert!(waited.is_err(), "packets that are none are dropped, as on any network: {waited:?}");
    drop(client);
    timeout(PATIENCE, carried.broken()).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_websocket_end_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let parts = ServerParts::new(tls().server, Tuning::default()).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    let server = WebSocketStream::from_raw_socket(server, Role::Server, Some(websocket::bounds())).await;
    let mut carried = Carried::server(server, peer, &parts).unwrap();
    client.write_all(&[0xff; 4096]).await.unwrap();
    let broken = timeout(PATIENCE, carried.broken()).await.unwrap();
    assert!(matches!(broken, Broken::Failed(_)), "{broken:?}");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, copy(&mut client, &mut rest)).await.unwrap();
}
