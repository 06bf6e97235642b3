//! The join token: everything a new agent needs in one string to paste, and the secret and the pin inside it. Makes and
//! reads them; whether a secret is still good is the master's to say.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::id::AgentId;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const TOKEN_PREFIX: &str = "llj1_";
const KEY_PREFIX: &str = "llk1_";
const PIN_PREFIX: &str = "sha256:";
/// Bytes of a generated secret: 192 bits, 32 characters.
const SECRET_BYTES: usize = 24;
/// Bytes of the checksum that tells a cut or mistyped token from a wrong one.
const CHECK_BYTES: usize = 4;
/// Longest token read, characters: each of its three texts is at most 255 bytes.
const TOKEN_MAX: usize = 1200;

/// The master's CA as an agent knows it: SHA-256 of the SubjectPublicKeyInfo, so that it outlives a new CA certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Why a text is not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin is \"sha256:\" and 64 hexadecimal digits")]
pub struct BadPin;

/// Address of the master, its CA, and who the agent is to be.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// `host:port`, an IPv6 address in brackets.
    pub address: String,
    pub pin: Pin,
    pub agent_id: AgentId,
    pub secret: SecretString,
}

/// Address of the master, its CA, and a secret that makes agents: what a new machine needs, whatever it is called.
#[derive(Debug, Clone)]
pub struct EnrolmentKey {
    /// `host:port`, an IPv6 address in brackets.
    pub address: String,
    pub pin: Pin,
    pub secret: SecretString,
}

/// Either of the two that are pasted into a new machine.
#[derive(Debug, Clone)]
pub enum Pasted {
    Token(JoinToken),
    Key(EnrolmentKey),
}

/// Why a text is not a join token. None of these repeats the text: it is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("a join token starts with \"llj1_\", an enrolment key with \"llk1_\"; copy it whole from `landline`")]
    Prefix,
    #[error("a join token starts with \"llj1_\", this one with another number; upgrade this agent")]
    Newer,
    #[error("the join token is cut or mistyped; copy it whole from `landline agents add`")]
    Damaged,
    #[error("the join token holds no usable address of a master (host:port)")]
    Address,
    #[error("the join token holds no usable agent id")]
    AgentId,
    #[error("the join token holds no secret")]
    Secret,
}

impl Pin {
    /// The pin of a key given as SubjectPublicKeyInfo, DER.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let mut pin = [0; 32];
        let digits = text.trim().strip_prefix(PIN_PREFIX).ok_or(BadPin)?;
        hex::decode_to_slice(digits, &mut pin).map_err(|_| BadPin)?;
        Ok(Self(pin))
    }
}

impl JoinToken {
    /// The string to paste. Holds the secret: for the eyes of whoever asked for it, never for a log.
    pub fn expose(&self) -> String {
        write(TOKEN_PREFIX, &self.pin, [&self.address, self.agent_id.as_str(), self.secret.expose_secret()])
    }
}

impl EnrolmentKey {
    /// The string to paste. Holds the secret.
    pub fn expose(&self) -> String {
        write(KEY_PREFIX, &self.pin, [&self.address, self.secret.expose_secret()])
    }
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let (pin, [address, agent_id, secret]) = read(TOKEN_PREFIX, text)?;
        let agent_id = agent_id.parse().map_err(|_| BadToken::AgentId)?;
        Ok(Self { address, pin, agent_id, secret: secret.into() })
    }
}

impl FromStr for EnrolmentKey {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let (pin, [address, secret]) = read(KEY_PREFIX, text)?;
        Ok(Self { address, pin, secret: secret.into() })
    }
}

impl FromStr for Pasted {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.trim().starts_with(KEY_PREFIX) { text.parse().map(Self::Key) } else { text.parse().map(Self::Token) }
    }
}

