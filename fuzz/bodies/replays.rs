//! The replay guard against a hostile peer that chooses ids, times and what to send again.

use std::collections::HashSet;

use proto::{freshness::FreshnessGuard, id::RequestId};

const WINDOW_MS: i64 = 30_000;
/// Ids in play; few, so that they meet again.
const IDS: u8 = 24;
const CAPACITY: usize = 16;

/// Four bytes a step: how much time passes, which id, and when it claims to be issued; or which earlier request is sent
/// again as it was. Nothing is taken twice and nothing outside the window.
pub(super) fn freshness(input: &[u8]) {
    let mut guard = FreshnessGuard::new(WINDOW_MS, CAPACITY);
    let mut now = 1_700_000_000_000_i64;
    let mut taken: Vec<(u8, i64)> = Vec::new();
    let mut seen: HashSet<(u8, i64)> = HashSet::new();
    for step in input.chunks_exact(4) {
        now += i64::from(step[0]) * 250;
        let again = step[1] & 0x80 != 0 && !taken.is_empty();
        let (id, issued_at) = if again {
            taken[usize::from(step[2]) % taken.len()]
        } else {
            (step[1] % IDS, now + i64::from(i16::from_be_bytes([step[2], step[3]])) * 2)
        };
        if guard.take(now, request_id(id), issued_at).is_ok() {
            assert!((now - issued_at).abs() <= WINDOW_MS, "taken outside the window");
            assert!(seen.insert((id, issued_at)), "the same request was taken twice");
            taken.push((id, issued_at));
        }
    }
}

fn request_id(id: u8) -> RequestId {
    let text = format!("00000000-0000-4000-8000-0000000000{id:02x}");
    text.parse().expect("a request id")
}
