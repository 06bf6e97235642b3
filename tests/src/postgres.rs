//! Databases of their own in the PostgreSQL that `make test` starts, and servers of their own.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::peers::free_port;

/// A server on loopback TCP, ended with its handle.
#[derive(Debug)]
pub struct Postgres {
    pub port: u16,
    folder: TempDir,
}

impl Postgres {
    pub fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().expect("a folder"));
        let started = script("start", folder.path()).arg(port.to_string()).output().expect("postgres.sh runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Self { port, folder }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = script("stop", self.folder.path()).output();
    }
}

fn script(verb: &str, folder: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/postgres.sh"));
    command.arg(verb).arg(folder.join("pg"));
    command
}

/// Makes an empty database beside the one of `url` and gives its URL.
pub fn fresh_database(url: &str) -> String {
    let name = format!("landline_{}", uuid::Uuid::new_v4().simple());
    let output = Command::new("psql")
        .args(["-q", "-d", url, "-c", &format!("CREATE DATABASE {name}")])
        .output()
        .expect("psql is installed by deploy/dev/install-test-tools");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (front, query) = url.split_once('?').map_or((url, None), |(front, query)| (front, Some(query)));
    let base = front.rsplit_once('/').map_or(front, |(base, _)| base);
    query.map_or_else(|| format!("{base}/{name}"), |query| format!("{base}/{name}?{query}"))
}
