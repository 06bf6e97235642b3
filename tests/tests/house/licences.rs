//! Licences: every package's SPDX expression must be satisfiable with licences from the list.

use crate::facts::Package;

/// What we may build on and ship under Apache-2.0 or MIT.
const ALLOWED: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn check(packages: &[Package]) -> Vec<String> {
    let refused = |package: &&Package| !package.licence.as_deref().is_some_and(allowed);
    let tell = |package: &Package| {
        let licence = package.licence.as_deref().unwrap_or("none declared");
        format!("{} {}: licence {licence} is not on the list", package.name, package.version)
    };
    packages.iter().filter(refused).map(tell).collect()
}

/// Whether an SPDX expression can be satisfied. A slash, as older packages write it, means OR.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    parser.any() == Some(true) && parser.words.is_empty()
}

/// Expression = all (OR all)*; all = one (AND one)*; one = ( expression ) | licence [WITH exception].
struct Parser<'a> {
    words: &'a [&'a str],
}

impl Parser<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut allowed = self.all()?;
        while self.take("OR") {
            allowed |= self.all()?;
        }
        Some(allowed)
    }

    fn all(&mut self) -> Option<bool> {
        let mut allowed = self.one()?;
        while self.take("AND") {
            allowed &= self.one()?;
        }
        Some(allowed)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let allowed = self.any()?;
            return self.take(")").then_some(allowed);
        }
        let licence = self.next()?;
        let name = if self.take("WITH") { format!("{licence} WITH {}", self.next()?) } else { licence };
        Some(ALLOWED.contains(&name.as_str()))
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn next(&mut self) -> Option<String> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some((*first).to_owned())
    }
}

#[test]
fn expressions_are_understood() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "GPL-3.0 OR (ISC AND Zlib)",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT)", "MIT OR", "Apache-2.0 WITH Other", "MIT MIT"] {
        assert!(!allowed(bad), "{bad}");
    }
}

#[test]
fn a_planted_licence_is_found() {
    let planted = |licence: Option<&str>| {
        let licence = licence.map(str::to_owned);
        check(&[Package { name: "planted".into(), version: "1.0.0".parse().unwrap(), licence }])
    };
    assert_eq!(planted(Some("MIT OR Apache-2.0")), Vec::<String>::new());
    assert_eq!(planted(Some("AGPL-3.0-only")), ["planted 1.0.0: licence AGPL-3.0-only is not on the list"]);
    assert_eq!(planted(None).len(), 1);
}
