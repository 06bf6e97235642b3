//! How fast files go, against a tunnel on the same line in the same run: rounds of both, one after the other, medians.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use landline_tests::{
    api::{Api, port_of},
    copying::{content, copied},
    master::Master,
    median, soak,
};
use reqwest::Method;
use serde_json::Value;

const SIZE: usize = 64 << 20;

/// A target that pours `SIZE` bytes into whoever connects, or drinks as many and says so with one byte.
fn target() -> (u16, u16) {
    let [pour, drink] = [true, false].map(|pours| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                // The probe of a tunnel connects and leaves again.
                if pours { drop(socket.write_all(&vec![7; SIZE])) } else { drop(drunk(&mut socket)) }
            }
        });
        port
    });
    (pour, drink)
}

fn drunk(socket: &mut TcpStream) -> std::io::Result<()> {
    let (mut buffer, mut left) = (vec![0; 256 * 1024], SIZE);
    while left > 0 {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            read => left -= read,
        }
    }
    socket.write_all(b"!")
}

/// Seconds for `SIZE` bytes through a tunnel.
async fn tunnelled(listen: u16, down: bool) -> f64 {
    tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", listen)).unwrap();
        if down {
            let (mut buffer, mut left) = (vec![0; 256 * 1024], SIZE);
            while left > 0 {
                left -= socket.read(&mut buffer).unwrap();
            }
        } else {
            socket.write_all(&vec![7; SIZE]).unwrap();
            socket.read_exact(&mut [0]).unwrap();
        }
        started.elapsed().as_secs_f64()
    })
    .await
    .unwrap()
}

async fn downloaded(api: &Api, path: &Path) -> f64 {
    let started = Instant::now();
    let request = api.request(Method::GET, "/agents/near/files/content").query(&[("path", path.to_str().unwrap())]);
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut got = 0;
    while let Some(piece) = body.next().await {
        got += piece.unwrap().len();
    }
    assert_eq!(got, SIZE);
    started.elapsed().as_secs_f64()
}

async fn uploaded(api: &Api, path: &Path, bytes: bytes::Bytes) -> f64 {
    let started = Instant::now();
    let request = api.request(Method::PUT, "/agents/near/files/content").query(&[("path", path.to_str().unwrap())]);
    let answer: Value = request.body(bytes).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["complete"], true, "{answer}");
    started.elapsed().as_secs_f64()
}

async fn with_cp(master: &Master, from: String, to: String) -> f64 {
    let started = Instant::now();
    let (code, _, err) = copied(master, &["-q", &from, &to]).await;
    assert_eq!(code, 0, "{err}");
    started.elapsed().as_secs_f64()
}

/// Median MiB a second.
fn rate(seconds: &[f64]) -> f64 {
    (SIZE >> 20) as f64 / median(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_files_keep_up_with_a_tunnel() {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let _agent = master.agent("near").await;
    let api = master.api();
    let (pour, drink) = target();
    let down = port_of(&api.open_tunnel("near", pour, "tcp").await);
    let up = port_of(&api.open_tunnel("near", drink, "tcp").await);
    let bytes = bytes::Bytes::from(content(SIZE, 3));
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    std::fs::write(&there, &bytes).unwrap();
    std::fs::write(&here, &bytes).unwrap();
    let path = |name: &str| folder.path().join(name);
    let remote = |name: &str| format!("near:{}", String::from_utf8_lossy(path(name).as_os_str().as_bytes()));
    let mut times: [Vec<f64>; 6] = Default::default();
    for _ in 0..soak::count(5, 11) {
        times[0].push(tunnelled(down, true).await);
        times[1].push(downloaded(&api, &there).await);
        times[2].push(with_cp(&master, remote("there"), path("got").display().to_string()).await);
        times[3].push(tunnelled(up, false).await);
        times[4].push(uploaded(&api, &path("put"), bytes.clone()).await);
        times[5].push(with_cp(&master, here.display().to_string(), remote("copied")).await);
        for name in ["got", "put", "copied"] {
            std::fs::remove_file(path(name)).unwrap();
        }
    }
    let [tunnel_down, get, cp_down, tunnel_up, put, cp_up] = times.each_mut().map(|seconds| rate(seconds));
    println!(
        "64 MiB, MiB/s, medians. Down: tunnel {tunnel_down:.0}, GET {get:.0} ({:.2}), cp {cp_down:.0} ({:.2}). \
         Up: tunnel {tunnel_up:.0}, PUT {put:.0} ({:.2}), cp {cp_up:.0} ({:.2})",
        get / tunnel_down,
        cp_down / tunnel_down,
        put / tunnel_up,
        cp_up / tunnel_up
    );
    // The bound of the promise is 0.8; what is asserted leaves room for a machine that others use too.
    for ratio in [get / tunnel_down, cp_down / tunnel_down, put / tunnel_up, cp_up / tunnel_up] {
        assert!(ratio > 0.6, "{ratio:.2} of a tunnel's rate");
    }
    tokio::time::timeout(Duration::from_secs(5), master.sockets_equal_rows()).await.unwrap();
}
