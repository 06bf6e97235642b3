//! Sources: each opens by saying what it owns, none has a name that says nothing, and the pure part of the protocol
//! stays pure.

use crate::facts::Source;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "manager", "misc"];

/// What pure code has no business with.
const IMPURE: &[&str] = &["std::net", "std::fs", "std::env", "std::thread", "SystemTime", "Instant", "tokio", "quinn"];

pub(crate) fn opening(sources: &[Source]) -> Vec<String> {
    let silent = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        let said = first.strip_prefix("//!").unwrap_or_default().trim();
        said.is_empty()
    };
    sources
        .iter()
        .filter(silent)
        .map(|source| format!("{} does not open with `//! what it owns`", source.path))
        .collect()
}

pub(crate) fn names(sources: &[Source]) -> Vec<String> {
    let empty = |source: &&Source| {
        let mut parts = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        parts.any(|part| EMPTY_NAMES.contains(&part))
    };
    sources.iter().filter(empty).map(|source| format!("{}: the name says nothing", source.path)).collect()
}

/// `sources` are those below `proto/src`; `net/` may do as it likes.
pub(crate) fn pure(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("net/")) {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = IMPURE.iter().filter(|word| code.contains(**word));
            violations
                .extend(words.next().map(|word| format!("proto/src/{}:{}: uses {word}", source.path, number + 1)));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(path: &str, text: &str) -> Vec<Source> {
        vec![Source { path: path.into(), text: text.into() }]
    }

    #[test]
    fn planted_sources_are_found() {
        assert_eq!(opening(&planted("a.rs", "//! Owns a.\n")), Vec::<String>::new());
        for bad in ["", "use std;", "\n//! Late.", "//!", "// Not a doc"] {
            assert_eq!(opening(&planted("a.rs", bad)).len(), 1, "{bad:?}");
        }
        assert_eq!(names(&planted("fleet/line.rs", "")), Vec::<String>::new());
        assert_eq!(names(&planted("fleet/util.rs", "")).len(), 1);
        assert_eq!(names(&planted("common/line.rs", "")).len(), 1);
        assert_eq!(pure(&planted("net/a.rs", "use tokio;")), Vec::<String>::new());
        assert_eq!(pure(&planted("a.rs", "// no tokio here")), Vec::<String>::new());
        assert_eq!(pure(&planted("a.rs", "\nlet now = Instant::now();")), ["proto/src/a.rs:2: uses Instant"]);
    }
}
