//! Tunnels at their limits: out of descriptors, and opened and closed by many at once while their agent comes and goes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use landline_tests::{
    api::{Api, port_of},
    master::Master,
    process::cpu,
    sockets::descriptors,
    wait::eventually,
};
use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

/// Sends everything back.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
        }
    });
    port
}

fn pings(port: u16) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(b"ping")?;
    socket.read_exact(&mut [0; 4])?;
    Ok(socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_without_descriptors_nothing_spins_and_all_recovers() {
    let mut master = Master::start().await;
    let _agent = master.agent("scarce").await;
    let tunnel = master.api().open_tunnel("scarce", echo(), "tcp").await;
    let port = port_of(&tunnel);
    let pid = master.process().pid();
    let handle = Pid::from_raw(pid as i32);
    let few = Rlimit { current: Some(descriptors(pid) as u64 + 10), maximum: Some(4096) };
    prlimit(handle, Resource::Nofile, few).unwrap();

    let mut crowd: Vec<_> = (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    eventually(Duration::from_secs(5), "the master ran out of descriptors", || async {
        master.log().contains("cannot accept").then_some(())
    })
    .await;
    let (before, started) = (cpu(pid), Instant::now());
    eventually(Duration::from_secs(5), "a second has passed", || async {
        (started.elapsed() >= Duration::from_secs(1)).then_some(())
    })
    .await;
    let busy = cpu(pid) - before;
    assert!(busy < started.elapsed() / 4, "{busy:?} of {:?} on the processor", started.elapsed());

    crowd.clear();
    let freed = Instant::now();
    eventually(Duration::from_secs(5), "a connection goes through", || async { pings(port).ok() }).await;
    assert!(freed.elapsed() < Duration::from_secs(1), "recovered after {:?}", freed.elapsed());
    assert_eq!(master.api().tunnel(tunnel["id"].as_str().unwrap()).await["status"], "active");
}

/// Opens and closes one tunnel after the other until `until`.
async fn churn(api: Api, target: u16, until: Instant) -> u32 {
    let mut rounds = 0;
    while Instant::now() < until {
        let body =
            json!({ "agent_id": "churn", "target": { "host": "127.0.0.1", "port": target }, "heartbeat": false });
        let tunnel = api.post("/tunnels?wait=1s", body).await;
        if tunnel["status"] == "active" {
            // While the agent is away it parks, and may be reset: what matters here is what stays behind.
            let port = port_of(&tunnel);
            let _ = tokio::task::spawn_blocking(move || pings(port)).await.unwrap();
        }
        let path = format!("/tunnels/{}", tunnel["id"].as_str().unwrap());
        let (status, answer) = api.call(Method::DELETE, &path, None).await;
        assert!(status.is_success(), "{status} {answer}");
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_sockets_equal_rows_while_everything_moves() {
    let master = Master::start_with("", "park_s = 1").await;
    let mut agent = master.agent("churn").await;
    let until = Instant::now() + Duration::from_secs(6);
    let workers: Vec<_> = (0..6).map(|_| tokio::spawn(churn(master.api(), echo(), until))).collect();
    let mut wrong_since: BTreeMap<u16, Instant> = BTreeMap::new();
    let mut killed_at = Instant::now();
    while Instant::now() < until {
        // The two cannot be read at one moment: what differs from the sockets both before and after the rows counts, and
        // only if it does so at every look of a second.
        let before = master.listening();
        let rows = master.rows().await;
        let after = master.listening();
        let differs =
            |port: &u16| rows.contains(port) != before.contains(port) && before.contains(port) == after.contains(port);
        let differing: Vec<_> = master.range.clone().filter(differs).collect();
        wrong_since.retain(|port, _| differing.contains(port));
        for port in differing {
            let since = *wrong_since.entry(port).or_insert_with(Instant::now);
            assert!(since.elapsed() < Duration::from_secs(1), "port {port}: rows {rows:?}, sockets {after:?}");
        }
        if killed_at.elapsed() > Duration::from_secs(2) {
            agent.kill();
            agent.start();
            killed_at = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rounds = 0;
    for worker in workers {
        rounds += worker.await.unwrap();
    }
    assert!(rounds > 50, "only {rounds} tunnels in all");
    master.sockets_equal_rows().await;
    assert!(master.listening().is_empty(), "{:?}", master.listening());
}
