//! What a doctor found: one shape for both programs, for people and as JSON. Finds nothing itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    pub state: Health,
    /// What was seen.
    pub seen: String,
    /// What to do about it; empty where nothing is to be done.
    pub fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Ok,
    /// It works, and could be better or may fail one day.
    Warn,
    Fail,
}

impl Health {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Check {
    pub fn ok(name: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { name: name.into(), state: Health::Ok, seen: seen.into(), fix: String::new() }
    }

    pub fn warn(name: impl Into<String>, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: Health::Warn, fix: fix.into(), ..Self::ok(name, seen) }
    }

    pub fn fail(name: impl Into<String>, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: Health::Fail, fix: fix.into(), ..Self::ok(name, seen) }
    }

    pub fn failed(&self) -> bool {
        self.state == Health::Fail
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {:<18} {}", self.state.word(), self.name, self.seen)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, "\n      {:<18} -> {}", "", self.fix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_was_seen_and_what_to_do() {
        let check = Check::fail("state folder", "mode 0755", "chmod 0700 /x");
        assert_eq!(check.to_string().lines().count(), 2);
        assert!(check.failed() && check.to_string().ends_with("-> chmod 0700 /x"));
        assert_eq!(Check::ok("disk", "9 GiB free").to_string(), "ok    disk               9 GiB free");
    }
}
