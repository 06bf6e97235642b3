//! Places as they are typed: on an agent, or on this machine.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use proto::id::AgentId;

use super::{UsageError, output::plain};

/// Where something is or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Local(PathBuf),
    Remote(Remote),
}

/// A path on an agent. Bytes: a name need not be text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) agent: String,
    pub(super) path: Vec<u8>,
}

impl End {
    /// `AGENT:/PATH`, or a local path. A colon behind a slash is part of a name, as with scp.
    pub(super) fn parse(text: &OsStr) -> Result<Self, UsageError> {
        let bytes = text.as_bytes();
        let Some(colon) = bytes.iter().position(|byte| matches!(byte, b':' | b'/')).filter(|at| bytes[*at] == b':')
        else {
            return Ok(Self::Local(text.into()));
        };
        let agent = String::from_utf8_lossy(&bytes[..colon]).into_owned();
        let path = bytes[colon + 1..].to_vec();
        if agent.parse::<AgentId>().is_err() {
            return Err(UsageError(format!(
                "{agent:?} is no agent's name; write ./{} for a local file",
                text.display()
            )));
        }
        if !path.starts_with(b"/") {
            return Err(UsageError(format!("a path on an agent begins with /: {agent}:/{}", lossy(&path))));
        }
        Ok(Self::Remote(Remote { agent, path }))
    }
}

impl Remote {
    /// Something in this folder.
    pub(super) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.path.clone();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self { agent: self.agent.clone(), path }
    }

    /// The last name of the path; `None` of the root.
    pub(super) fn name(&self) -> Option<OsString> {
        let name = self.path.split(|byte| *byte == b'/').rev().find(|name| !name.is_empty())?;
        Some(OsString::from_vec(name.to_vec()))
    }

    /// The query parameter that names it.
    pub(super) fn query(&self) -> (&'static str, String) {
        path_query(&self.path)
    }
}

/// The query parameter that names a path.
fn path_query(path: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(path) {
        Ok(text) => ("path", text.to_owned()),
        Err(_) => ("path_base64", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, path)),
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.agent, plain(&lossy(&self.path)))
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_is_an_agent() {
        let remote = |agent: &str, path: &str| End::Remote(Remote { agent: agent.into(), path: path.into() });
        assert_eq!(End::parse("home-1:/etc/hosts".as_ref()).unwrap(), remote("home-1", "/etc/hosts"));
        assert_eq!(End::parse("home-1:/a:b".as_ref()).unwrap(), remote("home-1", "/a:b"));
        for local in ["file", "./a:b", "/a:b", "-", ".."] {
            assert_eq!(End::parse(local.as_ref()).unwrap(), End::Local(local.into()), "{local}");
        }
        for bad in ["home-1:etc", "home-1:", ":/a", "Not An Agent:/a"] {
            assert!(End::parse(bad.as_ref()).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_spellings() {
        let folder = Remote { agent: "a".into(), path: b"/srv/".to_vec() };
        assert_eq!(folder.name().unwrap(), "srv");
        assert_eq!(folder.join(b"x").path, b"/srv/x");
        assert_eq!(Remote { agent: "a".into(), path: b"/".to_vec() }.name(), None);
        assert_eq!(path_query(b"/a b"), ("path", "/a b".into()));
        assert_eq!(path_query(b"/\xff"), ("path_base64", "L/8=".into()));
    }
}
