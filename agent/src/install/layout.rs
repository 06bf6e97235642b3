//! Where the agent's files are, below a root.

use std::path::{Path, PathBuf};

use super::init::Kind;

/// First line of every file that a later install may replace.
pub(super) const OURS: &str = "# Written by landline-agent install. Remove this line to keep your changes.";

#[derive(Debug, Clone)]
pub struct Layout {
    pub root: PathBuf,
    pub kind: Kind,
    pub program: PathBuf,
    pub config_dir: PathBuf,
    pub state_dir: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    pub fn new(root: &Path, kind: Kind) -> Self {
        let program = match kind {
            // The read-only part of a router's file system has no /usr/local.
            Kind::Procd => "usr/bin/landline-agent",
            Kind::Systemd | Kind::Rcd | Kind::None => "usr/local/bin/landline-agent",
        };
        Self {
            root: root.to_owned(),
            kind,
            program: root.join(program),
            config_dir: root.join("etc/landline-agent"),
            // A router keeps /var in memory.
            state_dir: root.join(match kind {
                Kind::Procd => "etc/landline-agent/state",
                Kind::Systemd | Kind::Rcd | Kind::None => "var/lib/landline-agent",
            }),
            log: root.join("var/log/landline-agent.log"),
        }
    }

    /// The same path as the installed system will see it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path))
    }

    /// Whether the configuration has to say where the state is.
    pub(super) fn keeps_state_elsewhere(&self) -> bool {
        self.inside(&self.state_dir) != Path::new(crate::config::STATE_DIR)
    }

    pub(super) fn everything(&self) -> Vec<PathBuf> {
        let old_log = self.log.with_extension("log.1");
        vec![self.program.clone(), self.config_dir.clone(), self.state_dir.clone(), self.log.clone(), old_log]
    }
}
