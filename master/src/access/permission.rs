//! What a token may hold.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::store::words;

words! {
    /// One permission, as it stands in tokens and in the API.
    Permission {
        AgentsRead = "agents:read",
        AgentsWrite = "agents:write",
        CommandsRun = "commands:run",
        ExecRun = "exec:run",
        /// Open shells, type into one's own, end any.
        ShellsOpen = "shells:open",
        /// See shells, watch them, read their recordings.
        ShellsWatch = "shells:watch",
        FilesRead = "files:read",
        FilesWrite = "files:write",
        TunnelsRead = "tunnels:read",
        TunnelsWrite = "tunnels:write",
        EventsRead = "events:read",
        TokensRead = "tokens:read",
        TokensWrite = "tokens:write",
        AuditRead = "audit:read",
        /// Other people's accounts: see them.
        OperatorsRead = "operators:read",
        /// Make, change and remove them.
        OperatorsWrite = "operators:write",
        /// Enrolment keys and agents that wait for approval: see them.
        EnrolRead = "enrol:read",
        /// Make and revoke keys, approve and reject agents.
        EnrolWrite = "enrol:write",
        /// The four calls of the original panel.
        PanelCall = "panel:call",
    }
}

/// A set of permissions. Written as words joined by spaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<Permission>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such permission: {0}")]
pub struct BadPermission(pub String);

impl Permissions {
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    pub fn contains(&self, permission: Permission) -> bool {
        self.0.contains(&permission)
    }

    pub fn is_subset(&self, other: &Permissions) -> bool {
        self.0.is_subset(&other.0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Permission> {
        self.0.iter().copied()
    }

    /// Those that both hold.
    pub fn and(&self, other: &Permissions) -> Permissions {
        self.0.intersection(&other.0).copied().collect()
    }

    /// Those that `other` lacks.
    pub fn beyond(&self, other: &Permissions) -> Permissions {
        self.0.difference(&other.0).copied().collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().collect())
    }
}

impl FromStr for Permissions {
    type Err = BadPermission;

    fn from_str(text: &str) -> Result<Self, BadPermission> {
        let words = text.split_whitespace();
        words.map(|word| word.parse().map_err(|_| BadPermission(word.to_owned()))).collect()
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, permission) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{permission}")?;
        }
        Ok(())
    }
}
