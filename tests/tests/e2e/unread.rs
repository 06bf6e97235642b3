//! Long answers that nobody reads: they hold back what makes them, and end with the right of whoever asked for them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use landline_tests::{api::Api, master::Master, sockets::unsent, wait::until};
use reqwest::{Method, StatusCode};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
/// Looks in which nothing moved: half a second.
const LOOKS_STILL: u32 = 25;
/// SECURITY R15 gives five seconds; the rest is for a busy machine.
const HUNG_UP_WITHIN: Duration = Duration::from_secs(8);

/// One request on a connection of its own, whose answer is read up to its head and no further.
fn ask(master: &Master, token: &str, head: &str, body: &str) -> TcpStream {
    let address = master.url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200", "{head}");
    socket
}

/// Makes a file and a listing that no buffer on the way holds.
fn plant(folder: &Path) {
    std::fs::File::create(folder.join("large")).unwrap().set_len(1 << 30).unwrap();
    let long = "x".repeat(230);
    for number in 0..40_000 {
        std::fs::File::create(folder.join(format!("{long}{number}"))).unwrap();
    }
}

/// An exec, a file and a listing, none of which ends for whoever does not read.
fn asked(master: &Master, token: &str, folder: &Path) -> Vec<TcpStream> {
    let place = folder.display();
    [
        ("POST /api/v1/agents/desk/exec".to_owned(), json!({ "argv": ["yes"] }).to_string()),
        (format!("GET /api/v1/agents/desk/files/content?path={place}/large"), String::new()),
        (format!("GET /api/v1/agents/desk/files/tree?path={place}"), String::new()),
    ]
    .iter()
    .map(|(head, body)| ask(master, token, head, body))
    .collect()
}

/// What the master has for it and cannot send; `None` once it hung up.
fn waiting(socket: &TcpStream) -> Option<u64> {
    unsent(socket.peer_addr().unwrap().port(), socket.local_addr().unwrap().port())
}

fn held(socket: &TcpStream) -> bool {
    waiting(socket).is_some()
}

/// Until nothing moves any more: the answers stand before full buffers.
async fn stalled(sockets: &[TcpStream]) {
    let (mut before, mut same) = (Vec::new(), 0);
    until(SOON, "the answers stand still", || {
        let now: Vec<_> = sockets.iter().map(waiting).collect();
        let still = now == before && now.iter().all(|bytes| bytes.is_some_and(|bytes| bytes > 0));
        same = if still { same + 1 } else { 0 };
        before = now;
        same >= LOOKS_STILL
    })
    .await;
}

async fn token(api: &Api, name: &str) -> (String, String) {
    let permissions = ["agents:read", "exec:run", "files:read"];
    let made = api.post("/tokens", json!({ "name": name, "permissions": permissions })).await;
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_any_more_and_does_not_is_hung_up_on() {
    let (master, folder) = (Master::start().await, tempfile::tempdir().unwrap());
    let _agent = master.agent("desk").await;
    plant(folder.path());
    let api = master.api();
    let (id, secret) = token(&api, "leaves").await;
    let (_, other) = token(&api, "stays").await;
    let answers = asked(&master, &secret, folder.path());
    let others = asked(&master, &other, folder.path());
    stalled(&answers).await;
    stalled(&others).await;

    let revoked = Instant::now();
    assert_eq!(api.call(Method::DELETE, &format!("/tokens/{id}"), None).await.0, StatusCode::NO_CONTENT);
    until(HUNG_UP_WITHIN, "all of them are hung up", || !answers.iter().any(held)).await;
    println!("three answers that nobody read were hung up on {:?} after their token's end", revoked.elapsed());
    assert!(others.iter().all(held), "whoever may still read is waited for");
    for mut socket in answers {
        // What was on its way, and then no more.
        let _ = std::io::copy(&mut socket, &mut std::io::sink());
    }
}
