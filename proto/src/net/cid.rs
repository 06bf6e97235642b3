//! Connection ids that survive a restart of the master and leave room for more than one receiving worker: a worker byte,
//! seven random bytes, and a keyed tag so that foreign packets are told apart cheaply.

use quinn::ConnectionIdGenerator;
use ring::{hmac, rand::SecureRandom};

const PREFIX: usize = 8;
const TAG: usize = 4;

/// Makes and recognises ids of one endpoint. The key persists across restarts, or resets after one are lost.
#[derive(Debug)]
pub struct WorkerConnectionIds {
    key: hmac::Key,
    worker: u8,
    random: ring::rand::SystemRandom,
}

impl WorkerConnectionIds {
    pub fn new(key: &[u8], worker: u8) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), worker, random: ring::rand::SystemRandom::new() }
    }

    fn tag(&self, prefix: &[u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac::sign(&self.key, prefix).as_ref()[..TAG]);
        tag
    }
}

impl ConnectionIdGenerator for WorkerConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; PREFIX + TAG];
        // A failing system generator leaves zeros: ids stay valid, and quinn draws again on a collision.
        let _ = self.random.fill(&mut id[1..PREFIX]);
        id[0] = self.worker;
        let tag = self.tag(&id[..PREFIX]);
        id[PREFIX..].copy_from_slice(&tag);
        quinn::ConnectionId::new(&id)
    }

    fn validate(&self, cid: &quinn::ConnectionId) -> Result<(), quinn_proto::InvalidCid> {
        match cid.split_at_checked(PREFIX) {
            Some((prefix, tag)) if self.tag(prefix) == tag => Ok(()),
            _ => Err(quinn_proto::InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        PREFIX + TAG
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_recognised_across_restarts_and_by_their_key_only() {
        let id = WorkerConnectionIds::new(b"key", 3).generate_cid();
        assert_eq!((id[0], id.len()), (3, 12));
        assert!(WorkerConnectionIds::new(b"key", 0).validate(&id).is_ok());
        assert!(WorkerConnectionIds::new(b"other", 0).validate(&id).is_err());
    }
}
