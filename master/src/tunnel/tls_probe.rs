//! What a probe says to an https target, and how it reads the answer. It offers every TLS version and suite that old
//! firewalls still speak, verifies nothing and completes nothing: any TLS record is an answer.

use std::net::IpAddr;

/// Bytes of the answer looked at, at most.
pub(super) const ANSWER_MAX: usize = 1024;
const RECORD_HEADER: usize = 5;
const SUPPORTED_VERSIONS: u16 = 43;

/// TLS 1.3, then what servers of the last twenty years knew, then the renegotiation marker.
const SUITES: [u16; 19] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035, 0x000a, 0x00ff,
];

/// What answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The version the server chose, or that of the record where it does not say.
    Tls {
        version: &'static str,
        alert: Option<u8>,
    },
    PlainHttp,
    /// Something else entirely.
    Foreign,
}

/// A ClientHello for `host`; `random` fills what must not repeat.
pub(super) fn client_hello(host: &str, random: [u8; 64]) -> Vec<u8> {
    let (nonce, key) = random.split_at(32);
    let mut extensions = Vec::new();
    if host.parse::<IpAddr>().is_err() {
        let name = prefixed(&[&[0][..], &prefixed(host.as_bytes())].concat());
        extension(&mut extensions, 0, &name);
    }
    // x25519, P-256, P-384
    extension(&mut extensions, 10, &prefixed(&[0, 29, 0, 23, 0, 24]));
    extension(&mut extensions, 11, &[1, 0]);
    // ECDSA and RSA-PSS with SHA-256/384/512, RSA PKCS#1 with SHA-256/384/512/1
    let signatures = [4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 6, 1, 2, 1];
    extension(&mut extensions, 13, &prefixed(&signatures));
    extension(&mut extensions, SUPPORTED_VERSIONS, &[8, 3, 4, 3, 3, 3, 2, 3, 1]);
    // Any 32 bytes are a valid x25519 share.
    extension(&mut extensions, 51, &prefixed(&[&[0, 29][..], &prefixed(key)].concat()));

    let suites: Vec<u8> = SUITES.into_iter().flat_map(u16::to_be_bytes).collect();
    let body = [&[3, 3][..], nonce, &[0], &prefixed(&suites), &[1, 0], &prefixed(&extensions)].concat();
    let handshake = [&[1, 0][..], &prefixed(&body)].concat();
    [&[22, 3, 1][..], &prefixed(&handshake)].concat()
}

/// `bytes` behind their length in two bytes. All here are far below 64 KiB: a host has at most 255.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(extensions: &mut Vec<u8>, kind: u16, body: &[u8]) {
    extensions.extend_from_slice(&kind.to_be_bytes());
    extensions.extend_from_slice(&prefixed(body));
}

/// Judges what has arrived; `None` while more could change the verdict. At `ended` nothing more will come.
pub(super) fn judge(bytes: &[u8], ended: bool) -> Option<Answer> {
    let last = ended || bytes.len() >= ANSWER_MAX;
    if bytes.len() >= RECORD_HEADER && bytes.starts_with(b"HTTP/") {
        return Some(Answer::PlainHttp);
    }
    match bytes {
        [20..=23, 3, minor @ 0..=4, _, _, rest @ ..] => tls(bytes[0], *minor, rest, last),
        short if short.len() < RECORD_HEADER && !last => None,
        _ => Some(Answer::Foreign),
    }
}

fn tls(kind: u8, minor: u8, rest: &[u8], last: bool) -> Option<Answer> {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    let of_record = Answer::Tls { version: version([3, minor]), alert: None };
    match (kind, rest) {
        (ALERT, [_level, description, ..]) => {
            Some(Answer::Tls { version: version([3, minor]), alert: Some(*description) })
        }
        (HANDSHAKE, rest) => match server_version(rest) {
            Some(chosen) => Some(Answer::Tls { version: version(chosen), alert: None }),
            None => last.then_some(of_record),
        },
        (ALERT, _) => last.then_some(of_record),
        _ => Some(of_record),
    }
}

/// The version in a ServerHello; `None` while it is incomplete or if it is none.
fn server_version(message: &[u8]) -> Option<[u8; 2]> {
    let (head, body) = message.split_at_checked(4)?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[..2] != [2, 0] {
        return None;
    }
    let body = body.get(..length)?;
    let legacy = [*body.first()?, *body.get(1)?];
    let session = usize::from(*body.get(34)?);
    let Some(mut extensions) = body.get(35 + session + 3 + 2..) else { return Some(legacy) };
    while let Some((head, rest)) = extensions.split_at_checked(4) {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, next) = rest.split_at_checked(length)?;
        if u16::from_be_bytes([head[0], head[1]]) == SUPPORTED_VERSIONS {
            return value.try_into().ok();
        }
        extensions = next;
    }
    Some(legacy)
}

fn version(bytes: [u8; 2]) -> &'static str {
    match bytes {
        [3, 0] => "SSL 3.0",
        [3, 1] => "TLS 1.0",
        [3, 2] => "TLS 1.1",
        [3, 3] => "TLS 1.2",
        [3, 4] => "TLS 1.3",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_answer(hello: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ca");
        let authority = certs::authority::Authority::load_or_create(&dir).unwrap();
        let identity = authority.server_identity(&dir).unwrap();
        let config = certs::tls::server_config(&authority, &identity).unwrap();
        let mut server = rustls::ServerConnection::new(config).unwrap();
        server.read_tls(&mut &*hello).unwrap();
        server.process_new_packets().unwrap();
        let mut answer = Vec::new();
        server.write_tls(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_real_server_takes_the_hello_and_its_answer_is_read() {
        for host in ["localhost", "127.0.0.1", "::1"] {
            let hello = client_hello(host, std::array::from_fn(|i| i as u8 + 1));
            let answer = server_answer(&hello);
            assert_eq!(judge(&answer, false), Some(Answer::Tls { version: "TLS 1.3", alert: None }));
            for cut in 0..answer.len().min(80) {
                assert_eq!(judge(&answer[..cut], false), None, "{cut}");
            }
        }
    }

    #[test]
    fn every_kind_of_answer_is_told_apart() {
        let alert = [21, 3, 1, 0, 2, 2, 70];
        assert_eq!(judge(&alert, false), Some(Answer::Tls { version: "TLS 1.0", alert: Some(70) }));
        assert_eq!(judge(&alert[..5], false), None);
        assert_eq!(judge(&alert[..5], true), Some(Answer::Tls { version: "TLS 1.0", alert: None }));
        assert_eq!(judge(&[22, 3, 0, 0, 9, 1], true), Some(Answer::Tls { version: "SSL 3.0", alert: None }));
        assert_eq!(judge(b"HTTP/1.1 400 Bad Request", false), Some(Answer::PlainHttp));
        assert_eq!(judge(b"SSH-2.0-OpenSSH", false), Some(Answer::Foreign));
        assert_eq!(judge(b"HT", false), None);
        assert_eq!(judge(b"", true), Some(Answer::Foreign));
    }

    #[test]
    fn a_tls_1_2_hello_is_read_with_and_without_extensions() {
        let mut hello = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
        hello.extend([7; 32]);
        hello.extend([0, 0xc0, 0x2f, 0]);
        assert_eq!(judge(&hello, false), Some(Answer::Tls { version: "TLS 1.2", alert: None }));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, ended: bool) {
            let mut framed = vec![22, 3, 3, 0, 99, 2, 0, 0, 60];
            framed.extend_from_slice(&bytes);
            judge(&bytes, ended);
            judge(&framed, ended);
        }
    }
}
