//! What stands behind the agents in these tests.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

/// A target; it closes its port when dropped.
pub(super) struct Target {
    pub(super) port: u16,
    _accepting: AbortOnDropHandle<()>,
}

/// Sends everything back, and an end for an end.
pub(super) async fn echo() -> Target {
    echo_on(0).await
}

pub(super) async fn echo_on(port: u16) -> Target {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Target { port, _accepting: AbortOnDropHandle::new(accepting) }
}

/// Answers the first bytes with `answer` and closes.
pub(super) async fn answers(answer: &'static [u8]) -> Target {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut hello = [0; 1024];
            if matches!(socket.read(&mut hello).await, Ok(read) if read > 0) {
                let _ = socket.write_all(answer).await;
            }
        }
    });
    Target { port, _accepting: AbortOnDropHandle::new(accepting) }
}

/// A port on which nothing listens.
pub(super) async fn nobody() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}
