//! Labels of an agent and selectors over them. Pure: [`super::agents`] turns a selector into SQL, `access` asks it directly.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest key or value, bytes.
const WORD_MAX: usize = 63;
/// Most labels of one agent, and most terms of one selector.
pub const ITEMS_MAX: usize = 32;

/// `k=v` pairs of an agent. Keys and values are checked on every way in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

/// Why a text is no label set or no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabels {
    #[error("{0:?} is not a label word: 1 to 63 of A-Z a-z 0-9 . _ / - , and a letter or digit first")]
    Word(String),
    #[error("{0:?} is not a selector term: write key=value or key!=value, joined by commas")]
    Term(String),
    #[error("more than {ITEMS_MAX} labels or terms")]
    TooMany,
}

/// A conjunction of terms, `k=v,k!=v`. Empty selects everything. `k!=v` also selects agents without `k`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub key: String,
    pub value: String,
    /// False for `!=`.
    pub equal: bool,
}

impl Labels {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = BadLabels;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, BadLabels> {
        if map.len() > ITEMS_MAX {
            return Err(BadLabels::TooMany);
        }
        for word in map.iter().flat_map(|(key, value)| [key, value]) {
            check_word(word)?;
        }
        Ok(Self(map))
    }
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|term| (labels.value(&term.key) == Some(term.value.as_str())) == term.equal)
    }

    /// What both select.
    pub fn and(&self, other: &Selector) -> Selector {
        let mut terms = self.terms.clone();
        terms.extend(other.terms.iter().filter(|term| !self.terms.contains(term)).cloned());
        Selector { terms }
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether it selects every agent.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

impl FromStr for Selector {
    type Err = BadLabels;

    fn from_str(text: &str) -> Result<Self, BadLabels> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let terms = text.split(',').map(term).collect::<Result<Vec<_>, _>>()?;
        if terms.len() > ITEMS_MAX { Err(BadLabels::TooMany) } else { Ok(Self { terms }) }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let sign = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{sign}{}", term.key, term.value)?;
        }
        Ok(())
    }
}

fn term(text: &str) -> Result<Term, BadLabels> {
    let text = text.trim();
    let (key, value, equal) = match (text.split_once("!="), text.split_once('=')) {
        (Some((key, value)), _) => (key, value, false),
        (None, Some((key, value))) => (key, value, true),
        (None, None) => return Err(BadLabels::Term(text.to_owned())),
    };
    let (key, value) = (key.trim(), value.trim());
    check_word(key)?;
    check_word(value)?;
    Ok(Term { key: key.to_owned(), value: value.to_owned(), equal })
}

fn check_word(word: &str) -> Result<(), BadLabels> {
    let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    let good = word.len() <= WORD_MAX
        && word.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && word.bytes().all(tail);
    if good { Ok(()) } else { Err(BadLabels::Word(word.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let map: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Labels::try_from(map).unwrap()
    }

    #[test]
    fn selectors_select() {
        let home = labels(&[("site", "home"), ("os", "freebsd")]);
        for (text, expected) in [
            ("", true),
            ("site=home", true),
            ("site=home,os!=linux", true),
            ("site=office", false),
            ("site!=home", false),
            ("absent!=x", true),
            ("absent=x", false),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&home), expected, "{text}");
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in ["site", "=x", "a=", "a=b,,c=d", "a b=c", "a=b'", "a==b", &"a=b,".repeat(40)] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        let bad: BTreeMap<_, _> = [("k".to_owned(), "<script>".to_owned())].into();
        assert!(Labels::try_from(bad).is_err());
    }

    #[test]
    fn both_selectors_must_match() {
        let (a, b): (Selector, Selector) = ("site=home".parse().unwrap(), "os=linux,site=home".parse().unwrap());
        assert_eq!(a.and(&b).to_string(), "site=home,os=linux");
        assert!(!a.and(&b).matches(&labels(&[("site", "home")])));
    }
}
