//! What strangers send to `certs`: certificate requests, certificates, join tokens and pins.

use std::sync::LazyLock;

use certs::{
    authority::Authority,
    identity,
    join::{JoinToken, Pin},
};

/// Held in memory only; its folder is gone once it is read.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("landline-fuzz-{}", std::process::id()));
    let authority = Authority::load_or_create(&dir).expect("a CA in the folder for temporary files");
    let _ = std::fs::remove_dir_all(&dir);
    authority
});

/// A request that is granted yields a certificate for the id we gave and nothing else.
pub(super) fn csr(input: &[u8]) {
    let agent = "fuzzed".parse().expect("an id");
    let Ok(issued) = AUTHORITY.issue_agent(input, &agent, i64::MAX) else { return };
    let identity = identity::peer_identity(&issued.der).expect("our own certificate");
    assert_eq!((identity.agent_id, identity.key_sha256), (agent, issued.key_sha256));
    assert_eq!(identity.not_after_ms, issued.not_after_ms);
}

pub(super) fn peer_identity(input: &[u8]) {
    let _ = identity::peer_identity(input);
}

pub(super) fn join_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(token) = text.parse::<JoinToken>() else { return };
    let again: JoinToken = token.expose().parse().expect("what was read can be written");
    assert_eq!((again.address, again.pin, again.agent_id), (token.address, token.pin, token.agent_id));
}

pub(super) fn pin(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(pin) = text.parse::<Pin>() else { return };
    assert_eq!(pin.to_string().parse(), Ok(pin));
}
