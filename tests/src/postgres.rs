//! Databases of their own in the PostgreSQL that `make test` starts.

use std::process::Command;

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
