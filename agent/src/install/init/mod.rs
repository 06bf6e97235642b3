//! Init systems behind one interface: which files each needs, and how it starts and ends the agent.

mod files;
mod none;
mod service;

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

pub use self::none::PID_FILE;
use self::{files::Files, none::NoInit, service::Service};
use super::{InstallError, Layout, grant::Grant, place::Placing};

/// Which init system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Systemd,
    /// FreeBSD, OPNsense.
    Rcd,
    /// OpenWrt.
    Procd,
    /// A supervised background process. It does not come back by itself after a reboot.
    None,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Systemd, Self::Rcd, Self::Procd, Self::None];

    pub fn word(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Rcd => "rcd",
            Self::Procd => "procd",
            Self::None => "none",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.ok_or_else(|| format!("{text:?} is none of systemd, rcd, procd, none"))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("cannot run `{command}`")]
    Spawn { command: String, source: io::Error },
    #[error("`{command}` failed: {told}")]
    Failed { command: String, told: String },
    #[error("the supervisor (process {0}) does not end")]
    WillNotEnd(i32),
    #[error("cannot start the supervisor")]
    Supervisor(#[source] io::Error),
}

/// One init system on one machine or image.
pub trait Init {
    fn write(&self, placing: &Placing<'_>, grants: &[Grant]) -> Result<(), InstallError>;
    /// Every file that `write` may leave; folders with all in them.
    fn files(&self) -> Vec<PathBuf>;
    fn is_installed(&self) -> bool;
    /// Starts it, or starts it anew.
    fn start(&self) -> Result<(), InitError>;
    fn stop(&self) -> Result<(), InitError>;
    /// After its files are gone.
    fn removed(&self) {}
}

pub(super) fn of(kind: Kind, layout: &Layout, user: &str, image: bool) -> Box<dyn Init> {
    let files = Files { layout: layout.clone(), user: user.to_owned() };
    match kind {
        Kind::None => Box::new(NoInit { layout: layout.clone(), user: user.to_owned() }),
        Kind::Systemd | Kind::Rcd | Kind::Procd => Box::new(Service { kind, files, image }),
    }
}

/// What a machine or an image runs. Only a machine can be without any.
pub(super) fn detect(root: &Path) -> Option<Kind> {
    let has = |path: &str| root.join(path).exists();
    if root == Path::new("/") {
        let kind = if has("run/systemd/system") {
            Kind::Systemd
        } else if has("sbin/procd") {
            Kind::Procd
        } else if has("etc/rc.subr") {
            Kind::Rcd
        } else {
            Kind::None
        };
        return Some(kind);
    }
    if has("lib/systemd/systemd") || has("usr/lib/systemd/systemd") {
        Some(Kind::Systemd)
    } else if has("sbin/procd") {
        Some(Kind::Procd)
    } else if has("etc/rc.subr") {
        Some(Kind::Rcd)
    } else {
        None
    }
}
