//! One line of a chain: its hash covers the line before it, so that a changed, removed or inserted line shows. The form is
//! that of the master's audit export, so that one script checks both. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Which of the two chains a line is in. Each has files and a bound of its own, so that no flood of connections washes away
/// what was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What has effects, and what happened to the agent.
    Acts,
    /// Connections, looks, lines, refusals.
    Traffic,
}

/// The line that the next one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// 0 before the first line.
    pub seq: u64,
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub chain: Kind,
    pub seq: u64,
    pub previous: String,
    pub hash: String,
    /// JSON, as the very text that was hashed.
    pub body: String,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Acts, Self::Traffic];

    pub fn word(self) -> &'static str {
        match self {
            Self::Acts => "acts",
            Self::Traffic => "traffic",
        }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

impl Head {
    /// The next line.
    pub fn next(&self, chain: Kind, body: String) -> Line {
        let hash = chained(&self.hash, &body);
        Line { chain, seq: self.seq + 1, previous: self.hash.clone(), hash, body }
    }

    /// Why `line` does not follow.
    pub fn fault(&self, line: &Line, chain: Kind) -> Option<&'static str> {
        if line.chain != chain {
            Some("it belongs to another chain")
        } else if line.hash != chained(&line.previous, &line.body) {
            Some("it was changed")
        } else if line.seq != self.seq + 1 {
            Some("another line stands in its place")
        } else if line.previous != self.hash {
            Some("it does not follow the line before it")
        } else {
            None
        }
    }
}

impl Line {
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }

    /// The line that this one says it follows.
    pub fn before(&self) -> Head {
        Head { seq: self.seq.saturating_sub(1), hash: self.previous.clone() }
    }

    /// With its newline.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// `None` for what is no line.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

fn chained(previous: &str, body: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update("\n");
    hasher.update(body);
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_line_is_a_fault() {
        let first = Head::default().next(Kind::Acts, r#"{"what":"exec","target":"\u001b"}"#.into());
        let second = first.head().next(Kind::Acts, "{}".into());
        assert_eq!(Line::parse(second.text().trim_end().as_bytes()).as_ref(), Some(&second));
        assert_eq!(first.head().fault(&second, Kind::Acts), None);
        assert_eq!(second.before(), first.head());
        let faults = [
            Line { chain: Kind::Traffic, ..second.clone() },
            Line { seq: 3, ..second.clone() },
            Line { previous: "0".repeat(64), ..second.clone() },
            Line { hash: "0".repeat(64), ..second.clone() },
            Line { body: "[]".into(), ..second.clone() },
            Head { seq: 1, ..Head::default() }.next(Kind::Acts, "{}".into()),
        ];
        for faulty in faults {
            assert!(first.head().fault(&faulty, Kind::Acts).is_some(), "{faulty:?}");
        }
    }
}
