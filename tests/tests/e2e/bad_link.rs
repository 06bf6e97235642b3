//! The bad link of the tests does what it is asked for, and a line lives behind it.

use std::time::{Duration, Instant};

use landline_tests::{
    link::{Link, Loss, Shape},
    master::Master,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Answers every datagram with itself, behind the address it came from.
async fn echo() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn round(client: &UdpSocket, server: &UdpSocket, number: u32) -> Option<(Duration, std::net::SocketAddr)> {
    let started = Instant::now();
    client.send(&number.to_be_bytes()).await.unwrap();
    let mut buffer = [0; 64];
    let there = tokio::time::timeout(Duration::from_millis(500), server.recv_from(&mut buffer)).await.ok()?;
    let (length, from) = there.unwrap();
    server.send_to(&buffer[..length], from).await.unwrap();
    tokio::time::timeout(Duration::from_millis(500), client.recv(&mut buffer)).await.ok()?.unwrap();
    Some((started.elapsed(), from))
}

#[tokio::test]
async fn a_link_delays_loses_cuts_and_readdresses_datagrams() {
    let server = echo().await;
    let link = Link::start(server.local_addr().unwrap(), 7).await;
    let client = echo().await;
    client.connect(link.address).await.unwrap();

    let (plain, first) = round(&client, &server, 0).await.unwrap();
    assert!(plain < Duration::from_millis(100), "{plain:?}");
    link.shape(Shape { delay: Duration::from_millis(60), ..Shape::default() });
    let (delayed, same) = round(&client, &server, 1).await.unwrap();
    assert!(delayed >= Duration::from_millis(120), "{delayed:?}");
    assert_eq!(first, same);
    link.readdress();
    let (_, other) = round(&client, &server, 2).await.unwrap();
    assert_ne!(first, other, "a new source address");

    link.shape(Shape { loss: Loss::Uniform(0.3), ..Shape::default() });
    let send = async {
        for number in 0..1_000_u32 {
            client.send(&number.to_be_bytes()).await.unwrap();
            // The pace of the sender: a burst would overflow the socket instead of the link.
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    };
    let count = async {
        let mut arrived = 0;
        let mut buffer = [0; 64];
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(500), server.recv_from(&mut buffer)).await {
            arrived += 1;
        }
        arrived
    };
    let ((), arrived) = tokio::join!(send, count);
    assert!((600..800).contains(&arrived), "{arrived} of 1,000 arrived at a loss of 30 %");

    link.shape(Shape::default());
    link.cut();
    assert!(round(&client, &server, 3).await.is_none(), "cut");
    link.restore();
    assert!(round(&client, &server, 4).await.is_some(), "restored");
}

#[tokio::test]
async fn a_link_slows_tcp_to_its_rate_and_resets_it_with_a_new_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::start(listener.local_addr().unwrap(), 7).await;
    link.shape(Shape { rate: Some(1_000_000), ..Shape::default() });
    let mut client = TcpStream::connect(link.address).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let started = Instant::now();
    let send = async {
        client.write_all(&[7; 500_000]).await.unwrap();
        client.flush().await.unwrap();
        client
    };
    let mut got = vec![0; 500_000];
    let (mut client, read) = tokio::join!(send, server.read_exact(&mut got));
    read.unwrap();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(450), "500 KB at 1 MB/s took {took:?}");
    link.readdress();
    let error = tokio::time::timeout(Duration::from_secs(5), client.read(&mut [0; 1])).await.unwrap();
    assert!(error.is_err(), "a reset");
}

/// The line itself lives behind a slow and lossy link, and its new address is noticed by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_works_behind_a_bad_link_and_changes_its_address() {
    let master = Master::start().await;
    let (_agent, link) = master.agent_behind("far", 3).await;
    link.shape(Shape { delay: Duration::from_millis(20), loss: Loss::Uniform(0.05), ..Shape::default() });
    let api = master.api();
    let before = api.agent("far").await["connected_at"].clone();
    for round in 0..3 {
        link.readdress();
        let info = api
            .post(
                "/agents/far/commands",
                serde_json::json!({ "id": round.to_string(), "type": "SYSTEM", "service": "system", "action": "getInfo", "timestamp": now_s() }),
            )
            .await;
        assert_eq!(info["status"], "success", "round {round}: {info}");
    }
    assert_eq!(api.agent("far").await["connected_at"], before, "the same line all along");
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
