//! A PostgreSQL that goes away: callers are told within a second, and nothing has to be done when it is back.

use std::{path::Path, time::Duration};

use secrecy::SecretString;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{
    config::Database,
    store::{
        StoreError,
        testing::{open, schema_url},
    },
};

/// The name of PostgreSQL's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// Stands between the store and the server. Dropped, it cuts every connection and leaves nobody listening.
struct Relay(JoinHandle<()>);

impl Relay {
    /// With `forward` false it takes connections and never answers.
    fn start(dir: &Path, server: &Path, forward: bool) -> Self {
        let (socket, server) = (dir.join(SOCKET), server.join(SOCKET));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let server = server.clone();
                connections.spawn(async move {
                    if !forward {
                        return std::future::pending().await;
                    }
                    let mut server = UnixStream::connect(server).await.unwrap();
                    // How a connection ends is no concern of the test.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The server's folder, from `…?host=DIR&…`.
fn server_dir(url: &str) -> String {
    let (_, rest) = url.split_once("host=").expect("the test cluster is reached by its unix socket");
    rest.split('&').next().unwrap_or_default().to_owned()
}

async fn fails_quickly(store: &Store) {
    let started = Instant::now();
    let error = store.agents().find(&id("a")).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    let error = store.audit(&entry("x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy | StoreError::Unavailable(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "two calls took {:?}", started.elapsed());
}

async fn recovers(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = store.audit(&entry("back")).await {
        assert!(Instant::now() < deadline, "not back in time: {error:?}");
    }
    assert!(store.agents().find(&id("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_gone_is_told_at_once_and_used_again_when_back() {
    let Some(url) = schema_url() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = server_dir(&url);
    let through = url.replace(&format!("host={server}"), &format!("host={}", dir.path().display()));
    let server = Path::new(&server);
    let relay = Relay::start(dir.path(), server, true);
    let store = open(&Database::Postgres(SecretString::from(through))).await;
    add(&store, "a", &[]).await;

    drop(relay);
    fails_quickly(&store).await;
    let silent = Relay::start(dir.path(), server, false);
    fails_quickly(&store).await;
    drop(silent);
    let relay = Relay::start(dir.path(), server, true);
    recovers(&store).await;
    drop(relay);
}