/// Pin, texts with their length in front, and a checksum.
fn write<const N: usize>(prefix: &str, pin: &Pin, texts: [&str; N]) -> String {
    let mut bytes = pin.0.to_vec();
    for text in texts {
        // A text too long for its length byte makes a token that no agent reads; none of ours is.
        bytes.push(u8::try_from(text.len()).unwrap_or(0));
        bytes.extend_from_slice(text.as_bytes());
    }
    let check = checksum(&bytes);
    bytes.extend_from_slice(&check);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The first text is the master's address, the last one the secret; both are checked.
fn read<const N: usize>(prefix: &str, text: &str) -> Result<(Pin, [String; N]), BadToken> {
    let text = text.trim();
    let Some(body) = text.strip_prefix(prefix) else {
        let kind = &prefix[..3];
        let newer = text.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        return Err(if newer { BadToken::Newer } else { BadToken::Prefix });
    };
    if body.len() > TOKEN_MAX {
        return Err(BadToken::Damaged);
    }
    let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| BadToken::Damaged)?;
    let (bytes, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(BadToken::Damaged)?;
    if checksum(bytes) != *check {
        return Err(BadToken::Damaged);
    }
    let (pin, mut rest) = bytes.split_first_chunk::<32>().ok_or(BadToken::Damaged)?;
    let mut texts = [const { String::new() }; N];
    for text in &mut texts {
        take_text(&mut rest)?.clone_into(text);
    }
    if !texts.first().is_some_and(|address| is_address(address)) {
        return Err(BadToken::Address);
    }
    if texts.last().is_none_or(String::is_empty) {
        return Err(BadToken::Secret);
    }
    Ok((Pin(*pin), texts))
}

/// A new secret: 192 random bits as 32 characters that survive any shell and any URL.
pub fn generate_secret() -> SecretString {
    let mut bytes = [0; SECRET_BYTES];
    #[expect(clippy::expect_used, reason = "a guessable secret is worse than no answer")]
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// What is stored of a secret. A plain hash suffices: generated secrets cannot be guessed.
pub fn secret_sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether two hashes are equal, in a time that does not tell where they differ (SECURITY R12).
pub fn same_hash(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.ct_eq(other).into()
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::digest(bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, BadToken> {
    let (length, tail) = rest.split_first().ok_or(BadToken::Damaged)?;
    let (text, tail) = tail.split_at_checked(usize::from(*length)).ok_or(BadToken::Damaged)?;
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| BadToken::Damaged)
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
    let bracketed = host.starts_with('[') && host.ends_with(']');
    !host.is_empty()
        && host.chars().all(plain)
        && (bracketed || !host.contains([':', '[', ']']))
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(address: &str, agent_id: &str, secret: &str) -> JoinToken {
        let pin = Pin::of_spki(b"key");
        JoinToken { address: address.into(), pin, agent_id: agent_id.parse().unwrap(), secret: secret.into() }
    }

    proptest! {
        #[test]
        fn tokens_survive_the_round_trip(
            host in "[a-z0-9.-]{1,60}", port in 1u16.., id in "[a-z0-9][a-z0-9._-]{0,62}", secret in "\\PC{1,60}", pin: [u8; 32],
        ) {
            let made = JoinToken { pin: Pin(pin), ..token(&format!("{host}:{port}"), &id, &secret) };
            let read: JoinToken = format!("  {}\n", made.expose()).parse().unwrap();
            prop_assert_eq!(read.address, made.address);
            prop_assert_eq!(read.pin, made.pin);
            prop_assert_eq!(read.agent_id, made.agent_id);
            prop_assert_eq!(read.secret.expose_secret(), secret.as_str());
        }

        #[test]
        fn cut_and_mistyped_tokens_are_refused(at in 0usize..60, other in "[A-Za-z0-9_-]") {
            let whole = token("master.example:7443", "home-1", "secret").expose();
            let at = TOKEN_PREFIX.len() + at;
            let cut: Result<JoinToken, _> = whole[..at].parse();
            prop_assert_eq!(cut.err(), Some(BadToken::Damaged));
            if whole[at..=at] != other {
                let mistyped = format!("{}{}{}", &whole[..at], other, &whole[at + 1..]);
                prop_assert_eq!(mistyped.parse::<JoinToken>().err(), Some(BadToken::Damaged));
            }
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,80}") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("{TOKEN_PREFIX}{text}").parse::<JoinToken>();
            let _ = text.parse::<Pin>();
        }
    }

    #[test]
    fn a_key_survives_the_round_trip_and_is_no_token() {
        let key = EnrolmentKey { address: "h:1".into(), pin: Pin::of_spki(b"key"), secret: "many".into() };
        let text = key.expose();
        let Ok(Pasted::Key(read)) = text.parse() else { panic!("{text}") };
        assert_eq!((read.address.as_str(), read.pin, read.secret.expose_secret()), ("h:1", key.pin, "many"));
        assert_eq!(text.parse::<JoinToken>().err(), Some(BadToken::Prefix));
        assert!(matches!(token("h:1", "a", "s").expose().parse(), Ok(Pasted::Token(_))));
        assert!(!format!("{key:?}").contains("many"));
        assert_eq!(text[..text.len() - 1].parse::<EnrolmentKey>().err(), Some(BadToken::Damaged));
    }

    #[test]
    fn errors_name_the_cause_and_never_the_text() {
        let refused = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(refused(""), BadToken::Prefix);
        assert_eq!(refused("hello"), BadToken::Prefix);
        assert_eq!(refused("llj2_abc"), BadToken::Newer);
        assert_eq!(refused("llj1_"), BadToken::Damaged);
        assert_eq!(refused("llj1_!!!"), BadToken::Damaged);
        assert_eq!(refused(&format!("llj1_{}", "A".repeat(4000))), BadToken::Damaged);
        for address in ["", "host", "host:0", "host:70000", ":7443", "::1:7443", "a b:7443", "a/b:1"] {
            assert_eq!(refused(&token(address, "a", "s").expose()), BadToken::Address, "{address}");
        }
        assert_eq!(refused(&token("h:1", "a", "").expose()), BadToken::Secret);
        assert!(token("[::1]:7443", "a", "s").expose().parse::<JoinToken>().is_ok());
    }

    #[test]
    fn pins_are_checked() {
        let pin = Pin::of_spki(b"key");
        assert_eq!(pin.to_string().parse::<Pin>(), Ok(pin));
        for bad in ["", "sha256:", "sha1:00", &pin.to_string()[..70], &format!("{pin}0")] {
            assert_eq!(bad.parse::<Pin>(), Err(BadPin), "{bad}");
        }
    }

    #[test]
    fn secrets_are_long_different_and_blank_when_printed() {
        let (one, other) = (generate_secret(), generate_secret());
        assert_eq!(one.expose_secret().len(), 32);
        assert_ne!(one.expose_secret(), other.expose_secret());
        let printed = format!("{:?}", token("h:1", "a", one.expose_secret()));
        assert!(!printed.contains(one.expose_secret()), "{printed}");
        assert!(same_hash(&secret_sha256("a"), &secret_sha256("a")));
        assert!(!same_hash(&secret_sha256("a"), &secret_sha256("b")));
    }
}
