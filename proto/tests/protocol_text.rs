//! docs/PROTOCOL.md and the sources it describes change together: every source has its hash in the text, every code,
//! limit and operation its place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use proto::{
    ALPN_ENROL, ALPN_LINE, VERSIONS,
    code::Code,
    limits,
    open::{self, Operation, Target},
};
use sha2::{Digest, Sha256};

const HOW: &str = "\n\ndocs/PROTOCOL.md is normative: read what it says about what you changed and correct it. Then run\n  \
    UPDATE_PROTOCOL_HASHES=1 cargo test -p landline-proto --test protocol_text\n";
const FENCE: &str = "```sha256\n";

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text_path() -> PathBuf {
    crate_dir().join("../docs/PROTOCOL.md")
}

/// The pure part of the protocol, the frames, and what the carriers agree on: `<hash>  <path below proto/src>`, sorted, one a line.
fn hashes() -> String {
    let source = crate_dir().join("src");
    let mut names: Vec<String> = fs::read_dir(&source)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".rs"))
        .collect();
    let net = [
        "frame.rs",
        "quic/mod.rs",
        "quic/endpoint.rs",
        "quic/transport.rs",
        "carrier/frames.rs",
        "carrier/websocket.rs",
    ];
    names.extend(net.map(|name| format!("net/{name}")));
    names.sort();
    let hash = |name: &String| hex::encode(Sha256::digest(fs::read(source.join(name)).unwrap()));
    names.iter().map(|name| format!("{}  {name}\n", hash(name))).collect()
}

/// The text before the list of hashes, the list, and what follows it.
fn parts(text: &str) -> (&str, &str, &str) {
    let (before, rest) = text.split_once(FENCE).expect("the list of hashes");
    let end = rest.find("```").expect("the end of the list");
    (before, &rest[..end], &rest[end..])
}

/// What differs between the list in the text and the sources.
fn outdated(listed: &str, hashes: &str) -> Vec<String> {
    let missing = hashes.lines().filter(|line| !listed.lines().any(|other| other == *line));
    let gone = listed.lines().filter(|line| {
        let name = line.split_whitespace().nth(1);
        !hashes.lines().any(|other| other.split_whitespace().nth(1) == name)
    });
    let tell = |line: &str| line.split_whitespace().nth(1).unwrap_or(line).to_owned();
    missing.chain(gone).map(tell).collect()
}

#[test]
fn the_text_belongs_to_these_sources() {
    let text = fs::read_to_string(text_path()).unwrap();
    let (before, listed, after) = parts(&text);
    if std::env::var_os("UPDATE_PROTOCOL_HASHES").is_some() {
        fs::write(text_path(), format!("{before}{FENCE}{}{after}", hashes())).unwrap();
        return;
    }
    let outdated = outdated(listed, &hashes());
    assert!(outdated.is_empty(), "changed in proto/src without docs/PROTOCOL.md: {}{HOW}", outdated.join(", "));
}

#[test]
fn a_changed_a_new_and_a_removed_source_are_noticed() {
    let listed = "aa  code.rs\nbb  id.rs\n";
    assert_eq!(outdated(listed, listed), Vec::<String>::new());
    assert_eq!(outdated(listed, "ab  code.rs\nbb  id.rs\n"), ["code.rs"]);
    assert_eq!(outdated(listed, "aa  code.rs\nbb  id.rs\ncc  new.rs\n"), ["new.rs"]);
    assert_eq!(outdated(listed, "aa  code.rs\n"), ["id.rs"]);
}

/// Rows of the table of codes that the text should have and has not.
fn missing_codes(text: &str) -> Vec<String> {
    let row = |code: &Code| format!("| {:#04x} | `{}` | {} |", code.0, code.word().unwrap(), code.meaning().unwrap());
    Code::ALL.iter().map(row).filter(|row| !text.lines().any(|line| line == row)).collect()
}

#[test]
fn every_code_stands_in_the_text_and_no_other() {
    let text = fs::read_to_string(text_path()).unwrap();
    let missing = missing_codes(&text);
    assert!(missing.is_empty(), "rows missing in docs/PROTOCOL.md, section 6:\n{}{HOW}", missing.join("\n"));
    let rows = text.lines().filter(|line| line.starts_with("| 0x")).count();
    assert_eq!(rows, Code::ALL.len(), "docs/PROTOCOL.md lists codes that the source does not know");
    assert_eq!(missing_codes(&text.replace("`clone`", "`other`")).len(), 1, "a changed word goes unnoticed");
}

#[test]
fn names_operations_and_limits_stand_in_the_text() {
    let text = fs::read_to_string(text_path()).unwrap();
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    let facts = [
        format!("`{}`", std::str::from_utf8(ALPN_LINE).unwrap()),
        format!("`{}`", std::str::from_utf8(ALPN_ENROL).unwrap()),
        format!("protocol, version {}", VERSIONS.last().unwrap()),
        format!("| frame before authentication | {} |", kib(limits::FRAME_MAX_UNAUTHENTICATED)),
        format!("| frame after authentication | {} |", kib(limits::FRAME_MAX)),
        format!("| agent id | {} bytes |", limits::AGENT_ID_MAX),
        format!("| host of a target | {} bytes", limits::HOST_MAX),
        format!("| message of a refusal | {};", kib(limits::TEXT_MAX)),
        format!("| versions, capabilities, attempts in a list | {} |", limits::HELLO_ITEMS_MAX),
        format!("| disks, network interfaces in a heartbeat | {} each |", limits::STATS_ITEMS_MAX),
        format!("| piece of exec input or output | {} |", kib(limits::EXEC_PIECE_MAX)),
        format!("| JSON of a command or its reply | {} |", kib(limits::COMMAND_JSON_MAX)),
        format!("more than\n  {} from the master's time", seconds(limits::FRESHNESS_WINDOW)),
        format!("nothing for 2.4 keep-alives ({})", seconds(limits::SUSPECT_AFTER)),
        format!("| keep-alive | {} | none |", seconds(limits::KEEP_ALIVE)),
        format!("| `max_idle_timeout` | {0} | {0} |", seconds(limits::IDLE_TIMEOUT)),
        format!("{} unless configured", seconds(limits::HEARTBEAT_INTERVAL)),
        format!("| Hello | within {} of", seconds(limits::AUTHENTICATE_WITHIN)),
    ];
    let missing: Vec<_> = facts.iter().filter(|fact| !text.contains(fact.as_str())).collect();
    assert!(missing.is_empty(), "docs/PROTOCOL.md does not say {missing:#?}{HOW}");

    let rows = text.lines().filter(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        cells.next().is_some_and(|cell| cell.parse::<u32>().is_ok())
    });
    assert_eq!(rows.count(), open::OPERATIONS as usize, "the table of operations");
    let forward = Operation::Forward(Target { host: "a".into(), port: 1 });
    assert!(text.to_lowercase().contains(&format!("| `{} {{", forward.word())));
}
