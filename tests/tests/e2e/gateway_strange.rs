//! Requests that no browser would write, as bytes at the gateway's door: none of them reaches the target, and what does
//! reach it arrives as it was asked.

use std::time::Duration;

use landline_tests::{firewall_site::FirewallSite, gateway::Visitor, wait::eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::opened;

const ANSWER: Duration = Duration::from_secs(10);

/// Everything that comes back for these bytes until the connection closes.
async fn said(visitor: &Visitor, bytes: &str) -> String {
    let port = visitor.host.rsplit(':').next().unwrap();
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    // It may hang up before it has read all.
    let _ = socket.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let read = timeout(ANSWER, socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end for {bytes:?}: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_no_clean_request_never_reaches_the_target() {
    let (_master, _agent, site, visitor) = opened("fw-1").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    let before = site.requests();
    let (host, cookies) = (&visitor.host, visitor.cookie_header());
    let own = format!("Host: {host}\r\nCookie: {cookies}\r\n");
    let many = "x-many: 1\r\n".repeat(100);
    let huge = format!("x-huge: {}\r\n", "h".repeat(64 * 1024));
    let smuggled = "GET /landed HTTP/1.1\r\nHost: x\r\n\r\n";
    for (what, request, statuses) in [
        (
            "two lengths",
            format!("POST /upload HTTP/1.1\r\n{own}Content-Length: 0\r\nContent-Length: 36\r\n\r\n{smuggled}"),
            &[400][..],
        ),
        ("a list of lengths", format!("POST /upload HTTP/1.1\r\n{own}Content-Length: 0, 36\r\n\r\n{smuggled}"), &[400]),
        ("a signed length", format!("POST /upload HTTP/1.1\r\n{own}Content-Length: +0\r\n\r\n{smuggled}"), &[400]),
        (
            "chunked not last",
            format!("POST /upload HTTP/1.1\r\n{own}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
            &[400],
        ),
        ("a folded header", format!("GET /landed HTTP/1.1\r\n{own}X-A: 1\r\n folded\r\n\r\n"), &[400]),
        ("a space before the colon", format!("GET /landed HTTP/1.1\r\n{own}X-A : 1\r\n\r\n"), &[400]),
        ("a NUL", format!("GET /landed HTTP/1.1\r\n{own}X-A: a\0b\r\n\r\n"), &[400]),
        ("no version", "GET /landed\r\n\r\n".to_owned(), &[400]),
        ("HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[0, 400]),
        ("many headers", format!("GET /landed HTTP/1.1\r\n{own}{many}\r\n"), &[400, 431]),
        ("a huge header", format!("GET /landed HTTP/1.1\r\n{own}{huge}\r\n"), &[400, 431]),
        ("two hosts", format!("GET /landed HTTP/1.1\r\n{own}Host: {host}\r\nConnection: close\r\n\r\n"), &[400, 421]),
        (
            "another host in the address",
            format!("GET http://evil.example/landed HTTP/1.1\r\n{own}Connection: close\r\n\r\n"),
            &[421],
        ),
        (
            "a user in the host",
            format!("GET /landed HTTP/1.1\r\nHost: x@{host}\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"),
            &[421],
        ),
        ("CONNECT", format!("CONNECT {host} HTTP/1.1\r\n{own}Connection: close\r\n\r\n"), &[405]),
        ("TRACE", format!("TRACE / HTTP/1.1\r\n{own}Connection: close\r\n\r\n"), &[405]),
        (
            "a path of ours that leads out",
            format!("GET /.landline/../landed HTTP/1.1\r\n{own}Connection: close\r\n\r\n"),
            &[404],
        ),
        (
            "the way in, posted",
            format!("POST /.landline/enter HTTP/1.1\r\n{own}Content-Length: 0\r\nConnection: close\r\n\r\n"),
            &[404],
        ),
    ] {
        let answer = said(&visitor, &request).await;
        assert!(statuses.contains(&status(&answer)), "{what}: {answer}");
        assert_eq!(site.requests(), before, "{what} reached the target");
    }
    assert_eq!(visitor.page("/login.php").await.0, 200);
}

/// Both a length and chunks: the chunks count, here and at the target; what follows them is no request of its own.
#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let (_master, _agent, site, visitor) = opened("fw-1").await;
    assert_eq!(visitor.page("/login.php").await.0, 200);
    let before = site.requests();
    let head = format!("POST /upload HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n", visitor.host, visitor.cookie_header());
    let request = format!(
        "{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let answer = said(&visitor, &request).await;
    assert!(status(&answer) == 400 || answer.contains("\"length\":3"), "{answer}");
    assert!(site.requests() <= before + 1);
}

#[tokio::test]
async fn paths_arrive_as_they_were_asked() {
    let (_master, _agent, _site, visitor) = opened("fw-1").await;
    for path in [
        "/paths/%2e%2e/..;/%2fetc%2fpasswd?a=%00&b=/../",
        "/paths/../index.php",
        "//paths//x",
        "/paths;jsessionid=1/a%5Cb",
        "/paths/.landline/enter?ticket=x",
        "/%2elandline/paths",
        "/.LANDLINE/paths",
        "/paths?url=https://evil.example/#",
        "/paths/~[]{}|^%E2%82%AC",
    ] {
        let head =
            format!("Host: {}\r\nCookie: {}\r\nConnection: close\r\n\r\n", visitor.host, visitor.cookie_header());
        let answer = said(&visitor, &format!("GET {path} HTTP/1.1\r\n{head}")).await;
        let expected = path.trim_end_matches('#');
        assert!(status(&answer) == 200 && answer.ends_with(&format!("\r\n\r\n{expected}")), "{path}: {answer}");
    }
}

/// Nobody who has not entered may keep the gateway busy with a body that never ends.
#[tokio::test]
async fn a_body_without_end_is_not_waited_for_before_a_visit() {
    let (_master, _agent, site, visitor) = opened("fw-1").await;
    let before = site.requests();
    let port = visitor.host.rsplit(':').next().unwrap();
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let head = format!("POST /upload HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", visitor.host);
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(ANSWER, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
    // It goes on sending, and is cut off.
    let piece = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    eventually(ANSWER, "the connection is cut", || {
        let sent = socket.try_write(piece.as_bytes());
        std::future::ready(sent.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock).then_some(()))
    })
    .await;
    assert_eq!(site.requests(), before);
}

/// Two requests in one piece are answered in turn, each by its own target's rules.
#[tokio::test]
async fn requests_in_one_piece_are_answered_in_turn() {
    let (master, _agent, _site, visitor) = opened("fw-1").await;
    let other = FirewallSite::start("fw-2").await;
    let two = Visitor::open(&master, "home-1", other.port, "https").await;
    let ask = |visitor: &Visitor, end: &str| {
        format!("GET /login.php HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n{end}\r\n", visitor.host, visitor.cookie_header())
    };
    let answer = said(&visitor, &(ask(&visitor, "") + &ask(&two, "Connection: close\r\n"))).await;
    let (first, second) = (answer.find("Login | fw-1").unwrap(), answer.find("Login | fw-2").unwrap());
    assert!(first < second, "{answer}");
}
